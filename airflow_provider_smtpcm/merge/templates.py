"""The fields of a merge as templates over `row`: compiled once, rendered for each row.

What the author of the DAG wrote is a template; what came from a row, or from another task, is data and never compiled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.merge.rows import Row

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_smtpcm.arguments.templates import TemplateFunction

Variables = dict[str, Any]

_BODIES = ("text", "html")
_KEY = "row_key"
# Body files whose name depends on the row, such as one for each language, that stay compiled.
_CACHED_BODY_FILES = 64
# Templates that others include or extend, that stay compiled.
_CACHED_TEMPLATES = 64
_MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


# --- Deferred templates: the fields while Airflow renders the operator


@dataclass(frozen=True, slots=True)
class DeferredTemplate:
    """A value as the author of the DAG wrote it, in which Airflow finds nothing to render.

    A field of a merge is a template over each row, and Airflow renders template fields before there is a row. The
    fields are template fields nevertheless, so that the output of another task may be passed for any of them: Airflow
    then sets the dependency and replaces the output by its value, which is data and never compiled.
    """

    value: Any

    def __repr__(self) -> str:
        """Return what the UI shows; without memory addresses, since a changing value would make a new DAG version."""
        return _MEMORY_ADDRESS.sub("", str(self.value))


def deferred(value: Any) -> Any:
    """Return the value with all templates in it deferred; outputs of other tasks stay for Airflow to resolve."""
    if value is None or isinstance(value, DeferredTemplate) or _is_reference(value):
        return value
    if not _has_reference(value):
        return DeferredTemplate(value)
    if isinstance(value, Mapping):
        return {key: deferred(item) for key, item in value.items()}
    return [deferred(item) for item in value]


def undeferred(value: Any) -> Any:
    """Return the value that `deferred` was given, in which Airflow may have resolved outputs since."""
    if isinstance(value, DeferredTemplate):
        return value.value
    if isinstance(value, dict):
        return {key: undeferred(item) for key, item in value.items()}
    if isinstance(value, list):
        return [undeferred(item) for item in value]
    return value


def _is_reference(value: Any) -> bool:
    """Whether Airflow resolves it: a task's output, a DAG's parameter, a task group's argument, a literal.

    Their common class is not public; the method that it requires is.
    """
    return hasattr(type(value), "iter_references")


def _has_reference(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_reference, value.values()))
    if isinstance(value, tuple | list):
        return any(map(_has_reference, value))
    return _is_reference(value)


# --- The templates of a merge


class Constant:
    """A value that is the same for every row."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class RowTemplates:
    """The compiled fields of a merge.

    A template that names neither `row` nor `row_number` is rendered once, when it is compiled, as Airflow renders any
    other: what it asks Airflow for (`ti.xcom_pull`, `var.value`) is not asked again for each row.

    Args:
        fields: by name; a `DeferredTemplate` holds templates, any other value is data.
        environment: the task's Jinja environment, with its macros and filters.
        context: what templates may name besides `row` and `row_number`.
        encoding: of the files that `text_file` and `html_file` name.

    Raises:
        MessageError: a template cannot be compiled or rendered, or a file cannot be read.
    """

    def __init__(
        self, fields: Mapping[str, Any], environment: jinja2.Environment, context: Mapping[str, Any], *, encoding: str
    ) -> None:
        # Here, since every parse of a DAG imports this module.
        from airflow_provider_smtpcm.arguments.templates import FieldEnvironments

        self._encoding = encoding
        self._environments = FieldEnvironments(environment, text=_row_environment(environment))
        # One mapping for all rows: Jinja copies nothing out of it, and writes nothing into it.
        self._variables: Variables = {**self._environments.text.globals, **context}
        self._cached_body_file = lru_cache(maxsize=_CACHED_BODY_FILES)(self._compile_body_file)
        #: The fields that are the same for every row.
        self.constants: dict[str, Any] = {}
        #: The items that are the same for every row, in fields that have others.
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
                self._body_file(body, file, self.constants.get(body))

    def render_key(self, row: Row, number: int) -> str | None:
        """Return the rendered `row_key`; None: there is none. Arguments and errors as `render` has them."""
        if self._key is None:
            return None
        try:
            return str(self._key(self._variables_of(row, number)))
        except Exception as error:  # noqa: BLE001 - see `render`
            raise _render_error(_KEY, error) from None

    def render(self, row: Row, number: int) -> dict[str, Any]:
        """Return all fields for one row; the text of a body file is under `text` or `html`.

        Args:
            row: by its column names.
            number: of the row, from 1.

        Raises:
            MessageError: names the field, and the column if the row lacks it.
        """
        variables = self._variables_of(row, number)
        values = self.constants.copy()
        name = ""
        try:
            for name, render in self._templates:
                values[name] = render(variables)
            for body in _BODIES:
                name = f"{body}_file"
                if file := values.pop(name, None):
                    values[body] = self._body_file(body, file, values.get(body))(variables)
        except MessageError:
            raise
        except Exception as error:  # noqa: BLE001 - a template may call anything, and the other rows go on
            raise _render_error(name, error) from None
        return values

    def _variables_of(self, row: Row, number: int) -> Variables:
        self._variables["row"] = row
        self._variables["row_number"] = number
        return self._variables

    def _body_file(self, body: str, file: object, body_value: object) -> TemplateFunction:
        if body_value:
            raise MessageError(
                f"'{body}' and '{body}_file' are both set.", remedy="Give the body in one way; leave the other empty."
            )
        return self._cached_body_file(body, str(file), getattr(file, "mask", None))

    def _compile_body_file(self, body: str, file: str, mask: str | None) -> TemplateFunction:
        from airflow_provider_smtpcm.arguments.templates import compile_body_file
        from airflow_provider_smtpcm.mail.tainted import TaintedStr

        name = file if mask is None else TaintedStr(file, mask)
        return compile_body_file(f"{body}_file", name, self._encoding, self._environments)

    def _compile(
        self, name: str, value: Any, *, is_written: bool = False, item: bool = False
    ) -> Constant | TemplateFunction:
        """Compile a field, or a part of one.

        Args:
            name: the field.
            value: what is in it.
            is_written: whether the author of the DAG wrote it.
            item: whether it is one of several items.
        """
        from airflow_provider_smtpcm.arguments.templates import mark_as_data

        if isinstance(value, DeferredTemplate):
            return self._compile(name, value.value, is_written=True, item=item)
        if isinstance(value, str):
            if is_written:
                return self._compile_text(name, value, item=item)
            return Constant(mark_as_data(name, value, item=item))
        if isinstance(value, Mapping):
            keys = list(value)
            parts = [self._compile(name, part, is_written=is_written, item=True) for part in value.values()]
            return self._combine(name, parts, lambda values: dict(zip(keys, values, strict=True)))
        if isinstance(value, tuple | list | set):
            parts = [self._compile(name, part, is_written=is_written, item=True) for part in value]
            return self._combine(name, parts, list)
        return Constant(value)

    def _compile_text(self, name: str, source: str, *, item: bool) -> Constant | TemplateFunction:
        from jinja2 import TemplateError

        try:
            render = self._environments.compile(name, source, item=item)
            if _varies_by_row(self._environments.text.parse(source)):
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
            raise _render_error(name, error) from None

    def _combine(
        self, name: str, parts: list[Constant | TemplateFunction], combine: Callable[[list[Any]], Any]
    ) -> Constant | TemplateFunction:
        """Make one of several parts; it is constant where all of them are."""
        constants = [part.value for part in parts if isinstance(part, Constant)]
        if len(constants) == len(parts):
            return Constant(combine(constants))
        self.constant_items.setdefault(name, []).extend(constants)
        return lambda variables: combine(
            [part.value if isinstance(part, Constant) else part(variables) for part in parts]
        )


