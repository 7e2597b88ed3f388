"""Values of variables that tasks set while a DAG runs: reading them from XCom, and keeping their SSIS types.

A task that sets variables pushes one XCom for each, with the name of the variable, such as `User::Rows`, as key. XComs
are JSON: numbers and Booleans as such; dates, decimal numbers and GUIDs as text.
"""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.ssis.expressions import DataType, ExpressionError, TypeSpec, Value, cast, to_value

if TYPE_CHECKING:
    import jinja2

# A cast to the type of the variable would shorten these values. A date is cast to a type with more fractional digits of
# a second instead. A variable of type Decimal has whatever scale its value has, so a number is not cast.
_WIDE = {
    DataType.DATE: TypeSpec(DataType.DBTIMESTAMP2, (7,)),
    DataType.DBTIMESTAMP: TypeSpec(DataType.DBTIMESTAMP2, (7,)),
}
_EXACT = {DataType.DECIMAL, DataType.NUMERIC}
_INTEGERS = {
    DataType.I1,
    DataType.I2,
    DataType.I4,
    DataType.I8,
    DataType.UI1,
    DataType.UI2,
    DataType.UI4,
    DataType.UI8,
}

# The XComs that the task instance read last, so that several templates of a mail request each of them once.
_Key = tuple[object, ...]
_cached: tuple[_Key, dict[tuple[str, str], Any]] = ((), {})


def read_variable(
    ti: Any, name: str, task_ids: Sequence[str], default: Any = None, data_type: str | None = None
) -> Any:
    """Return the value that the last of these tasks has pushed for a variable.

    Args:
        ti: the task instance that reads it; in a callback, the one that the callback is about.
        name: the variable, such as `User::Rows`.
        task_ids: the tasks that set it, from the first to the last; one that did not run, or failed, is skipped.
        default: the value if none of them has pushed one: usually the design-time value.
        data_type: the SSIS type of the variable, such as `DT_I4`; None: the value as it is in the XCom.
    """
    value = default
    # A callback of a DAG whose last task instance is unknown has none; Jinja then passes an Undefined.
    if hasattr(type(ti), "xcom_pull"):
        for task_id in reversed(task_ids):
            pushed = _pull(ti, name, task_id)
            if pushed is not None:
                value = pushed
                break
    return value if data_type is None else convert_to_plain(value, data_type)


def _pull(ti: Any, name: str, task_id: str) -> Any:
    global _cached  # noqa: PLW0603 - one entry, replaced by the next task instance
    key = tuple(getattr(ti, part, None) for part in ("dag_id", "run_id", "task_id", "map_index", "try_number"))
    if _cached[0] != key:
        _cached = (key, {})
    values = _cached[1]
    if (task_id, name) not in values:
        map_index = _choose_map_index(ti, task_id)
        if map_index is None:
            pushed = ti.xcom_pull(task_ids=[task_id], key=name)
            values[task_id, name] = next((value for value in reversed(list(pushed)) if value is not None), None)
        else:
            values[task_id, name] = ti.xcom_pull(task_ids=task_id, key=name, map_indexes=map_index)
    return values[task_id, name]


def _choose_map_index(ti: Any, task_id: str) -> int | None:
    """Return the map index of the instance whose XCom counts; None: the last one of a mapped task.

    A task in the same mapped group as the reader counts with the reader's own index: the same iteration of the loop.
    """
    reader = getattr(ti, "task", None)
    dag = getattr(reader, "dag", None)
    setter = dag.task_dict.get(task_id) if dag is not None else None
    if reader is None or setter is None:
        return -1
    loops = list(map(id, setter.iter_mapped_task_groups()))
    if not setter.is_mapped and not loops:
        return -1
    is_same_iteration = loops and not setter.is_mapped and loops == list(map(id, reader.iter_mapped_task_groups()))
    return ti.map_index if is_same_iteration and ti.map_index >= 0 else None


