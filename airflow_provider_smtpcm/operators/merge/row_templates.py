"""The fields of a merge as templates over `row`: compiled once, filled in for each row. Knows no mail and no file.

What the author of the DAG wrote is a template; what came from a row, or from another task, is data and never compiled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.arguments.body_file import not_a_template, read_body_file
from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.operators.merge.row import Row
from airflow_provider_smtpcm.operators.merge.row_environment import escaped, gives_objects, over_rows
from airflow_provider_smtpcm.operators.merge.unrendered import Unrendered

if TYPE_CHECKING:
    import jinja2

Variables = dict[str, Any]
Render = Callable[[Variables], Any]

_BODIES = ("text", "html")
_KEY = "row_key"
# These may be lists, where the DAG has `render_template_as_native_obj`.
_LISTS = ("to", "cc", "bcc", "reply_to", "attachments", "inline_images")
# Templates whose name depends on the row, such as one for each language.
_FILES = 64


class Constant:
    """A value that is the same for every row."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class RowTemplates:
    """The fields, ready to be filled in.

    A template that names neither `row` nor `row_number` is rendered here, once, as Airflow renders any other: what it
    asks Airflow for (`ti.xcom_pull`, `var.value`) is not asked again for each row.

    Args:
        fields: by name; an `Unrendered` holds templates, anything else is as it shall be.
        environment: the task's own, with its macros and filters.
        context: what templates may name besides `row` and `row_number`.
        encoding: of the files that `text_file` and `html_file` name.

    Raises:
        MessageError: a template is none, or cannot be rendered, or a file cannot be read.
    """

    def __init__(
        self, fields: Mapping[str, Any], environment: jinja2.Environment, context: Mapping[str, Any], *, encoding: str
    ) -> None:
        self._encoding = encoding
        self._gives_objects = gives_objects(environment)
        self._text = over_rows(environment, autoescape=False)
        self._html = over_rows(environment, autoescape=True)
        # One mapping for all rows: Jinja copies nothing out of it, and writes nothing into it.
        self._variables: Variables = {**self._text.globals, **context}
        self._body_from_file = lru_cache(maxsize=_FILES)(self._read_body)
        #: The fields that are the same for every row.
        self.constants: dict[str, Any] = {}
        #: The items that are the same for every row in fields whose other items are not.
        self.constant_items: dict[str, list[Any]] = {}
        self._templates: list[tuple[str, Render]] = []
        self._key: Render | None = None
        for name, value in fields.items():
            part = self._compile(name, value)
            if isinstance(part, Constant):
                self.constants[name] = part.value
            elif name == _KEY:
                self._key = part
            else:
                self._templates.append((name, part))
        for body in _BODIES:
            if file := self.constants.get(f"{body}_file"):
                self._body(body, file, self.constants.get(body))

    def key(self, row: Row, number: int) -> str | None:
        """What the author of the DAG says names a row; None: nothing. Arguments and errors as `fill_in` has them."""
        if self._key is None:
            return None
        try:
            return str(self._key(self._at(row, number)))
        except Exception as error:  # noqa: BLE001 - see fill_in
            raise _fault(_KEY, error) from None

    def fill_in(self, row: Row, number: int) -> dict[str, Any]:
        """All fields for one row; a body that stands in a file is under `text` or `html`.

        Args:
            row: by the names of its columns.
            number: of the row, from 1.

        Raises:
            MessageError: names the field, and the column if it is one that the row lacks.
        """
        variables = self._at(row, number)
        values = self.constants.copy()
        name = ""
        try:
            for name, render in self._templates:
                values[name] = render(variables)
            for body in _BODIES:
                name = f"{body}_file"
                if file := values.pop(name, None):
                    values[body] = self._body(body, file, values.get(body))(variables)
        except MessageError:
            raise
        except Exception as error:  # noqa: BLE001 - a template may call anything, and this row is not the others
            raise _fault(name, error) from None
        return values

    def _at(self, row: Row, number: int) -> Variables:
        self._variables["row"] = row
        self._variables["row_number"] = number
        return self._variables

    def _body(self, body: str, file: object, written: object) -> Render:
        if written:
            raise MessageError(
                f"'{body}' and '{body}_file' are both set.", remedy="Give the body in one way; leave the other empty."
            )
        return self._body_from_file(body, str(file))

    def _read_body(self, body: str, file: str) -> Render:
        from jinja2 import TemplateError

        environment = self._html if body == "html" else self._text
        path, source = read_body_file(f"{body}_file", file, self._encoding, environment)
        try:
            return _render(environment.from_string(source))
        except TemplateError as error:
            raise not_a_template(f"{body}_file", path, error) from None

    def _compile(self, name: str, value: Any, *, written: bool = False) -> Constant | Render:
        """A part of a field; `written` says that its author is the DAG's."""
        if isinstance(value, Unrendered):
            return self._compile(name, value.value, written=True)
        if isinstance(value, str):
            return self._compile_text(name, value) if written else Constant(value)
        if isinstance(value, Mapping):
            keys = list(value)
            items = [self._compile(name, item, written=written) for item in value.values()]
            return self._collected(name, items, lambda values: dict(zip(keys, values, strict=True)))
        if isinstance(value, tuple | list | set):
            return self._collected(name, [self._compile(name, item, written=written) for item in value], list)
        return Constant(value)

    def _compile_text(self, name: str, source: str) -> Constant | Render:
        from jinja2 import TemplateError

        environment = self._html if name == "html" else self._text
        try:
            tree = environment.parse(source)
            render = _render(environment.from_string(source))
            if self._gives_objects and name in _LISTS:
                render = _object(environment, source) or render
            if _varies(tree):
                return render
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            raise MessageError(
                f"{name} is no template ({error.message}{f', line {line}' if line else ''}).",
                remedy="Mend it; text that Jinja must leave alone goes between {% raw %} and {% endraw %}.",
            ) from None
        try:
            return Constant(render(self._variables))
        except Exception as error:  # noqa: BLE001 - a template may call anything
            raise _fault(name, error) from None

    def _collected(
        self, name: str, parts: list[Constant | Render], collect: Callable[[list[Any]], Any]
    ) -> Constant | Render:
        """Several parts as one, which is constant where all of them are."""
        constant = [part.value for part in parts if isinstance(part, Constant)]
        if len(constant) == len(parts):
            return Constant(collect(constant))
        self.constant_items.setdefault(name, []).extend(constant)
        return lambda variables: collect(
            [part.value if isinstance(part, Constant) else part(variables) for part in parts]
        )