def _varies_by_row(tree: jinja2.nodes.Template) -> bool:
    """Whether a template may differ by row; one that includes another may, since the other is not known here."""
    from jinja2 import meta

    if any(True for _ in meta.find_referenced_templates(tree)):
        return True
    return not meta.find_undeclared_variables(tree).isdisjoint(("row", "row_number"))


def _render_error(name: str, error: Exception) -> MessageError:
    from jinja2 import TemplateError, UndefinedError

    if isinstance(error, UndefinedError):
        return MessageError(
            f"{name}: {error.message}.",
            remedy="Correct the name, or give a default: {{ row.name | default('') }}.",
        )
    reason = error.message if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
    return MessageError(f"{name} cannot be rendered ({reason}).", remedy="Fix the template, or the row.")


def _row_environment(environment: jinja2.Environment) -> jinja2.Environment:
    """Return the task's environment, changed for text over rows.

    A missing column is an error, a column takes precedence over a mapping's own attributes, and None (the NULL of a
    database) is written as nothing.
    """
    from airflow_provider_smtpcm.arguments.templates import make_text_environment

    result = make_text_environment(environment).overlay(
        autoescape=False,
        undefined=_missing_column(),
        finalize=environment.finalize or _nothing_for_none,
        cache_size=_CACHED_TEMPLATES,  # the task's own environment may cache none, and compile them for each row
    )
    get_attribute, get_item, undefined = result.getattr, result.getitem, result.undefined

    def attribute_or_column(value: Any, name: str) -> Any:
        if type(value) is not Row:
            return get_attribute(value, name)
        return value[name] if name in value else undefined(obj=value, name=name)

    def item_or_column(value: Any, name: Any) -> Any:
        if type(value) is not Row:
            return get_item(value, name)
        return value[name] if name in value else undefined(obj=value, name=name)

    # Compiled templates ask their environment for each attribute. It is ours alone, an overlay.
    result.getattr = attribute_or_column  # type: ignore[method-assign,assignment]
    result.getitem = item_or_column  # type: ignore[method-assign,assignment]
    return result


def _nothing_for_none(value: Any) -> Any:
    return "" if value is None else value


@cache
def _missing_column() -> type[jinja2.Undefined]:
    """Return the class of undefined values: a missing column is an error, whatever `undefined` the DAG has."""
    from jinja2 import StrictUndefined

    from airflow_provider_smtpcm.arguments.values import shorten_list

    class MissingColumn(StrictUndefined):
        __slots__ = ()

        @property
        def _undefined_message(self) -> str:
            if type(self._undefined_obj) is not Row:
                return super()._undefined_message
            columns = shorten_list([repr(column) for column in self._undefined_obj]) or "none at all"
            return f"the row has no column {self._undefined_name!r}; its columns are {columns}"

    return MissingColumn
