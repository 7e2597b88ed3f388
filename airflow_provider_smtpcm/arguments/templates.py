"""The fields of a mail as Jinja templates: one rule for the operators, the decorator and the notifier.

What the author of the DAG wrote is the template. What a template fills in is data: it is escaped in HTML, and in
addresses and paths it is marked (`TaintedStr`), so that it cannot act as a separator or as a folder.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.arguments.marking import MarkedText, joined_text, marking_environment, mask_of
from airflow_provider_smtpcm.mail.attachment import RemotePath
from airflow_provider_smtpcm.mail.tainted import BLANKS, DATA, TaintedStr, leads_out, steps_up

if TYPE_CHECKING:
    import jinja2


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
            # Without the DAG's cache of compiled templates, whose keys do not tell what escapes.
            self._html = self.text.overlay(autoescape=True, bytecode_cache=None)
        return self._html

    @property
    def marking(self) -> jinja2.Environment:
        """Marks what the author of a template wrote in what the template gives."""
        if self._marking is None:
            self._marking = marking_environment(self.text)
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
        plain = expression is not None and not _has_literal(expression)
        if name in TAINTED and not plain:
            if expression is not None and self.gives_objects:
                return _unmarked_object(_object(self.marking, source, collection=name in _COLLECTIONS), name, item=item)
            return _unmarked_text(self.marking.from_string(source), name, item=item)
        # The path of a file is no HTML, though what stands in the file is.
        environment = self.text if name in TAINTED else self.of_field(name)
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
    if isinstance(value, tuple | list | set | frozenset):
        parts = [render_field(name, part, environments, variables, otherwise, item=True) for part in value]
        return type(value)(parts) if type(value) in (tuple, set) else parts
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
    # A compiled template only joins what it escapes, and to mark that as safe took longer than all the rest.
    template.root_render_func.__globals__["escape"] = escaped
    pieces, join = _pieces(template), "".join
    return lambda variables: join(pieces(variables))


def _pieces(template: jinja2.Template) -> Callable[[Variables], Iterator[str]]:
    environment, name, blocks = template.environment, template.name, template.blocks
    write, context = template.root_render_func, environment.context_class
    return lambda variables: write(context(environment, variables, name, blocks))  # type: ignore[arg-type]


def _unmarked_text(template: jinja2.Template, name: str, *, item: bool) -> Render:
    """The text of a marking template as a field takes it: plain text where the author wrote all of it."""
    pieces = _pieces(template)
    return lambda variables: _unmarked(list(pieces(variables)), name, item=item)


def _unmarked_object(render: Render, name: str, *, item: bool) -> Render:
    """The same for a template that may give a collection, whose items are one address or one path each."""

    def unmarked(value: Any, *, item: bool) -> Any:
        if isinstance(value, Mapping):
            return {key: unmarked(part, item=True) for key, part in value.items()}
        if isinstance(value, tuple | list):
            return [unmarked(part, item=True) for part in value]
        return _unmarked([value], name, item=item) if isinstance(value, str) else value

    return lambda variables: unmarked(render(variables), item=item)


def _unmarked(pieces: list[str], name: str, *, item: bool) -> Any:
    text = joined_text(pieces)
    if type(text) is MarkedText and text.mask == text:
        return "".join(pieces)
    if type(text) is not MarkedText or not text.mask.strip(DATA + BLANKS):
        values = [piece for piece in pieces if type(piece) is not MarkedText and piece]
        if len(values) == 1:
            return as_data(name, values[0], item=item)
    return TaintedStr("".join(pieces), mask_of(text))


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
    write_text = escaped if environment.autoescape else str
    plain = (str, int, float, Undefined)

    def render(variables: Variables) -> Any:
        scope = environment.context_class(environment, variables, template.name, template.blocks)  # type: ignore[arg-type]
        deque(write(scope), maxlen=0)
        value = scope.vars["value"]
        if value is None and finalize is None:
            return None
        if collection and value is not None and not isinstance(value, plain):
            return value
        return write_text(value if finalize is None else finalize(value))

    return render


def _only_expression(environment: jinja2.Environment, source: str) -> jinja2.nodes.Expr | None:
    """The expression of a template that consists of nothing else but blanks: it gives a value alone."""
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


def escaped(value: Any) -> str:
    """What `markupsafe.escape` makes of a value, but not marked as safe where nothing in it had to be escaped."""
    kind = type(value)
    if kind is int or (kind is str and _SPECIAL_IN_HTML.search(value) is None):
        return str(value)
    from markupsafe import escape

    return escape(value)
