"""The task's own Jinja environment, made one for text over rows. Knows no field, no mail and no file."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.arguments.templates import text_environment
from airflow_provider_smtpcm.arguments.values import first_of
from airflow_provider_smtpcm.operators.merge.row import Row

if TYPE_CHECKING:
    import jinja2

# Templates that others include or extend; the task's own environment would compile them for each row.
_INCLUDED = 64


def over_rows(environment: jinja2.Environment) -> jinja2.Environment:
    """An environment for text, with all that the task's has, in which a name that is not known is an error.

    A column comes before whatever a mapping has by nature, and None (the NULL of a database) is written as nothing.
    """
    result = text_environment(environment).overlay(
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
            columns = first_of([repr(column) for column in self._undefined_obj]) or "none at all"
            return f"the row has no column {self._undefined_name!r}; its columns are {columns}"

    return MissingColumn
