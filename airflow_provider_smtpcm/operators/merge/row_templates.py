"""The fields of a merge as templates over `row`: compiled once, filled in for each row. Knows no mail and no file.

What the author of the DAG wrote is a template; what came from a row, or from another task, is data and never compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.operators.body_file import not_a_template, read_body_file, text_environment
from airflow_provider_smtpcm.operators.merge.rows import Row
from airflow_provider_smtpcm.operators.merge.unrendered import Unrendered

if TYPE_CHECKING:
    import jinja2

Variables = dict[str, Any]
Render = Callable[[Variables], Any]

_BODIES = ("text", "html")
# Templates whose name depends on the row, such as one for each language.
_FILES = 64


class Constant:
    """A value that is the same for every row."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class RowTemplates:
    """The fields, ready to be filled in.

    Args:
        fields: by name; an `Unrendered` holds templates, anything else is as it shall be.
        environment: the task's own, with its macros and filters.
        context: what templates may name besides `row` and `row_number`.
        encoding: of the files that `text_file` and `html_file` name.

    Raises:
        MessageError: a template is none, or a file cannot be read.
    """

    def __init__(
        self, fields: Mapping[str, Any], environment: jinja2.Environment, context: Mapping[str, Any], *, encoding: str
    ) -> None:
        self._encoding = encoding
        self._text = _over_rows(environment, autoescape=False)
        self._html = _over_rows(environment, autoescape=True)
        # One mapping for all rows: Jinja copies nothing out of it, and writes nothing into it.
        self._variables: Variables = {**self._text.globals, **context}
        self._body_from_file = lru_cache(maxsize=_FILES)(self._read_body)
        self.constants: dict[str, Any] = {}
        self._templates: list[tuple[str, Render]] = []
        for name, value in fields.items():
            part = self._compile(name, value)
            if isinstance(part, Constant):
                self.constants[name] = part.value
            else:
                self._templates.append((name, part))
        for body in _BODIES:
            if file := self.constants.get(f"{body}_file"):
                self._body_from_file(body, str(file))

    def fill_in(self, row: Row, number: int) -> dict[str, Any]:
        """All fields for one row; a body that stands in a file is under `text` or `html`.

        Args:
            row: by the names of its columns.
            number: of the row, from 1.

        Raises:
            MessageError: names the field, and the column if it is one that the row lacks.
        """
        variables = self._variables
        variables["row"] = row
        variables["row_number"] = number
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
            items = {key: self._compile(name, item, written=written) for key, item in value.items()}
            return _collected(list(items.values()), lambda values: dict(zip(items, values, strict=True)))
        if isinstance(value, tuple | list):
            return _collected([self._compile(name, item, written=written) for item in value], list)
        return Constant(value)

    def _compile_text(self, name: str, source: str) -> Constant | Render:
        from jinja2 import TemplateError, nodes

        environment = self._html if name == "html" else self._text
        try:
            tree = environment.parse(source)
            template = environment.from_string(source)
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            raise MessageError(
                f"{name} is no template ({error.message}{f', line {line}' if line else ''}).",
                remedy="Mend it; text that Jinja must leave alone goes between {% raw %} and {% endraw %}.",
            ) from None
        outputs = (output for output in tree.body if isinstance(output, nodes.Output))
        pieces = [piece for output in outputs for piece in output.nodes]
        plain = all(isinstance(node, nodes.Output) for node in tree.body)
        if plain and all(isinstance(piece, nodes.TemplateData) for piece in pieces):
            return Constant(template.render())
        return _render(template)


def _collected(parts: list[Constant | Render], collect: Callable[[list[Any]], Any]) -> Constant | Render:
    """Several parts as one, which is constant where all of them are."""
    if all(isinstance(part, Constant) for part in parts):
        return Constant(collect([part.value for part in parts if isinstance(part, Constant)]))
    return lambda variables: collect([part.value if isinstance(part, Constant) else part(variables) for part in parts])


def _render(template: jinja2.Template) -> Render:
    """`template.render`, without the copy that it makes of all variables each time."""
    environment, name, blocks = template.environment, template.name, template.blocks
    write, context, join = template.root_render_func, environment.context_class, "".join
    return lambda variables: join(write(context(environment, variables, name, blocks)))


def _over_rows(environment: jinja2.Environment, *, autoescape: bool) -> jinja2.Environment:
    """The task's environment for text over rows: strict, and a column comes before whatever a mapping has by nature."""
    over_rows = text_environment(environment).overlay(autoescape=autoescape, undefined=_strict())
    of_any, item_of_any, undefined = over_rows.getattr, over_rows.getitem, over_rows.undefined

    def attribute(value: Any, name: str) -> Any:
        if type(value) is not Row:
            return of_any(value, name)
        return value[name] if name in value else undefined(obj=value, name=name)

    def item(value: Any, name: Any) -> Any:
        if type(value) is not Row:
            return item_of_any(value, name)
        return value[name] if name in value else undefined(obj=value, name=name)

    # Compiled templates ask their environment for each attribute. It is ours alone, an overlay.
    over_rows.getattr = attribute  # type: ignore[method-assign,assignment]
    over_rows.getitem = item  # type: ignore[method-assign,assignment]
    return over_rows


@cache
def _strict() -> type[jinja2.Undefined]:
    """A missing column is an error, whatever the DAG says of undefined names; the error names it."""
    from jinja2 import StrictUndefined

    class MissingColumn(StrictUndefined):
        __slots__ = ()

        @property
        def _undefined_message(self) -> str:
            if type(self._undefined_obj) is not Row:
                return super()._undefined_message
            columns = ", ".join(map(repr, self._undefined_obj)) or "none at all"
            return f"the row has no column {self._undefined_name!r}; its columns are {columns}"

    return MissingColumn


def _fault(name: str, error: Exception) -> MessageError:
    from jinja2 import TemplateError, UndefinedError

    if isinstance(error, UndefinedError):
        return MessageError(
            f"{name}: {error.message}.",
            remedy="Correct the name, or write what stands for it: {{ row.name | default('') }}.",
        )
    reason = error.message if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
    return MessageError(f"{name} cannot be filled in ({reason}).", remedy="Mend the template, or the row.")