def _varies(tree: jinja2.nodes.Template) -> bool:
    """Whether a template may differ from row to row; what another template says that it includes is not known here."""
    from jinja2 import meta

    if any(True for _ in meta.find_referenced_templates(tree)):
        return True
    return not meta.find_undeclared_variables(tree).isdisjoint(("row", "row_number"))


def _render(template: jinja2.Template) -> Render:
    """`template.render`, without the copy that it makes of all variables each time."""
    environment, name, blocks = template.environment, template.name, template.blocks
    write, context, join = template.root_render_func, environment.context_class, "".join
    # A compiled template only joins what it escapes, and to mark that as safe took longer than all the rest.
    write.__globals__["escape"] = escaped
    return lambda variables: join(write(context(environment, variables, name, blocks)))


def _object(environment: jinja2.Environment, source: str) -> Render | None:
    """The value of a template that is one expression: a list or a mapping as it is, anything else as text.

    A DAG with `render_template_as_native_obj` asks for that. What Jinja does for it goes further, and takes text that
    looks like a list for one, wherever it came from; text from a row stays text.
    """
    from jinja2 import nodes

    tree = environment.parse(source)
    outputs = [node.nodes for node in tree.body if isinstance(node, nodes.Output)]
    if len(tree.body) != 1 or [len(output) for output in outputs] != [1]:
        return None
    tree.body = [nodes.Assign(nodes.Name("value", "store"), outputs[0][0], lineno=1)]
    tree.set_environment(environment)
    template = environment.from_string(tree)
    write, finalize = template.root_render_func, environment.finalize or str

    def render(variables: Variables) -> Any:
        scope = environment.context_class(environment, variables, template.name, template.blocks)
        deque(write(scope), maxlen=0)
        value = scope.vars["value"]
        return value if isinstance(value, tuple | list | Mapping) else str(finalize(value))

    return render


def _fault(name: str, error: Exception) -> MessageError:
    from jinja2 import TemplateError, UndefinedError

    if isinstance(error, UndefinedError):
        return MessageError(
            f"{name}: {error.message}.",
            remedy="Correct the name, or write what stands for it: {{ row.name | default('') }}.",
        )
    reason = error.message if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
    return MessageError(f"{name} cannot be filled in ({reason}).", remedy="Mend the template, or the row.")
