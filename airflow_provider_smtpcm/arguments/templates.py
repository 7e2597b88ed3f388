"""Jinja templates for the fields of a mail and for body files, the same for operators, decorator and notifier.

What the author of the DAG wrote is the template. The values that it fills in are data: they are escaped in HTML, and
marked in addresses and paths (`TaintedStr`), so that they cannot act as a separator or as a folder.
"""

from __future__ import annotations

import io
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.arguments.taint_tracking import (
    TrackedText,
    get_mask,
    join_tracked,
    make_tracking_environment,
)
from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.attachment import RemotePath
from airflow_provider_smtpcm.mail.tainted import (
    BLANKS,
    DATA,
    MIXED,
    TaintedStr,
    check_path,
    count_parent_steps,
    path_escape_error,
)
from airflow_provider_smtpcm.mail.worker_files import (
    FILE_CHANGED_REMEDY,
    FileChangedError,
    UnchangedFile,
    file_remedy,
    quote_path,
)

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context


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
    "attachments",
    "inline_images",
    "text_file",
    "html_file",
    "rows",
    "report_file",
)
# These files are compiled as templates, and so a value alone may not choose just any file.
_BODY_FILE_FIELDS = ("text_file", "html_file")
# These fields may be a list or a mapping if the DAG has `render_template_as_native_obj`.
_COLLECTION_FIELDS = ("to", "cc", "bcc", "reply_to", "attachments", "inline_images", "headers", "rows")
_SPECIAL_IN_HTML = re.compile("[&<>\"']")


class FieldEnvironments:
    """The Jinja environment of a task, in one variant for each kind of field.

    Args:
        environment: the task's own, with its macros, filters and loader.
        text: the variant for text; None: made from `environment`.
    """

    def __init__(self, environment: jinja2.Environment, *, text: jinja2.Environment | None = None) -> None:
        self.is_native = is_native_environment(environment)
        self.text = make_text_environment(environment) if text is None else text
        self._html: jinja2.Environment | None = None
        self._tracking: jinja2.Environment | None = None

    @property
    def html(self) -> jinja2.Environment:
        """The variant that escapes values."""
        if self._html is None:
            # Without the cache of compiled templates of the DAG, whose keys do not depend on `autoescape`.
            self._html = self.text.overlay(autoescape=True, bytecode_cache=None)
        return self._html

    @property
    def tracking(self) -> jinja2.Environment:
        """The variant that records which characters the author of the template wrote."""
        if self._tracking is None:
            self._tracking = make_tracking_environment(self.text)
        return self._tracking

    def for_field(self, name: str) -> jinja2.Environment:
        """Return the variant for a field."""
        return self.html if name in _HTML_FIELDS else self.text

    def is_template(self, source: str) -> bool:
        """Whether rendering may change a text."""
        jinja = self.text
        delimiters = (jinja.variable_start_string, jinja.block_start_string, jinja.comment_start_string, "\r")
        has_line_syntax = bool(jinja.line_statement_prefix or jinja.line_comment_prefix)
        # Jinja also removes a final line break.
        return has_line_syntax or source.endswith("\n") or any(delimiter in source for delimiter in delimiters)

    def compile(self, name: str, source: str, *, item: bool = False) -> TemplateFunction:
        """Compile a template for a field, or for one item of a field that is a list or a mapping.

        Args:
            name: of the field.
            source: as the author of the DAG wrote it.
            item: whether it is one of several items. An item is exactly one address or path, while a value that is the
                whole field may contain several.

        Raises:
            jinja2.TemplateError: the source is not a valid template.
        """
        expression = _find_only_expression(self.text, source)
        is_value_alone = expression is not None and not _has_literal(expression)
        if name in _TAINTED_FIELDS and not is_value_alone:
            if expression is not None and self.is_native:
                return _compile_tainted_object(
                    _compile_object(self.tracking, source, collection=name in _COLLECTION_FIELDS), name, item=item
                )
            return _compile_tainted_text(self.tracking.from_string(source), name, item=item)
        # The path of an HTML file is not HTML, although its content is.
        environment = self.text if name in _TAINTED_FIELDS else self.for_field(name)
        if expression is not None and self.is_native:
            render = _compile_object(environment, source, collection=name in _COLLECTION_FIELDS)
        else:
            render = _compile_text(environment.from_string(source))
        if name in _TAINTED_FIELDS and (item or name in _BODY_FILE_FIELDS):
            return lambda variables: mark_as_data(name, render(variables), item=item)
        return render


