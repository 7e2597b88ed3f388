"""The fields of a mail as Jinja templates: one rule for the operators, the decorator and the notifier.

What the author of the DAG wrote is the template. What a template fills in is data: it is escaped in HTML, and in
addresses and paths it is marked (`TaintedStr`), so that it cannot act as a separator or as a folder.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.mail.attachment import RemotePath
from airflow_provider_smtpcm.mail.tainted import TaintedStr, leads_out, steps_up

if TYPE_CHECKING:
    import jinja2
    from jinja2.ext import Extension
    from jinja2.lexer import Token, TokenStream

Variables = Mapping[str, Any]
Render = Callable[[Variables], Any]

#: Fields that are HTML: what is filled in is escaped, unless `| safe` follows.
HTML = ("html", "html_file")
#: Fields in which a separator, a quotation mark or a folder means something.
TAINTED = (
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
#: Files that are compiled as templates: a value alone may not choose any of them.
TEMPLATE_FILES = ("text_file", "html_file")
# Fields that may be a list or a mapping where the DAG has `render_template_as_native_obj`.
_COLLECTIONS = ("to", "cc", "bcc", "reply_to", "attachments", "inline_images", "headers", "rows")
_MARK = "_written_by_the_author"
_SPECIAL_IN_HTML = re.compile("[&<>\"']")


class FieldEnvironments:
    """A task's Jinja environment, one variant of it for each kind of field.

    Args:
        environment: the task's own, with its macros, filters and loader.
        text: what text is rendered with; None: the same environment, made one for text.
    """

    def __init__(self, environment: jinja2.Environment, *, text: jinja2.Environment | None = None) -> None:
        self.gives_objects = gives_objects(environment)
        self.text = text_environment(environment) if text is None else text
        self._html: jinja2.Environment | None = None
        self._marking: jinja2.Environment | None = None

    @property
    def html(self) -> jinja2.Environment:
        """Escapes what is filled in."""
        if self._html is None:
            self._html = self.text.overlay(autoescape=True)
        return self._html

    @property
    def marking(self) -> jinja2.Environment:
        """Marks what the author of a template wrote in what the template gives."""
        if self._marking is None:
            self._marking = self.text.overlay(autoescape=False, extensions=[_marking_extension()])
            self._marking.filters = {**self._marking.filters, _MARK: _as_written()}
        return self._marking

    def of_field(self, name: str) -> jinja2.Environment:
        """The variant for a field."""
        return self.html if name in HTML else self.text

    def renders(self, source: str) -> bool:
        """Whether a template may give another text than its source."""
        own = self.text
        signs = (own.variable_start_string, own.block_start_string, own.comment_start_string, "\r")
        lines = own.line_statement_prefix or own.line_comment_prefix
        return bool(lines) or source.endswith("\n") or any(sign in source for sign in signs)

    def compile(self, name: str, source: str, *, item: bool = False) -> Render:
        """A template for a field, or for one item of a field that is a list or a mapping.

        Args:
            name: the field.
            source: as the author of the DAG wrote it.
            item: whether it is one of several items. An item is one address or one path; a value that is a whole
                field alone may hold several.

        Raises:
            jinja2.TemplateError: the source is no template.
        """
        expression = _only_expression(self.text, source)
        if name in TAINTED and expression is None:
            return _marked(self.marking.from_string(source), name, item=item)
        environment = self.of_field(name)
        if expression is not None and self.gives_objects:
            render = _object(environment, source, collection=name in _COLLECTIONS)
        else:
            render = joined(environment.from_string(source))
        if name in TAINTED and (item or name in TEMPLATE_FILES):
            return lambda variables: as_data(name, render(variables), item=item)
        return render


def render_field(
    name: str,
    value: Any,
    environments: FieldEnvironments,
    variables: Variables,
    otherwise: Callable[[Any], Any],
    *,
    item: bool = False,
) -> Any:
    """A field with its templates rendered; what another task computed takes its place as data.

    Args:
        name: the field.
        value: as the author of the DAG wrote it: text, another task's output, or a collection of these.
        environments: of the task.
        variables: what templates may name; the environment's globals among them.
        otherwise: renders anything else, as Airflow does.
        item: as `FieldEnvironments.compile` has it.
    """
    if isinstance(value, str):
        return environments.compile(name, value, item=item)(variables) if environments.renders(value) else value
    # An output of a task, a parameter of the DAG: their common class is not public, and what it demands of each is.
    if hasattr(type(value), "iter_references"):
        return as_data(name, value.resolve(variables), item=item)
    if isinstance(value, Mapping):
        return {
            key: render_field(name, part, environments, variables, otherwise, item=True) for key, part in value.items()
        }
    if type(value) in (tuple, list, set):
        return type(value)(render_field(name, part, environments, variables, otherwise, item=True) for part in value)
    rendered = otherwise(value)
    if name in TAINTED and isinstance(value, os.PathLike | RemotePath) and steps_up(rendered) > steps_up(value):
        raise leads_out(str(rendered), name)
    return rendered


def as_data(name: str, value: Any, *, item: bool = False) -> Any:
    """A value as a field takes it that no template gave: from another task, or from a single expression.

    Args:
        name: the field.
        value: text is marked where it may be one item only; all else stays as it is.
        item: as `FieldEnvironments.compile` has it.
    """
    if name not in TAINTED or not isinstance(value, str) or not (item or name in TEMPLATE_FILES):
        return value
    return value if isinstance(value, TaintedStr) else TaintedStr(value)


def gives_objects(environment: jinja2.Environment) -> bool:
    """Whether its templates give Python objects, as a DAG asks for by `render_template_as_native_obj`."""
    from jinja2.nativetypes import NativeEnvironment

    return isinstance(environment, NativeEnvironment)


def text_environment(environment: jinja2.Environment) -> jinja2.Environment:
    """The same environment, whose templates give text; one for Python objects would turn `1e3` into a number."""
    if not gives_objects(environment):
        return environment
    from jinja2.sandbox import SandboxedEnvironment

    text = SandboxedEnvironment()
    vars(text).update(vars(environment))  # its loader, globals, filters, and whatever the DAG set
    return text.overlay()  # which binds the extensions to it


def joined(template: jinja2.Template) -> Render:
    """`template.render`, without the copy that it makes of all variables each time."""
    pieces, join = _pieces(template), "".join
    return lambda variables: join(pieces(variables))


def _pieces(template: jinja2.Template) -> Callable[[Variables], Iterator[str]]:
    environment, name, blocks = template.environment, template.name, template.blocks
    write, context = template.root_render_func, environment.context_class
    # A compiled template only joins what it escapes, and to mark that as safe took longer than all the rest.
    write.__globals__["escape"] = escaped
    return lambda variables: write(context(environment, variables, name, blocks))  # type: ignore[arg-type]


def _marked(template: jinja2.Template, name: str, *, item: bool) -> Render:
    """The text of a template, with what was filled in marked; plain text where the author wrote all of it."""
    pieces = _pieces(template)

    def render(variables: Variables) -> Any:
        parts = [(piece, type(piece) is _Written) for piece in pieces(variables)]
        text = TaintedStr.of_parts(parts)
        if all(written for _, written in parts):
            return str.__str__(text)
        values = [piece for piece, written in parts if not written and piece]
        return as_data(name, values[0], item=item) if len(values) == 1 and text.is_data_alone else text

    return render


def _object(environment: jinja2.Environment, source: str, *, collection: bool) -> Render:
    """The value of a template that is one expression, as text, unless it is None.

    A DAG with `render_template_as_native_obj` asks for objects. What Jinja does for it goes further, and takes text
    that looks like a list or a number for one, wherever it came from; text in data stays text.

    Args:
        collection: whether the field takes objects too: lists, mappings, paths, a data frame.
    """
    from jinja2 import Undefined, nodes

    tree = environment.parse(source)
    expression = _only_expression(environment, source)
    assert expression is not None
    tree.body = [nodes.Assign(nodes.Name("value", "store"), expression, lineno=1)]
    tree.set_environment(environment)
    template = environment.from_string(tree)
    write, finalize = template.root_render_func, environment.finalize
    plain = (str, int, float, Undefined)

    def render(variables: Variables) -> Any:
        scope = environment.context_class(environment, variables, template.name, template.blocks)  # type: ignore[arg-type]
        deque(write(scope), maxlen=0)
        value = scope.vars["value"]
        if value is None and finalize is None:
            return None
        if collection and value is not None and not isinstance(value, plain):
            return value
        return str(value if finalize is None else finalize(value))

    return render


def _only_expression(environment: jinja2.Environment, source: str) -> jinja2.nodes.Expr | None:
    """The expression of a template that consists of nothing else but blanks: it gives a value alone."""
    from jinja2 import nodes

    body = environment.parse(source).body
    if len(body) != 1 or not isinstance(body[0], nodes.Output):
        return None
    parts = [node for node in body[0].nodes if not isinstance(node, nodes.TemplateData) or node.data.strip()]
    return parts[0] if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData) else None


def escaped(value: Any) -> str:
    """What `markupsafe.escape` makes of a value, but not marked as safe where nothing in it had to be escaped."""
    kind = type(value)
    if kind is int or (kind is str and _SPECIAL_IN_HTML.search(value) is None):
        return str(value)
    from markupsafe import escape

    return escape(value)


@cache
def _as_written() -> Callable[[jinja2.runtime.Context, str], str]:
    """The filter behind `_MARK`."""
    from jinja2 import pass_context

    # It asks for the context only so that Jinja does not evaluate it when it compiles, and lose the mark.
    @pass_context
    def as_written(_: jinja2.runtime.Context, text: str) -> str:
        return _Written(text)

    return as_written


class _Written(str):
    """Text that the author of a template wrote."""

    __slots__ = ()

    def __str__(self) -> str:
        """Itself, since a compiled template passes all that it writes through `str`."""
        return self


@cache
def _marking_extension() -> type[Extension]:
    from jinja2.ext import Extension
    from jinja2.lexer import Token

    class MarkingExtension(Extension):
        """Writes the text of a template as `{{ "text" | mark }}`, so that it comes out marked."""

        def filter_stream(self, stream: TokenStream) -> Iterable[Token]:
            for token in stream:
                if token.type != "data":
                    yield token
                    continue
                line = token.lineno
                yield Token(line, "variable_begin", "")
                yield Token(line, "string", token.value)
                yield Token(line, "pipe", "|")
                yield Token(line, "name", _MARK)
                yield Token(line, "variable_end", "")

    return MarkingExtension
