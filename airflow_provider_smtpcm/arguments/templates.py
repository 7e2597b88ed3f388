"""Jinja templates of the fields of a mail and of body files, for operators, decorator and notifier.

The author of the DAG writes the template. The values that it inserts are data: they are escaped in HTML, and marked in
addresses and paths (`TaintedStr`), so that they cannot act as a separator or a folder.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.tainted import (
    BLANKS,
    DATA,
    TaintedStr,
    count_parent_steps,
    make_path_escape_error,
    short_repr,
)

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_smtpcm.mail.files import FilePattern

Variables = Mapping[str, Any]
TemplateFunction = Callable[[Variables], Any]

# In these fields, values are escaped unless `| safe` follows.
_HTML_FIELDS = ("html", "html_file")
# In these fields, a separator, a quotation mark or a folder has a meaning.
_TAINTED_FIELDS = (
    "from_address",
    "to",
    "cc",
    "bcc",
    "reply_to",
    "envelope_from",
    "attachments",
    "inline_images",
    "text_file",
    "html_file",
    "message",
    "rows",
    "report_file",
)
# In these fields, a URL and a wildcard have a meaning too; see `arguments.files`.
_FILE_FIELDS = ("attachments", "inline_images", "text_file", "html_file", "message")
# The name of a field of a header whose value is not free text, before the name of the header. It is tracked too.
_STRUCTURED_HEADER = "headers."
# These files are compiled as templates, so a value must not choose an arbitrary file.
_BODY_FILE_FIELDS = ("text_file", "html_file")
# In these fields, a template that is a single expression may return a list or a mapping, which stays one.
_ADDRESS_FIELDS = ("to", "cc", "bcc", "reply_to")
_COLLECTION_FIELDS = (
    *_ADDRESS_FIELDS,
    "attachments",
    "inline_images",
    "headers",
    "rows",
    "attach_as",
    "parameters",
    "sql_hook_params",
)
# In these fields, a DAG with `render_template_as_native_obj` also keeps numbers and octets.
_NUMBER_FIELDS = ("parameters", "sql_hook_params")
_SPECIAL_IN_HTML = re.compile("[&<>\"']")


class FieldEnvironments:
    """The variants of a task's Jinja environment for the different kinds of fields.

    Args:
        environment: the task's own, with its macros, filters and loader.
        text: the variant for text; None: made from `environment`.
        to_path: turns a URL that the author wrote into an object with `open`.
    """

    def __init__(
        self,
        environment: jinja2.Environment,
        *,
        text: jinja2.Environment | None = None,
        to_path: Callable[[str], Any] = Path,
    ) -> None:
        self.to_path = to_path
        self.is_native = is_native_environment(environment)
        self.text = make_text_environment(environment) if text is None else text
        self._html: jinja2.Environment | None = None
        self._tracking: jinja2.Environment | None = None

    @property
    def html(self) -> jinja2.Environment:
        """The variant that escapes values."""
        if self._html is None:
            # Without the DAG's cache of compiled templates, whose keys do not depend on `autoescape`.
            self._html = self.text.overlay(autoescape=True, bytecode_cache=None)
        return self._html

    @property
    def tracking(self) -> jinja2.Environment:
        """The variant that records which characters the author of the template wrote (`taint_tracking`)."""
        if self._tracking is None:
            from airflow_provider_smtpcm.arguments.taint_tracking import make_tracking_environment

            self._tracking = make_tracking_environment(self.text)
        return self._tracking

    def for_field(self, name: str) -> jinja2.Environment:
        """Return the variant for a field."""
        return self.html if name in _HTML_FIELDS else self.text

    def is_template(self, source: str) -> bool:
        """Whether rendering the text may change it."""
        return source.endswith("\n") or self._has_syntax(source)  # Jinja removes a final line break

    def _has_syntax(self, source: str) -> bool:
        """Whether the text has a delimiter of Jinja, or a line break that Jinja changes."""
        jinja = self.text
        delimiters = (jinja.variable_start_string, jinja.block_start_string, jinja.comment_start_string, "\r")
        has_line_syntax = bool(jinja.line_statement_prefix or jinja.line_comment_prefix)
        return has_line_syntax or any(delimiter in source for delimiter in delimiters)

    @property
    def _changes_plain_text(self) -> bool:
        """Whether Jinja does more to a text without syntax than to remove a final line break."""
        from jinja2.ext import Extension

        kinds: set[type[Extension]] = {type(extension) for extension in self.text.extensions.values()}
        return self.text.newline_sequence != "\n" or any(
            kind.preprocess is not Extension.preprocess or kind.filter_stream is not Extension.filter_stream
            for kind in kinds
        )

    def locate(self, name: str, text: str, *, item: bool = False) -> Any:
        """Return paths and patterns in place of the URLs and wildcards in a text; see `locate_files`.

        Args:
            name: the name of the field; only that of a file has any.
            text: as rendered; the author wrote what its mask shows, or all of it.
            item: as in `compile`.
        """
        if name not in _FILE_FIELDS:
            return text
        from airflow_provider_smtpcm.arguments.files import locate_files

        return locate_files(name, text, item=item, to_path=self.to_path)

    def compile(self, name: str, source: str, *, item: bool = False) -> TemplateFunction:
        """Compile a template of a field, or of one item of a field that is a list or a mapping.

        Args:
            name: the name of the field.
            source: the template as the author of the DAG wrote it.
            item: whether it is an item of a list or a mapping. An item is exactly one address or path, while a value
                that is the entire field may contain several.

        Raises:
            jinja2.TemplateError: the source is not a valid template.
        """
        if not self._has_syntax(source) and not self._changes_plain_text:
            # Compiling it would take longer than sending the mail.
            text = source if self.text.keep_trailing_newline else source.removesuffix("\n")
            value = self.locate(name, text, item=item)
            return lambda _: value
        expression = _find_single_expression(self.text, source)
        is_bare_value = expression is not None and not _has_literal(expression)
        is_object = expression is not None and (self.is_native or name in _COLLECTION_FIELDS)
        is_tracked = _is_tracked(name)
        if is_tracked and not is_bare_value:
            if is_object:
                render = self._compile_object(self.tracking, name, source)
                return _compile_tainted_object(render, name, self, item=item)
            return _compile_tainted_text(self.tracking.from_string(source), name, self, item=item)
        # The path of an HTML file is not HTML, although its content is.
        environment = self.text if is_tracked else self.for_field(name)
        if is_object:
            render = self._compile_object(environment, name, source)
        else:
            render = compile_text(environment.from_string(source))
        if is_tracked and (item or name in _BODY_FILE_FIELDS):
            return lambda variables: mark_as_data(name, render(variables), item=item)
        return render

    def compile_key(self, key: str) -> TemplateFunction:
        """Compile a template of a key of a mapping: the name of a file or a header, so always text."""
        return compile_text(self.text.from_string(key))

    def _compile_object(self, environment: jinja2.Environment, name: str, source: str) -> TemplateFunction:
        kept: tuple[type, ...] = ()
        if name in _COLLECTION_FIELDS:
            # Without native rendering, only what is no text in any DAG: a path or a number is as good as its text.
            kept = (object,) if self.is_native else (Sequence, AbstractSet, Mapping)
        numbers = self.is_native and name in _NUMBER_FIELDS
        none = self.is_native or name in _ADDRESS_FIELDS
        return _compile_object(environment, source, kept=kept, numbers=numbers, none=none)


def _is_tracked(name: str) -> bool:
    """Whether data in a field is distinguished from what the author of the DAG wrote."""
    return name in _TAINTED_FIELDS or name.startswith(_STRUCTURED_HEADER)


def describe_item(name: str, key: object) -> tuple[str, bool]:
    """Return the name of the field by which an item of a mapping is compiled, and whether it is an item of a list.

    Each header is a field of its own: one value that is all of it may contain several addresses, as in `to`.

    Args:
        name: the name of the field that is a mapping.
        key: the key of the item; None: it depends on a row, so that a header may be a structured one.
    """
    if name != "headers":
        return name, True
    from airflow_provider_smtpcm.mail.structured_headers import is_structured

    return (f"{_STRUCTURED_HEADER}{key}" if key is None or is_structured(key) else name), False


def render_field(
    name: str,
    value: Any,
    environments: FieldEnvironments,
    variables: Variables,
    render_other: Callable[[Any], Any],
    *,
    item: bool = False,
) -> Any:
    """Render the templates of a field. The output of another task is resolved to its value, which is data.

    Args:
        name: the name of the field.
        value: as the author of the DAG wrote it: text, another task's output, or a collection of them.
        environments: the environments of the task.
        variables: the variables of the templates, including the globals of the environment.
        render_other: Airflow's rendering, for any other value.
        item: as in `FieldEnvironments.compile`.

    Raises:
        MessageError: rendering has added a `..` to a path object.
        jinja2.TemplateError: a template is invalid or cannot be rendered.
    """
    if isinstance(value, str):
        if environments.is_template(value):
            return environments.compile(name, value, item=item)(variables)
        return environments.locate(name, value, item=item)
    # The output of a task, or a parameter of the DAG. Their common base class is not public, but this method is.
    if hasattr(type(value), "iter_references"):
        return mark_as_data(name, value.resolve(variables), item=item)
    if isinstance(value, tuple | list | set | frozenset):  # first, since `isinstance(value, Mapping)` is slow
        parts = [render_field(name, part, environments, variables, render_other, item=True) for part in value]
        return type(value)(parts) if type(value) in (tuple, set) else parts
    if isinstance(value, Mapping):
        keys = [
            environments.compile_key(key)(variables) if isinstance(key, str) and environments.is_template(key) else key
            for key in value
        ]
        fields = [describe_item(name, key) for key in keys]
        parts = [
            render_field(field, part, environments, variables, render_other, item=is_item)
            for (field, is_item), part in zip(fields, value.values(), strict=True)
        ]
        return make_mapping(name, keys, parts)
    from airflow_provider_smtpcm.arguments.files import locate_object
    from airflow_provider_smtpcm.mail.files import FilePattern, RemotePath, is_pathlib_path

    if isinstance(value, FilePattern):
        pattern = render_field(name, get_pattern(value), environments, variables, render_other, item=True)
        rendered = make_pattern(pattern, required=value.required)
    elif is_dataclass(value) and (names := getattr(type(value), "template_fields", ())):
        # A copy: Airflow would render the object in place, which several tasks may share.
        changes = {
            field: render_field(field, getattr(value, field), environments, variables, render_other) for field in names
        }
        rendered = replace(value, **changes)  # type: ignore[type-var]  # not a class
    elif is_pathlib_path(value):
        rendered = value  # Airflow 3.1 would call its `resolve`
    else:
        rendered = locate_object(name, render_other(value), environments.to_path)
    if (
        name in _TAINTED_FIELDS
        and isinstance(value, os.PathLike | RemotePath)
        and count_parent_steps(rendered) > count_parent_steps(value)
    ):
        raise make_path_escape_error(str(rendered), name)
    return rendered


def make_mapping(name: str, keys: Sequence[Any], values: Sequence[Any]) -> dict[Any, Any]:
    """Make a mapping of rendered keys and values.

    Raises:
        MessageError: two keys are the same, so that an item would be lost.
    """
    mapping = dict(zip(keys, values, strict=True))
    if len(mapping) < len(keys):
        key = next(key for key in mapping if keys.count(key) > 1)
        raise MessageError(
            f"{name}: two keys are rendered to {short_repr(key)}.", remedy="Write keys that differ in every case."
        )
    return mapping


def get_pattern(pattern: FilePattern) -> Any:
    """Return the pattern that the author wrote, for rendering: as text if it is a local path."""
    from airflow_provider_smtpcm.mail.files import is_pathlib_path

    return str(pattern.pattern) if is_pathlib_path(pattern.pattern) else pattern.pattern


def make_pattern(pattern: Any, *, required: bool) -> Any:
    """Make a `FilePattern` of a rendered one, which may be a `FilePattern` already."""
    from airflow_provider_smtpcm.mail.files import FilePattern

    return FilePattern(getattr(pattern, "pattern", pattern), required=required)


def mark_as_data(name: str, value: Any, *, item: bool = False) -> Any:
    """Mark a value from another task, or from a template that is a single expression, as data.

    Args:
        name: the name of the field.
        value: marked if it is text for exactly one address or path; otherwise returned unchanged.
        item: as in `FieldEnvironments.compile`.
    """
    if not _is_tracked(name) or not isinstance(value, str) or not (item or name in _BODY_FILE_FIELDS):
        return value
    return value if isinstance(value, TaintedStr) else TaintedStr(value)


def is_path_object(value: object) -> bool:
    """Whether a value is a path, as an object and not as text."""
    from airflow_provider_smtpcm.mail.files import RemotePath

    return isinstance(value, os.PathLike | RemotePath) and not isinstance(value, str)


def is_native_environment(environment: jinja2.Environment) -> bool:
    """Whether its templates return Python objects, as with `render_template_as_native_obj` of a DAG."""
    from jinja2.nativetypes import NativeEnvironment

    return isinstance(environment, NativeEnvironment)


def make_text_environment(environment: jinja2.Environment) -> jinja2.Environment:
    """Return a variant of the environment that renders text; a native one would turn `1e3` into a number."""
    if not is_native_environment(environment):
        return environment
    from jinja2.sandbox import SandboxedEnvironment

    text = SandboxedEnvironment()
    vars(text).update(vars(environment))  # loader, globals, filters, and what the DAG has set
    return text.overlay()  # binds the extensions to the new environment


def compile_text(template: jinja2.Template) -> TemplateFunction:
    """Return a faster `template.render`, which does not copy all variables each time."""
    # A compiled template only joins the escaped values, so a plain `str` suffices. Making a `Markup` of each took
    # longer than everything else.
    template.root_render_func.__globals__["escape"] = _escape_html
    stream, join = _make_stream_renderer(template), "".join
    return lambda variables: join(stream(variables))


def _make_stream_renderer(template: jinja2.Template) -> Callable[[Variables], Iterator[str]]:
    environment, name, blocks = template.environment, template.name, template.blocks
    run, context = template.root_render_func, environment.context_class
    return lambda variables: run(context(environment, variables, name, blocks))  # type: ignore[arg-type]


def _compile_tainted_text(
    template: jinja2.Template, name: str, environments: FieldEnvironments, *, item: bool
) -> TemplateFunction:
    """Compile a tracking template to a `TaintedStr`, or to plain text if the author wrote all of it."""
    stream = _make_stream_renderer(template)
    return lambda variables: _to_tainted(list(stream(variables)), name, environments, item=item)


def _compile_tainted_object(
    render: TemplateFunction, name: str, environments: FieldEnvironments, *, item: bool
) -> TemplateFunction:
    """Compile a tracking template that may return a collection, in which each item is one address or path."""

    def to_tainted(value: Any, *, item: bool) -> Any:
        if isinstance(value, Mapping):
            return {key: to_tainted(part, item=True) for key, part in value.items()}
        if isinstance(value, tuple | list):
            return [to_tainted(part, item=True) for part in value]
        return _to_tainted([value], name, environments, item=item) if isinstance(value, str) else value

    return lambda variables: to_tainted(render(variables), item=item)


def _to_tainted(chunks: list[str], name: str, environments: FieldEnvironments, *, item: bool) -> Any:
    """Join the chunks of a rendered template, and locate the files that the author wrote (`FieldEnvironments.locate`).

    Returns:
        Plain text if the author wrote all of it. The value itself (see `mark_as_data`) if the text is a single value
        with only blanks around it. Otherwise a `TaintedStr`.
    """
    from airflow_provider_smtpcm.arguments.taint_tracking import TrackedText, get_mask, join_tracked

    text = join_tracked(chunks)
    if type(text) is TrackedText and text.mask == text:
        return environments.locate(name, "".join(chunks), item=item)
    if type(text) is not TrackedText or not text.mask.strip(DATA + BLANKS):
        values = [chunk for chunk in chunks if type(chunk) is not TrackedText and chunk]
        if len(values) == 1:
            return mark_as_data(name, values[0], item=item)
    return environments.locate(name, TaintedStr("".join(chunks), get_mask(text)), item=item)


def _compile_object(
    environment: jinja2.Environment, source: str, *, kept: tuple[type, ...], numbers: bool, none: bool
) -> TemplateFunction:
    """Compile a template that is a single expression to a function that returns the value of the expression.

    For a DAG with `render_template_as_native_obj`, and for fields that take a list in any DAG. Jinja's native
    environment would also turn text in data into a list or a number if it looks like one; here, text stays text.

    Args:
        environment: the environment of the task.
        source: the template.
        kept: the types of objects that are returned as they are: lists, mappings, paths, a data frame. Others become
            text.
        numbers: whether numbers and octets may be among `kept`.
        none: whether None is returned as it is.
    """
    from jinja2 import Undefined, nodes

    tree = environment.parse(source)
    expression = _find_single_expression(environment, source)
    assert expression is not None
    tree.body = [nodes.Assign(nodes.Name("value", "store"), expression, lineno=1)]
    tree.set_environment(environment)
    template = environment.from_string(tree)
    run, finalize = template.root_render_func, environment.finalize
    to_text = _escape_html if environment.autoescape else str
    plain = (str, Undefined) if numbers else (str, bytes, int, float, Undefined)

    def render(variables: Variables) -> Any:
        scope = environment.context_class(environment, variables, template.name, template.blocks)  # type: ignore[arg-type]
        deque(run(scope), maxlen=0)
        value = scope.vars["value"]
        if type(value) is str:  # as most values are
            return to_text(value if finalize is None else finalize(value))
        if value is None and finalize is None and none:
            return None
        if kept and value is not None and not isinstance(value, plain) and isinstance(value, kept):
            return value
        return to_text(value if finalize is None else finalize(value))

    return render


def _find_single_expression(environment: jinja2.Environment, source: str) -> jinja2.nodes.Expr | None:
    """Return the expression of a template that consists of one expression and whitespace; None for any other."""
    from jinja2 import nodes

    from airflow_provider_smtpcm.arguments.taint_tracking import find_template_text

    body = environment.parse(source).body
    if len(body) != 1 or not isinstance(body[0], nodes.Output):
        return None
    parts = [node for node in body[0].nodes if (text := find_template_text(node)) is None or text.strip()]
    return parts[0] if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData) else None


def _has_literal(expression: jinja2.nodes.Expr) -> bool:
    """Whether an expression contains a string literal, as in `"/srv/" ~ row.name`."""
    from jinja2 import nodes

    literals = [expression] if isinstance(expression, nodes.Const) else expression.find_all(nodes.Const)
    return any(isinstance(literal.value, str) and literal.value.strip() for literal in literals)


def _escape_html(value: Any) -> str:
    """Escape as `markupsafe.escape` does, but return a plain `str` if nothing needs escaping."""
    kind = type(value)
    if kind is int or (kind is str and _SPECIAL_IN_HTML.search(value) is None):
        return str(value)
    from markupsafe import escape

    return escape(value)
