"""The fields of a merge as Jinja templates over `row`: compiled once, rendered for each row.

Only text in the DAG file is a template. Values from a row or from another task are data, and never compiled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.arguments.validation import is_static
from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.merge.rows import Row, is_nan, suggest_delimiter

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_smtpcm.arguments.templates import TemplateFunction

Variables = dict[str, Any]

_BODIES = ("text", "html")
_KEY = "row_key"
# How many compiled body files are cached: their name may depend on the row, for example on its language.
_CACHED_BODY_FILES = 64
# How many compiled templates that others include or extend are cached.
_CACHED_TEMPLATES = 64
# Maximum number of columns in an error message.
_MAX_NAMED_COLUMNS = 10
# The variables of a task's context that send requests to Airflow when they are used.
_SENDS_REQUESTS = {"conn", "task_instance", "ti", "var"}
_MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


# --- Deferred templates: hidden from Airflow until there is a row


@dataclass(frozen=True, slots=True)
class DeferredTemplate:
    """A value from the DAG file, wrapped so that Airflow does not render the templates in it.

    Airflow renders template fields before there is a row. The fields of a merge are template fields nevertheless, so
    that each accepts the output of another task: Airflow then sets the dependency and replaces the output with its
    value, which is data and never compiled.
    """

    value: Any

    def __repr__(self) -> str:
        """Return what the UI shows, the same in each process: Airflow would store a DAG version for each change."""
        return _MEMORY_ADDRESS.sub("", str(_sort_sets(self.value)))


def _sort_sets(value: Any) -> Any:
    """Return the value with a sorted list in place of each set, whose order changes from process to process."""
    if isinstance(value, set | frozenset):
        return sorted(map(_sort_sets, value), key=str)
    if type(value) in (tuple, list):
        return type(value)(map(_sort_sets, value))
    return {key: _sort_sets(item) for key, item in value.items()} if type(value) is dict else value


def defer_templates(value: Any) -> Any:
    """Wrap the templates in a value; outputs of other tasks in it are left for Airflow to resolve."""
    if value is None or isinstance(value, DeferredTemplate) or _is_reference(value):
        return value
    if not _has_reference(value):
        return DeferredTemplate(value)
    if isinstance(value, Mapping):
        # Airflow renders no keys, so one is wrapped only to tell it from a key of data.
        return {key if is_static(key) else DeferredTemplate(key): defer_templates(item) for key, item in value.items()}
    return [defer_templates(item) for item in value]


def undefer_templates(value: Any) -> Any:
    """Return the value that `defer_templates` wrapped; Airflow may have resolved the outputs in it."""
    if isinstance(value, DeferredTemplate):
        return value.value
    if isinstance(value, dict):
        return {undefer_templates(key): undefer_templates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [undefer_templates(item) for item in value]
    return value


def _is_reference(value: Any) -> bool:
    """Whether Airflow resolves the value: a task's output, a DAG parameter, a task group's argument, a `literal()`.

    Their common base class is not public, but its abstract method `iter_references` is.
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

    A template that uses neither `row` nor `row_number` is rendered once, when it is compiled: its requests to Airflow
    (`ti.xcom_pull`, `var.value`) are not repeated for each row.

    Args:
        fields: the values by field name; a `DeferredTemplate` contains templates, any other value is data.
        environment: the task's Jinja environment, with its macros and filters.
        context: the variables of the templates besides `row` and `row_number`.
        encoding: the encoding of the files that `text_file` and `html_file` name.
        to_path: turns a URL in the DAG file into an object with `open`.
        request_lock: held while a template is rendered that sends requests to Airflow for each row; None: not needed.

    Raises:
        MessageError: a template cannot be compiled or rendered, or a file cannot be read.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        environment: jinja2.Environment,
        context: Mapping[str, Any],
        *,
        encoding: str,
        to_path: Callable[[str], Any] = Path,
        request_lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        # Imported here, since every parse of a DAG imports this module.
        from airflow_provider_smtpcm.arguments.templates import FieldEnvironments

        self._encoding = encoding
        self._request_lock = request_lock
        text_environment = make_row_environment(environment)
        self._environments = FieldEnvironments(environment, text=text_environment, to_path=to_path)
        # One dict for all rows, since Jinja does not change it.
        self._variables: Variables = {**self._environments.text.globals, **context}
        self._cached_body_file = lru_cache(maxsize=_CACHED_BODY_FILES)(self._compile_body_file)
        #: The values of the fields that are the same for every row.
        self.constants: dict[str, Any] = {}
        #: The items that are the same for every row, by the name of a field that also has others.
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
            if not isinstance(self.constants.get(body), str | None):
                from airflow_provider_smtpcm.arguments.body_files import read_body

                self.constants[body] = read_body(body, self.constants[body], encoding)
            if file := self.constants.get(f"{body}_file"):
                self._get_body_file(body, file, self.constants.get(body))

    def render_key(self, row: Row, number: int) -> str | None:
        """Return the rendered `row_key`; None if it is not set, or constant. For arguments and errors see `render`."""
        if self._key is None:
            return None
        try:
            return str(self._key(self._set_row(row, number)))
        except Exception as error:  # noqa: BLE001 - see `render`
            raise _render_error(_KEY, error) from None

    def render(self, row: Row, number: int) -> dict[str, Any]:
        """Return the values of all fields for one row; the content of a body file is in `text` or `html`.

        Args:
            row: the row.
            number: the row's number, from 1.

        Raises:
            MessageError: a field cannot be rendered, for example because the row lacks a column.
        """
        variables = self._set_row(row, number)
        values = self.constants.copy()
        name = ""
        try:
            for name, render in self._templates:
                values[name] = render(variables)
            for body in _BODIES:
                name = f"{body}_file"
                if file := values.pop(name, None):
                    values[body] = self._get_body_file(body, file, values.get(body))(variables)
        except MessageError:
            raise
        except Exception as error:  # noqa: BLE001 - a template may call anything, and the other rows are still sent
            raise _render_error(name, error) from None
        return values

    def _set_row(self, row: Row, number: int) -> Variables:
        self._variables["row"] = row
        self._variables["row_number"] = number
        return self._variables

    def _get_body_file(self, body: str, file: object, body_value: object) -> TemplateFunction:
        if body_value:
            raise MessageError(f"'{body}' and '{body}_file' are both set.", remedy="Set only one of them.")
        from airflow_provider_smtpcm.arguments.templates import is_path_object

        return self._cached_body_file(body, file if is_path_object(file) else str(file), getattr(file, "mask", None))

    def _compile_body_file(self, body: str, file: Any, mask: str | None) -> TemplateFunction:
        from airflow_provider_smtpcm.arguments.body_files import compile_body_file
        from airflow_provider_smtpcm.mail.tainted import TaintedStr

        name = file if mask is None else TaintedStr(file, mask)
        return compile_body_file(f"{body}_file", name, self._encoding, self._environments, self._lock_requests)

    def _lock_requests(self, render: TemplateFunction, tree: jinja2.nodes.Template) -> TemplateFunction:
        """Return a function that holds the lock while it renders a template that sends requests to Airflow."""
        from jinja2 import meta

        lock = self._request_lock
        if lock is None or meta.find_undeclared_variables(tree).isdisjoint(_SENDS_REQUESTS):
            return render

        def render_under_lock(variables: Mapping[str, Any]) -> Any:
            with lock:
                return render(variables)

        return render_under_lock

    def _compile(
        self, name: str, value: Any, *, is_authored: bool = False, item: bool = False
    ) -> Constant | TemplateFunction:
        """Compile a field, or a part of one.

        Args:
            name: the name of the field.
            value: the field or a part of it.
            is_authored: whether the value is from the DAG file, so that text in it is a template.
            item: whether it is one of several items; see `FieldEnvironments.compile`.
        """
        from airflow_provider_smtpcm.arguments.templates import mark_as_data

        if isinstance(value, DeferredTemplate):
            return self._compile(name, value.value, is_authored=True, item=item)
        if isinstance(value, str):
            if is_authored:
                return self._compile_text(name, value, item=item)
            return Constant(mark_as_data(name, value, item=item))
        if isinstance(value, Mapping):
            return self._compile_mapping(name, value, is_authored=is_authored)
        if isinstance(value, tuple | list | set):
            parts = [self._compile(name, part, is_authored=is_authored, item=True) for part in value]
            return self._combine(name, parts, list)
        return self._compile_file(name, value) if is_authored else Constant(value)

    def _compile_file(self, name: str, value: Any) -> Constant | TemplateFunction:
        """Compile an object in the DAG file that is neither text nor a collection."""
        from airflow_provider_smtpcm.arguments.files import locate_object
        from airflow_provider_smtpcm.arguments.templates import get_pattern, make_pattern
        from airflow_provider_smtpcm.mail.files import FilePattern

        if not isinstance(value, FilePattern):
            return Constant(locate_object(name, value, self._environments.to_path))
        pattern, required = self._compile(name, get_pattern(value), is_authored=True, item=True), value.required
        if isinstance(pattern, Constant):
            return Constant(make_pattern(pattern.value, required=required))
        return lambda variables: make_pattern(pattern(variables), required=required)

    def _compile_mapping(
        self, name: str, value: Mapping[Any, Any], *, is_authored: bool
    ) -> Constant | TemplateFunction:
        """Compile the keys and items of a mapping; see `_compile`."""
        from airflow_provider_smtpcm.arguments.templates import describe_item, make_mapping

        keys = [self._compile_key(name, key, is_authored=is_authored) for key in value]
        names = [key.value if isinstance(key, Constant) else None for key in keys]
        parts = [
            self._compile(field, part, is_authored=is_authored, item=is_item)
            for (field, is_item), part in zip((describe_item(name, key) for key in names), value.values(), strict=True)
        ]
        if all(isinstance(key, Constant) for key in keys):
            return self._combine(name, parts, lambda values: make_mapping(name, names, values))
        items = self._combine(name, parts, list)
        if isinstance(items, Constant):
            self.constant_items.setdefault(name, []).extend(items.value)
        return lambda variables: make_mapping(
            name, [_get_value(key, variables) for key in keys], _get_value(items, variables)
        )

    def _compile_key(self, name: str, key: Any, *, is_authored: bool) -> Constant | TemplateFunction:
        """Compile a key of a mapping; see `_compile`."""
        if isinstance(key, DeferredTemplate):
            return self._compile_key(name, key.value, is_authored=True)
        if is_authored and isinstance(key, str) and self._environments.is_template(key):
            return self._compile_text(name, key, is_key=True)
        return Constant(key)

    def _compile_text(
        self, name: str, source: str, *, item: bool = False, is_key: bool = False
    ) -> Constant | TemplateFunction:
        from jinja2 import TemplateError

        try:
            environments = self._environments
            render = environments.compile_key(source) if is_key else environments.compile(name, source, item=item)
            tree = self._environments.text.parse(source)
            if _varies_by_row(tree):
                return self._lock_requests(render, tree)
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            raise MessageError(
                f"{name} is not a valid template ({error.message}{f', line {line}' if line else ''}).",
                remedy="Correct it, or put text that is not for Jinja between {% raw %} and {% endraw %}.",
            ) from None
        try:
            return Constant(render(self._variables))
        except Exception as error:  # noqa: BLE001 - a template may call anything
            raise _render_error(name, error) from None

    def _combine(
        self, name: str, parts: list[Constant | TemplateFunction], combine: Callable[[list[Any]], Any]
    ) -> Constant | TemplateFunction:
        """Combine the parts of a field; the result is constant if all parts are."""
        constants = [part.value for part in parts if isinstance(part, Constant)]
        if len(constants) == len(parts):
            return Constant(combine(constants))
        self.constant_items.setdefault(name, []).extend(constants)
        return lambda variables: combine([_get_value(part, variables) for part in parts])