def to_json(value: object) -> Any:  # noqa: C901, PLR0911 - one for each type
    """Return a value from a database or an expression as JSON that keeps all its digits.

    Args:
        value: text for everything that JSON does not have; a sequence becomes a list.
    """
    if isinstance(value, Value):
        return to_json(value.data)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):  # the expression language has no longer integers
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        is_integer = value.is_finite() and int(value.as_tuple().exponent) >= 0
        return to_json(int(value)) if is_integer else f"{value:f}"
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return f"{{{str(value).upper()}}}"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"0x{bytes(value).hex().upper()}"
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [to_json(item) for item in value]
    return str(value)


def convert(value: object, data_type: str) -> Value:
    """Convert a value to the type of a variable, without loss.

    Args:
        value: a Python object, an XCom, or the result of a macro.
        data_type: such as `DT_I4`.

    Raises:
        ExpressionError: the value does not fit the type.
    """
    kind = DataType(data_type)
    typed = to_value(value)
    if typed.data is None:
        return Value(TypeSpec(kind), None)
    if isinstance(typed.data, str) and kind in _INTEGERS | _EXACT:
        # SSIS assigns a number; its text is only how XCom stores it: 12.00 is an integer.
        number = _parse_number(typed.data)
        is_integer = isinstance(number.data, Decimal) and number.data == number.data.to_integral_value()
        typed = number if kind in _EXACT or is_integer else typed
    if kind in _EXACT and isinstance(typed.data, int | float) and not isinstance(typed.data, bool):
        typed = _parse_number(repr(typed.data))  # not through binary digits: 0.1 stays 0.1
    if kind in _EXACT:
        return typed if isinstance(typed.data, Decimal) else cast(typed, TypeSpec(DataType.NUMERIC, (38, 10)))
    if kind in _WIDE:
        # An SQL statement gets the fractional seconds; the text has none, as in SSIS.
        return Value(TypeSpec(kind), cast(typed, _WIDE[kind]).data)
    return cast(typed, TypeSpec(kind))


def _parse_number(text: str) -> Value:
    """Return the number in a text, with its own scale if possible: 1.50, not 1.5000000000."""
    text = text.strip()
    try:
        return to_value(Decimal(text))
    except (InvalidOperation, ExpressionError):
        return cast(to_value(text), TypeSpec(DataType.NUMERIC, (38, 10)))


def convert_to_plain(raw: object, data_type: str) -> Any:
    """Return what a template can use: a Python object where there is one for the type, else the `Value`.

    Args:
        raw: the value, as in `convert`.
        data_type: such as `DT_I4`.
    """
    value = convert(raw, data_type)
    is_plain = value.data is None or isinstance(value.data, str | bool | int)
    return value.data if is_plain else value


@dataclass(frozen=True, slots=True)
class TypedTemplate:
    """A template in a field of an operator that renders to a value of an SSIS type instead of text.

    Airflow resolves it like the output of another task. If the template is a single `{{ … }}`, the value of the
    expression is converted to the type, else the rendered text, such as `12` to a number.

    Args:
        template: a Jinja template, such as `{{ params['Rows'] }}`.
        data_type: the SSIS type, such as `DT_I4`. The value is an `int`, `bool`, `str`, `float`, `Decimal`,
            `datetime.datetime`, `datetime.date`, `datetime.time`, or None for a null.
    """

    template: str
    data_type: str = "DT_WSTR"

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return the value; Airflow calls this when it renders the field.

        Raises:
            ExpressionError: the value does not fit the type.
            jinja2.TemplateError: the template is invalid or cannot be rendered.
        """
        environment: jinja2.Environment = context["task"].get_template_env()
        return convert(_render(environment, self.template, context), self.data_type).data


def _render(environment: jinja2.Environment, template: str, context: Mapping[str, Any]) -> Any:
    from jinja2 import nodes

    tree = environment.parse(template)
    parts = tree.body[0].nodes if len(tree.body) == 1 and isinstance(tree.body[0], nodes.Output) else []
    if len(parts) != 1 or isinstance(parts[0], nodes.TemplateData):
        return environment.from_string(template).render(context)
    tree.body = [nodes.Assign(nodes.Name("result", "store"), parts[0], lineno=1)]
    tree.set_environment(environment)
    return environment.from_string(tree).make_module(dict(context)).result  # type: ignore[attr-defined]