def render_field(
    name: str,
    value: Any,
    environments: FieldEnvironments,
    variables: Variables,
    render_other: Callable[[Any], Any],
    *,
    item: bool = False,
) -> Any:
    """Render the templates of a field. The output of another task is replaced by its value, as data.

    Args:
        name: of the field.
        value: as the author of the DAG wrote it: text, another task's output, or a collection of these.
        environments: of the task.
        variables: for the templates, including the globals of the environment.
        render_other: renders any other value, as Airflow does.
        item: as in `FieldEnvironments.compile`.
    """
    if isinstance(value, str):
        return environments.compile(name, value, item=item)(variables) if environments.is_template(value) else value
    # An output of a task, or a parameter of the DAG: their common base class is not public, but this method is.
    if hasattr(type(value), "iter_references"):
        return mark_as_data(name, value.resolve(variables), item=item)
    if isinstance(value, Mapping):
        return {
            key: render_field(name, part, environments, variables, render_other, item=True)
            for key, part in value.items()
        }
    if isinstance(value, tuple | list | set | frozenset):
        parts = [render_field(name, part, environments, variables, render_other, item=True) for part in value]
        return type(value)(parts) if type(value) in (tuple, set) else parts
    rendered = render_other(value)
    if (
        name in _TAINTED_FIELDS
        and isinstance(value, os.PathLike | RemotePath)
        and count_parent_steps(rendered) > count_parent_steps(value)
    ):
        raise path_escape_error(str(rendered), name)
    return rendered


def mark_as_data(name: str, value: Any, *, item: bool = False) -> Any:
    """Mark a value from another task, or from a template that is one expression, as data.

    Args:
        name: of the field.
        value: marked if it is text, and the field or the item is exactly one address or path; else returned unchanged.
        item: as in `FieldEnvironments.compile`.
    """
    if name not in _TAINTED_FIELDS or not isinstance(value, str) or not (item or name in _BODY_FILE_FIELDS):
        return value
    return value if isinstance(value, TaintedStr) else TaintedStr(value)


def render_body_file(field: str, file: str, encoding: str, environment: jinja2.Environment, context: Context) -> str:
    """Render a body file.

    Args:
        field, file, encoding: as in `compile_body_file`.
        environment: the task's own, with its macros, filters and template folders.
        context: variables for the template.

    Raises:
        MessageError: as in `compile_body_file`, or the template cannot be rendered.
    """
    from jinja2 import TemplateError

    render = compile_body_file(field, file, encoding, FieldEnvironments(environment))
    try:
        return str(render({**environment.globals, **context}))
    except TemplateError as error:
        raise _template_error(field, file, error) from None


