"""What templates of an imported DAG know as `ssis`: `DAG(..., user_defined_macros={"ssis": macros})`.

Each does what the function or operator of SSIS's expression language does, by the same code that evaluates an
expression: `{{ ssis.text(ssis.getdate(), 30) }}` is `(DT_WSTR,30)GETDATE()`. Arguments are values of Python or of other
macros. A text, a Boolean and a number of DT_I4 come back as Python's own, anything else as a value that prints as SSIS
prints it; a null prints as nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_smtpcm.ssis.expressions.casts import cast as _cast
from airflow_provider_smtpcm.ssis.expressions.functions import call as _call
from airflow_provider_smtpcm.ssis.expressions.operators import binary as _binary
from airflow_provider_smtpcm.ssis.expressions.operators import unary as _unary
from airflow_provider_smtpcm.ssis.expressions.types import DataType, TypeSpec
from airflow_provider_smtpcm.ssis.expressions.values import Value
from airflow_provider_smtpcm.ssis.expressions.values import truth as _truth
from airflow_provider_smtpcm.ssis.expressions.values import value_of as _value_of

__all__ = ["calc", "cast", "is_false", "is_true", "null", "text", "truth", "unary"]

Result = Value | str | bool | int


def _result(value: Value) -> Result:
    plain = value.type.type in {DataType.WSTR, DataType.STR, DataType.BOOL, DataType.I4}
    if plain and isinstance(value.data, str | bool | int):
        return value.data
    return value


def calc(first: object, *rest: object) -> Result:
    """Operators from left to right: `calc(7, "/", 2, "+", 1)`; texts and dates too: `calc("a", "+", "b")`."""
    value = _value_of(first)
    for sign, operand in zip(rest[::2], rest[1::2], strict=True):
        value = _binary(str(sign), value, _value_of(operand))
    return _result(value)


def unary(sign: str, operand: object) -> Result:
    """`!`, `-` or `~` before a value."""
    return _result(_unary(sign, _value_of(operand)))


def cast(value: object, type_name: str, *parameters: int) -> Result:
    """The cast operator: `cast(x, "DT_NUMERIC", 10, 2)` is `(DT_NUMERIC,10,2)x`."""
    return _result(_cast(_value_of(value), TypeSpec(DataType(type_name), parameters)))


def text(value: object, length: int | None = None) -> Result:
    """A cast to text: `text(x, 30)` is `(DT_WSTR,30)x`, cut after so many characters; without a length, uncut."""
    return _result(_cast(_value_of(value), TypeSpec(DataType.WSTR, () if length is None else (length,))))


def null(like: object) -> Value:
    """A null, of a type by its name, or of the type that a value has."""
    if isinstance(like, str) and like in set(DataType):
        return Value(TypeSpec(DataType(like)), None)
    return Value(_value_of(like).type, None)


def truth(value: object) -> bool:
    """The Boolean that a value is; anything else is an error."""
    return _truth(_value_of(value))


def is_true(value: object) -> bool:
    """Whether a Boolean is true, and neither false nor null."""
    found = _value_of(value)
    return found.data is not None and _truth(found)


def is_false(value: object) -> bool:
    """Whether a Boolean is false, and neither true nor null."""
    found = _value_of(value)
    return found.data is not None and not _truth(found)


def _function(name: str) -> Callable[..., Result]:
    def macro(*arguments: object) -> Result:
        return _result(_call(name, tuple(map(_value_of, arguments))))

    macro.__name__ = macro.__qualname__ = name.lower()
    macro.__doc__ = f"{name} of SSIS's expression language."
    return macro


codepoint = _function("CODEPOINT")
findstring = _function("FINDSTRING")
hex = _function("HEX")  # noqa: A001 - each has the name that SSIS gives it
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