def _get_value(part: Constant | TemplateFunction, variables: Mapping[str, Any]) -> Any:
    return part.value if isinstance(part, Constant) else part(variables)


def _varies_by_row(tree: jinja2.nodes.Template) -> bool:
    """Whether a template may render differently by row. It may if it includes another, since that is not analyzed."""
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


def make_row_environment(environment: jinja2.Environment, *, is_strict: bool = True) -> jinja2.Environment:
    """Return an overlay of the task's environment for templates over rows.

    `row.items` is a column, not the method of a dict. None (a database's NULL) renders as empty text, unless the DAG
    has set a `finalize` of its own.

    Args:
        environment: the task's own.
        is_strict: whether a row has only its columns, and a missing name is an error in any DAG. Else a row has the
            methods of a dict too, unless a column has that name, and the DAG decides what a missing name is.
    """
    from jinja2 import StrictUndefined

    from airflow_provider_smtpcm.arguments.templates import make_text_environment

    names_columns = is_strict or issubclass(environment.undefined, StrictUndefined)
    result = make_text_environment(environment).overlay(
        autoescape=False,
        undefined=_missing_column() if names_columns else environment.undefined,
        finalize=environment.finalize or _none_as_empty,
        cache_size=_CACHED_TEMPLATES,  # with Airflow's 0, an included template would be compiled for each row
    )
    undefined = result.undefined

    def look_up_column(look_up: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def column_or_other(value: Any, name: Any) -> Any:
            if type(value) is not Row or not (is_strict or name in value):
                return look_up(value, name)
            return value[name] if name in value else undefined(obj=value, name=name)

        return column_or_other

    # Compiled templates look up attributes through these methods. Only this overlay is changed.
    result.getattr = look_up_column(result.getattr)  # type: ignore[method-assign,assignment]
    result.getitem = look_up_column(result.getitem)  # type: ignore[method-assign,assignment]
    return result


def _none_as_empty(value: Any) -> Any:
    if type(value) is str:  # as most values are
        return value
    return "" if value is None or is_nan(value) else value


@cache
def _missing_column() -> type[jinja2.Undefined]:
    """Return a class for Jinja's `undefined`: a missing column is an error, whatever class the DAG has set."""
    from jinja2 import StrictUndefined

    class MissingColumn(StrictUndefined):
        __slots__ = ()

        @property
        def _undefined_message(self) -> str:
            if type(self._undefined_obj) is not Row:
                return super()._undefined_message
            columns = [repr(column) for column in self._undefined_obj]
            more = len(columns) - _MAX_NAMED_COLUMNS
            named = ", ".join(columns[:_MAX_NAMED_COLUMNS]) or "(none)"
            text = f"the row has no column {self._undefined_name!r}; its columns are {named}"
            if suggestion := suggest_delimiter(list(self._undefined_obj)):
                return f"{text}. {suggestion.removesuffix('.')}"
            return f"{text} and {more} more" if more > 0 else text

    return MissingColumn