def compile_body_file(field: str, file: str, encoding: str, environments: FieldEnvironments) -> TemplateFunction:
    """Compile a body file to a function that renders its text.

    The file is a template if the author of the DAG chose it, or if a value chose it (`TaintedStr`) from a folder that
    the author wrote or from a template folder of the environment. A value may also name any other file, whose text is
    sent as it is.

    Args:
        field: `text_file` or `html_file`; values are escaped in HTML.
        file: a path, or a name in one of the template folders of the environment.
        encoding: of the file.
        environments: of the task.

    Raises:
        MessageError: the file is missing, cannot be read in that encoding, or is not a valid template; or a value chose
            a file with template syntax outside of these folders.
    """
    from jinja2 import TemplateError

    folders = [Path(folder) for folder in getattr(environments.text.loader, "searchpath", ())]
    path, is_template = _find_body_file(field, file, folders)
    try:
        with io.TextIOWrapper(io.BufferedReader(UnchangedFile(path)), encoding=encoding) as text:
            source = text.read()
    except FileChangedError as error:
        raise MessageError(
            f"{field}: {str(path)!r} cannot be read: {error}.", remedy=FILE_CHANGED_REMEDY, retryable=True
        ) from None
    except (OSError, UnicodeError, LookupError) as error:
        raise MessageError(
            f"{field}: {str(path)!r} cannot be read as {encoding} ({error}).",
            remedy="Make it readable for the worker, or set 'encoding' to the encoding of the file.",
        ) from None
    if is_template:
        try:
            return _compile_text(environments.for_field(field).from_string(source))
        except TemplateError as error:
            raise _template_error(field, str(path), error) from None
    if environments.is_template(source.rstrip("\r\n").replace("\r", "")):
        raise MessageError(
            f"{field}: {str(path)!r} contains a template, and a value chose that file.",
            remedy="A value may choose only among the templates of a folder: write the folder in the DAG "
            "('/srv/templates/{{ row.language }}.html'), or add it to the DAG's template_searchpath.",
        )
    return lambda _: source


def _template_error(field: str, path: str, error: jinja2.TemplateError) -> MessageError:
    """Make an error from Jinja's, with the line."""
    line = getattr(error, "lineno", None)
    return MessageError(
        f"{field}: {str(path)!r} cannot be rendered ({error.message}{f', line {line}' if line else ''}).",
        remedy="Correct the template; text that Jinja must leave alone goes between {% raw %} and {% endraw %}.",
    )


def _find_body_file(field: str, file: str, folders: list[Path]) -> tuple[Path, bool]:
    """Return the path of a body file, and whether it may be run as a template."""
    name = check_path(file, field)
    is_chosen_by_author = not isinstance(file, TaintedStr) or not file.mask.lstrip().startswith((DATA, MIXED))
    for folder in (*folders, Path()):
        if (folder / name).is_file():
            return folder / name, is_chosen_by_author or _is_inside(folders, folder / name)
    places = ", ".join(str(folder) for folder in folders) or "no template_searchpath"
    raise MessageError(
        f"{field}: there is no file {quote_path(name)} (looked in {places}, and in the worker's working directory).",
        remedy=file_remedy(
            name,
            default="Give a path that exists on the worker, or add its folder to the DAG's template_searchpath.",
        ),
    )


def _is_inside(folders: list[Path], path: Path) -> bool:
    """Whether a path is inside of these folders, without a `..`."""
    return not count_parent_steps(path) and any(path.is_relative_to(folder) for folder in folders)


def is_native_environment(environment: jinja2.Environment) -> bool:
    """Whether its templates return Python objects, as with `render_template_as_native_obj` of a DAG."""
    from jinja2.nativetypes import NativeEnvironment

    return isinstance(environment, NativeEnvironment)


def make_text_environment(environment: jinja2.Environment) -> jinja2.Environment:
    """Return the environment in a variant for text; one for Python objects would turn `1e3` into a number."""
    if not is_native_environment(environment):
        return environment
    from jinja2.sandbox import SandboxedEnvironment

    text = SandboxedEnvironment()
    vars(text).update(vars(environment))  # its loader, globals, filters, and all that the DAG set
    return text.overlay()  # binds the extensions to it


def _compile_text(template: jinja2.Template) -> TemplateFunction:
    """Return `template.render` without the copy of all variables that it makes each time."""
    # A compiled template only joins what it escapes. To mark that as safe took longer than all the rest.
    template.root_render_func.__globals__["escape"] = _escape_html
    pieces, join = _render_pieces(template), "".join
    return lambda variables: join(pieces(variables))


def _render_pieces(template: jinja2.Template) -> Callable[[Variables], Iterator[str]]:
    environment, name, blocks = template.environment, template.name, template.blocks
    run, context = template.root_render_func, environment.context_class
    return lambda variables: run(context(environment, variables, name, blocks))  # type: ignore[arg-type]


