"""Data types of the SSIS expression language, and the exceptions that its expressions raise.

See Microsoft's pages "Integration Services Data Types" and "Cast (SSIS Expression)".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_smtpcm.errors import MailError

# Characters shown on each side of the error: the expression for a mail's text may be one line of thousands.
_CARET_CONTEXT = 60


class DataType(StrEnum):
    """A data type. The value is its name in a cast, such as `DT_WSTR`."""

    I1 = "DT_I1"
    I2 = "DT_I2"
    I4 = "DT_I4"
    I8 = "DT_I8"
    UI1 = "DT_UI1"
    UI2 = "DT_UI2"
    UI4 = "DT_UI4"
    UI8 = "DT_UI8"
    R4 = "DT_R4"
    R8 = "DT_R8"
    CY = "DT_CY"
    DECIMAL = "DT_DECIMAL"
    NUMERIC = "DT_NUMERIC"
    BOOL = "DT_BOOL"
    STR = "DT_STR"
    WSTR = "DT_WSTR"
    TEXT = "DT_TEXT"
    NTEXT = "DT_NTEXT"
    DATE = "DT_DATE"
    DBDATE = "DT_DBDATE"
    DBTIME = "DT_DBTIME"
    DBTIME2 = "DT_DBTIME2"
    DBTIMESTAMP = "DT_DBTIMESTAMP"
    DBTIMESTAMP2 = "DT_DBTIMESTAMP2"
    DBTIMESTAMPOFFSET = "DT_DBTIMESTAMPOFFSET"
    FILETIME = "DT_FILETIME"
    GUID = "DT_GUID"
    BYTES = "DT_BYTES"
    IMAGE = "DT_IMAGE"


_T = DataType
# Integer types with their size in bits.
SIGNED = {_T.I1: 8, _T.I2: 16, _T.I4: 32, _T.I8: 64}
UNSIGNED = {_T.UI1: 8, _T.UI2: 16, _T.UI4: 32, _T.UI8: 64}
INTEGERS = frozenset({*SIGNED, *UNSIGNED})
FLOATS = frozenset({_T.R4, _T.R8})
EXACT = frozenset({_T.CY, _T.DECIMAL, _T.NUMERIC})
NUMBERS = INTEGERS | FLOATS | EXACT
STRINGS = frozenset({_T.STR, _T.WSTR, _T.TEXT, _T.NTEXT})
TIMES = frozenset({_T.DBTIME, _T.DBTIME2})
DATES = frozenset({_T.DATE, _T.DBDATE, _T.DBTIMESTAMP, _T.DBTIMESTAMP2, _T.DBTIMESTAMPOFFSET, _T.FILETIME})

# The parameters of each type: name, minimum, maximum.
_PARAMETERS: dict[DataType, tuple[tuple[str, int, int], ...]] = {
    _T.STR: (("the number of characters", 0, 8000), ("the code page", 0, 65535)),
    _T.WSTR: (("the number of characters", 0, 4000),),
    _T.BYTES: (("the number of bytes", 0, 8000),),
    _T.DECIMAL: (("the scale", 0, 28),),
    _T.NUMERIC: (("the precision", 1, 38), ("the scale", 0, 38)),
    _T.TEXT: (("the code page", 0, 65535),),
    _T.DBTIME2: (("the scale", 0, 7),),
    _T.DBTIMESTAMP2: (("the scale", 0, 7),),
    _T.DBTIMESTAMPOFFSET: (("the scale", 0, 7),),
}
# For types used without parameters, such as the DT_DBTIME2 of a function's result.
_DEFAULT_PARAMETERS: dict[DataType, tuple[int, ...]] = {
    _T.DBTIME2: (7,),
    _T.DBTIMESTAMP2: (7,),
    _T.DBTIMESTAMPOFFSET: (7,),
    _T.DECIMAL: (0,),
    _T.NUMERIC: (38, 0),
}


@dataclass(frozen=True, slots=True)
class TypeSpec:
    """A data type with its parameters, such as `DT_STR,30,1252`."""

    data_type: DataType
    parameters: tuple[int, ...] = ()

    @property
    def length(self) -> int | None:
        """Maximum number of characters (or bytes); None: no limit."""
        if self.data_type in {_T.STR, _T.WSTR, _T.BYTES} and self.parameters:
            return self.parameters[0]
        return None

    @property
    def scale(self) -> int:
        """Digits after the decimal point of a number, or of the seconds of a time."""
        fixed = {_T.CY: 4, _T.DBTIMESTAMP: 3, _T.FILETIME: 3, _T.DATE: 0}
        if self.data_type in fixed:
            return fixed[self.data_type]
        parameters = self.parameters or _DEFAULT_PARAMETERS.get(self.data_type, (0,))
        return parameters[-1]

    @property
    def precision(self) -> int:
        """Total number of digits of a number."""
        if self.data_type is _T.NUMERIC:
            return (self.parameters or _DEFAULT_PARAMETERS[_T.NUMERIC])[0]
        return {_T.CY: 19, _T.DECIMAL: 29}.get(self.data_type, 20 if self.data_type in {_T.I8, _T.UI8} else 10)

    def __str__(self) -> str:
        return ",".join([self.data_type.value, *map(str, self.parameters)])


WSTR = TypeSpec(DataType.WSTR)
I4 = TypeSpec(DataType.I4)
BOOL = TypeSpec(DataType.BOOL)
R8 = TypeSpec(DataType.R8)
TIMESTAMP = TypeSpec(DataType.DBTIMESTAMP)


def find_parameter_error(data_type: DataType, parameters: tuple[int, ...]) -> str | None:
    """Return why a type cannot have these parameters; None if it can."""
    expected = _PARAMETERS.get(data_type, ())
    if len(parameters) != len(expected):
        names = " and ".join(name for name, _, _ in expected) or "no parameters"
        return f"{data_type} takes {names}, not {len(parameters)} parameters"
    for (name, low, high), value in zip(expected, parameters, strict=True):
        if not low <= value <= high:
            return f"{name} of {data_type} is between {low} and {high}, not {value}"
    return None


def is_in_range(number: int, data_type: DataType) -> bool:
    """Return whether a number fits an integer type; always True for any other type."""
    if data_type in SIGNED:
        half = 1 << (SIGNED[data_type] - 1)
        return -half <= number < half
    return data_type not in UNSIGNED or 0 <= number < 1 << UNSIGNED[data_type]


class ExpressionError(MailError):
    """The expression is invalid, or its evaluation fails: division by zero, overflow, invalid cast.

    Args:
        message: what was found and what was expected.
        remedy: what to write instead.
        text: the expression, if the position of the error is known.
        position: the offset of the error in `text`, in characters.
    """

    def __init__(self, message: str, *, remedy: str = "", text: str | None = None, position: int | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.text = text
        self.position = position

    def __str__(self) -> str:
        message = super().__str__()
        if self.text is None or self.position is None:
            return message
        return f"{message}\n{_format_caret(self.text, self.position)}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_expression_error, (self.message, self.remedy, self.text, self.position)


def _rebuild_expression_error(message: str, remedy: str, text: str | None, position: int | None) -> ExpressionError:
    return ExpressionError(message, remedy=remedy, text=text, position=position)


class NotTranslatable(MailError):  # noqa: N818 - the expression itself is valid
    """The expression is valid, but has no Jinja equivalent.

    Args:
        reason: why it has none.
        remedy: what to do instead.
    """

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(reason, remedy=remedy)

    @property
    def reason(self) -> str:
        """Why the expression has no Jinja equivalent."""
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_not_translatable, (self.message, self.remedy)


def _rebuild_not_translatable(reason: str, remedy: str) -> NotTranslatable:
    return NotTranslatable(reason, remedy=remedy)


def _format_caret(text: str, position: int) -> str:
    """Return the line of the expression that contains the position, with a caret below it."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    line = text[start : len(text) if end < 0 else end].replace("\t", " ").replace("\r", " ")
    column = position - start
    cut = max(0, column - _CARET_CONTEXT)
    excerpt = line[cut : column + _CARET_CONTEXT]
    before = "…" if cut else ""
    after = "…" if column + _CARET_CONTEXT < len(line) else ""
    return f"    {before}{excerpt}{after}\n    {' ' * (column - cut + len(before))}^"
