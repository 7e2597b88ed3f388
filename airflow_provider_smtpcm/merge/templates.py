"""The fields of a merge as templates over `row`: compiled once, filled in for each row. Knows no mail and no file.

What the author of the DAG wrote is a template; what came from a row, or from another task, is data and never compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.arguments.templates import (
    FieldEnvironments,
    TemplateFunction,
    compile_body_file,
    make_text_environment,
    mark_as_data,
)
from airflow_provider_smtpcm.arguments.values import Unrendered, shorten_list
from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.tainted import TaintedStr
from airflow_provider_smtpcm.merge.rows import Row

if TYPE_CHECKING:
    import jinja2


# folded: The task's own Jinja environment, made one for text over rows. Knows no field, no mail and no file.

# Templates that others include or extend; the task's own environment would compile them for each row.
_INCLUDED = 64


def over_rows(environment: jinja2.Environment) -> jinja2.Environment:
    """An environment for text, with all that the task's has, in which a name that is not known is an error.

    A column comes before whatever a mapping has by nature, and None (the NULL of a database) is written as nothing.
    """
    result = make_text_environment(environment).overlay(
        autoescape=False,
        undefined=_missing_column(),
        finalize=environment.finalize or _nothing_for_none,
        cache_size=_INCLUDED,
    )
    of_any, item_of_any, undefined = result.getattr, result.getitem, result.undefined

    def attribute(value: Any, name: str) -> Any:
        if type(value) is not Row:
            return of_any(value, name)
        return value[name] if name in value else undefined(obj=value, name=name)

    def item(value: Any, name: Any) -> Any:
        if type(value) is not Row:
            return item_of_any(value, name)
        return value[name] if name in value else undefined(obj=value, name=name)

    # Compiled templates ask their environment for each attribute. It is ours alone, an overlay.
    result.getattr = attribute  # type: ignore[method-assign,assignment]
    result.getitem = item  # type: ignore[method-assign,assignment]
    return result


def _nothing_for_none(value: Any) -> Any:
    return "" if value is None else value


@cache
def _missing_column() -> type[jinja2.Undefined]:
    """A missing column is an error, whatever the DAG says of undefined names; the error names it."""
    from jinja2 import StrictUndefined

    class MissingColumn(StrictUndefined):
        __slots__ = ()

        @property
        def _undefined_message(self) -> str:
            if type(self._undefined_obj) is not Row:
                return super()._undefined_message
            columns = shorten_list([repr(column) for column in self._undefined_obj]) or "none at all"
            return f"the row has no column {self._undefined_name!r}; its columns are {columns}"

    return MissingColumn


# folded: here began the module itself

Variables = dict[str, Any]

_BODIES = ("text", "html")
_KEY = "row_key"
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
        self._environments = FieldEnvironments(environment, text=over_rows(environment))
        # One mapping for all rows: Jinja copies nothing out of it, and writes nothing into it.
        self._variables: Variables = {**self._environments.text.globals, **context}
        self._body_from_file = lru_cache(maxsize=_FILES)(self._read_body)
        #: The fields that are the same for every row.
        self.constants: dict[str, Any] = {}
        #: The items that are the same for every row in fields whose other items are not.
        self.constant_items: dict[str, list[Any]] = {}
        self._templates: list[tuple[str, TemplateFunction]] = []
        self._key: TemplateFunction | None = None
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

    def _body(self, body: str, file: object, written: object) -> TemplateFunction:
        if written:
            raise MessageError(
                f"'{body}' and '{body}_file' are both set.", remedy="Give the body in one way; leave the other empty."
            )
        return self._body_from_file(body, str(file), file.mask if isinstance(file, TaintedStr) else None)

    def _read_body(self, body: str, file: str, mask: str | None) -> TemplateFunction:
        name = file if mask is None else TaintedStr(file, mask)
        return compile_body_file(f"{body}_file", name, self._encoding, self._environments)

    def _compile(
        self, name: str, value: Any, *, written: bool = False, item: bool = False
    ) -> Constant | TemplateFunction:
        """A part of a field.

        Args:
            written: whether its author is the DAG's.
            item: whether it is one of several items.
        """
        if isinstance(value, Unrendered):
            return self._compile(name, value.value, written=True, item=item)
        if isinstance(value, str):
            if written:
                return self._compile_text(name, value, item=item)
            return Constant(mark_as_data(name, value, item=item))
        if isinstance(value, Mapping):
            keys = list(value)
            items = [self._compile(name, part, written=written, item=True) for part in value.values()]
            return self._collected(name, items, lambda values: dict(zip(keys, values, strict=True)))
        if isinstance(value, tuple | list | set):
            parts = [self._compile(name, part, written=written, item=True) for part in value]
            return self._collected(name, parts, list)
        return Constant(value)

    def _compile_text(self, name: str, source: str, *, item: bool) -> Constant | TemplateFunction:
        from jinja2 import TemplateError

        try:
            render = self._environments.compile(name, source, item=item)
            if _varies(self._environments.text.parse(source)):
                return render
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            raise MessageError(
                f"{name} is no template ({error.message}{f', line {line}' if line else ''}).",
                remedy="Correct it; text that Jinja must leave alone goes between {% raw %} and {% endraw %}.",
            ) from None
        try:
            return Constant(render(self._variables))
        except Exception as error:  # noqa: BLE001 - a template may call anything
            raise _fault(name, error) from None

    def _collected(
        self, name: str, parts: list[Constant | TemplateFunction], collect: Callable[[list[Any]], Any]
    ) -> Constant | TemplateFunction:
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


def _fault(name: str, error: Exception) -> MessageError:
    from jinja2 import TemplateError, UndefinedError

    if isinstance(error, UndefinedError):
        return MessageError(
            f"{name}: {error.message}.",
            remedy="Correct the name, or write what stands for it: {{ row.name | default('') }}.",
        )
    reason = error.message if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
    return MessageError(f"{name} cannot be filled in ({reason}).", remedy="Mend the template, or the row.")
