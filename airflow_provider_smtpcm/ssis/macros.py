"""Jinja macros of imported DAGs: `DAG(..., user_defined_macros={"ssis": macros})`.

Each macro is a function or an operator of SSIS's expression language: `{{ ssis.text(ssis.getdate(), 30) }}` is
`(DT_WSTR,30)GETDATE()`. Arguments are Python objects or results of other macros. Strings, Booleans and DT_I4 numbers
are returned as Python objects; any other type, and a null, as a `Value`. A `Value` renders as its cast to DT_WSTR, and
a null as an empty string.

Four macros are not part of SSIS's language. `ssis.variable` reads a variable that other tasks set. `ssis.convert`
converts a decimal number, or a value in a row of a merge, to the type of a variable. `ssis.worker_paths` maps Windows
paths to paths on the worker. `read_message_file`, which has no prefix, reads the text of a mail from a file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path as _Path

from airflow_provider_smtpcm.ssis.expressions import DataType, TypeSpec, Value
from airflow_provider_smtpcm.ssis.expressions import apply_binary as _apply_binary
from airflow_provider_smtpcm.ssis.expressions import apply_unary as _apply_unary
from airflow_provider_smtpcm.ssis.expressions import call_function as _call_function
from airflow_provider_smtpcm.ssis.expressions import cast as _cast
from airflow_provider_smtpcm.ssis.expressions import to_bool as _to_bool
from airflow_provider_smtpcm.ssis.expressions import to_value as _to_value
from airflow_provider_smtpcm.ssis.live_values import convert_to_plain as convert
from airflow_provider_smtpcm.ssis.live_values import read_variable as variable
from airflow_provider_smtpcm.ssis.windows_paths import map_paths as worker_paths

__all__ = [
    "calc",
    "cast",
    "convert",
    "is_false",
    "is_true",
    "null",
    "read_message_file",
    "text",
    "truth",
    "unary",
    "variable",
    "worker_paths",
]

Result = Value | str | bool | int


def _to_result(value: Value) -> Result:
    is_plain = value.type.data_type in {DataType.WSTR, DataType.STR, DataType.BOOL, DataType.I4}
    if is_plain and isinstance(value.data, str | bool | int):
        return value.data
    return value


def calc(first: object, *rest: object) -> Result:
    """Apply binary operators from left to right: `calc(7, "/", 2, "+", 1)`; also to strings: `calc("a", "+", "b")`.

    Args:
        first: the leftmost operand.
        rest: operators and right operands, alternating.
    """
    value = _to_value(first)
    for operator, operand in zip(rest[::2], rest[1::2], strict=True):
        value = _apply_binary(str(operator), value, _to_value(operand))
    return _to_result(value)


def unary(operator: str, operand: object) -> Result:
    """Apply `!`, `-` or `~`."""
    return _to_result(_apply_unary(operator, _to_value(operand)))


def cast(value: object, type_name: str, *parameters: int) -> Result:
    """Cast a value: `cast(x, "DT_NUMERIC", 10, 2)` is `(DT_NUMERIC,10,2)x`."""
    return _to_result(_cast(_to_value(value), TypeSpec(DataType(type_name), parameters)))


def text(value: object, length: int | None = None) -> Result:
    """Cast a value to a string: `text(x, 30)` is `(DT_WSTR,30)x`.

    Args:
        value: a value of any type.
        length: maximum number of characters, to which the string is truncated; None: no limit.
    """
    return _to_result(_cast(_to_value(value), TypeSpec(DataType.WSTR, () if length is None else (length,))))


def null(like: object) -> Value:
    """Return a null.

    Args:
        like: the name of a type, such as `DT_I4`, or a value of that type.
    """
    if isinstance(like, str) and like in set(DataType):
        return Value(TypeSpec(DataType(like)), None)
    return Value(_to_value(like).type, None)


def truth(value: object) -> bool:
    """Return a DT_BOOL as a Python bool.

    Raises:
        ExpressionError: the value has another type, or is null.
    """
    return _to_bool(_to_value(value))


def is_true(value: object) -> bool:
    """Return whether a Boolean is true; False for a null."""
    converted = _to_value(value)
    return converted.data is not None and _to_bool(converted)


def is_false(value: object) -> bool:
    """Return whether a Boolean is false; False for a null."""
    converted = _to_value(value)
    return converted.data is not None and not _to_bool(converted)


def read_message_file(path: str) -> str:
    """Return the content of a text file, as SSIS reads it if MessageSourceType is FileConnection.

    Unlike the operator's `text_file`, this does not render the file as a template, because SSIS does not.

    Args:
        path: a file on the worker, in UTF-16 with a byte order mark, in UTF-8, or in Windows code page 1252.

    Raises:
        OSError: the file does not exist or cannot be read.
    """
    content = _Path(path).read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _function(name: str) -> Callable[..., Result]:
    def macro(*arguments: object) -> Result:
        return _to_result(_call_function(name, tuple(map(_to_value, arguments))))

    macro.__name__ = macro.__qualname__ = name.lower()
    macro.__doc__ = f"{name}, a function of the SSIS expression language."
    return macro


codepoint = _function("CODEPOINT")
findstring = _function("FINDSTRING")
hex = _function("HEX")  # noqa: A001 - each macro has its SSIS name
left = _function("LEFT")
len = _function("LEN")  # noqa: A001
lower = _function("LOWER")
ltrim = _function("LTRIM")
replace = _function("REPLACE")
replicate = _function("REPLICATE")
reverse = _function("REVERSE")
right = _function("RIGHT")
rtrim = _function("RTRIM")
substring = _function("SUBSTRING")
token = _function("TOKEN")
tokencount = _function("TOKENCOUNT")
trim = _function("TRIM")
upper = _function("UPPER")
abs = _function("ABS")  # noqa: A001
ceiling = _function("CEILING")
exp = _function("EXP")
floor = _function("FLOOR")
ln = _function("LN")
log = _function("LOG")
power = _function("POWER")
round = _function("ROUND")  # noqa: A001
sign = _function("SIGN")
sqrt = _function("SQRT")
square = _function("SQUARE")
dateadd = _function("DATEADD")
datediff = _function("DATEDIFF")
datepart = _function("DATEPART")
day = _function("DAY")
month = _function("MONTH")
year = _function("YEAR")
getdate = _function("GETDATE")
getutcdate = _function("GETUTCDATE")
isnull = _function("ISNULL")
replacenull = _function("REPLACENULL")