def _compile_tainted_text(template: jinja2.Template, name: str, *, item: bool) -> TemplateFunction:
    """Compile a tracking template to a `TaintedStr`, or to plain text if the author wrote all of it."""
    pieces = _render_pieces(template)
    return lambda variables: _to_tainted(list(pieces(variables)), name, item=item)


def _compile_tainted_object(render: TemplateFunction, name: str, *, item: bool) -> TemplateFunction:
    """Compile a tracking template that may return a collection, in which each item is one address or path."""

    def to_tainted(value: Any, *, item: bool) -> Any:
        if isinstance(value, Mapping):
            return {key: to_tainted(part, item=True) for key, part in value.items()}
        if isinstance(value, tuple | list):
            return [to_tainted(part, item=True) for part in value]
        return _to_tainted([value], name, item=item) if isinstance(value, str) else value

    return lambda variables: to_tainted(render(variables), item=item)


def _to_tainted(pieces: list[str], name: str, *, item: bool) -> Any:
    text = join_tracked(pieces)
    if type(text) is TrackedText and text.mask == text:
        return "".join(pieces)
    if type(text) is not TrackedText or not text.mask.strip(DATA + BLANKS):
        values = [piece for piece in pieces if type(piece) is not TrackedText and piece]
        if len(values) == 1:
            return mark_as_data(name, values[0], item=item)
    return TaintedStr("".join(pieces), get_mask(text))


def _compile_object(environment: jinja2.Environment, source: str, *, collection: bool) -> TemplateFunction:
    """Compile a template that is one expression to a function that returns its value: text, or None.

    A DAG with `render_template_as_native_obj` wants objects. Jinja's own way also turns text in data into a list or a
    number if it looks like one; here, such text stays text.

    Args:
        environment: of the task.
        source: one expression.
        collection: whether the field accepts objects too: lists, mappings, paths, a data frame.
    """
    from jinja2 import Undefined, nodes

    tree = environment.parse(source)
    expression = _find_only_expression(environment, source)
    assert expression is not None
    tree.body = [nodes.Assign(nodes.Name("value", "store"), expression, lineno=1)]
    tree.set_environment(environment)
    template = environment.from_string(tree)
    run, finalize = template.root_render_func, environment.finalize
    to_text = _escape_html if environment.autoescape else str
    plain = (str, int, float, Undefined)

    def render(variables: Variables) -> Any:
        scope = environment.context_class(environment, variables, template.name, template.blocks)  # type: ignore[arg-type]
        deque(run(scope), maxlen=0)
        value = scope.vars["value"]
        if value is None and finalize is None:
            return None
        if collection and value is not None and not isinstance(value, plain):
            return value
        return to_text(value if finalize is None else finalize(value))

    return render


def _find_only_expression(environment: jinja2.Environment, source: str) -> jinja2.nodes.Expr | None:
    """Return the expression of a template that has nothing else but blanks, or None."""
    from jinja2 import nodes

    body = environment.parse(source).body
    if len(body) != 1 or not isinstance(body[0], nodes.Output):
        return None
    parts = [node for node in body[0].nodes if not isinstance(node, nodes.TemplateData) or node.data.strip()]
    return parts[0] if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData) else None


def _has_literal(expression: jinja2.nodes.Expr) -> bool:
    """Whether the author wrote text in an expression, such as `"/srv/" ~ row.name`."""
    from jinja2 import nodes

    literals = [expression] if isinstance(expression, nodes.Const) else expression.find_all(nodes.Const)
    return any(isinstance(literal.value, str) and literal.value.strip() for literal in literals)


def _escape_html(value: Any) -> str:
    """Escape as `markupsafe.escape` does, but return plain text if nothing needs escaping."""
    kind = type(value)
    if kind is int or (kind is str and _SPECIAL_IN_HTML.search(value) is None):
        return str(value)
    from markupsafe import escape

    return escape(value)
