"""The functions of SSIS that plain Jinja says as well, for texts that are there for certain; the rest are macros."""

from __future__ import annotations

from airflow_provider_smtpcm.ssis.expressions.nodes import Call, Name
from airflow_provider_smtpcm.ssis.expressions.pieces import Kind, Piece

_FILTERS = {"UPPER": "upper", "LOWER": "lower", "REVERSE": "reverse"}
_STRIP = {"TRIM": "strip", "LTRIM": "lstrip", "RTRIM": "rstrip"}


def plain_call(node: Call, arguments: list[Piece]) -> Piece | None:  # noqa: PLR0911 - one for each form
    """The call in plain Jinja; None where that would not be exactly the same."""
    if not arguments:
        return None
    first = arguments[0]
    if node.function == "ISNULL" and isinstance(node.arguments[0], Name) and first.native:
        return _piece(f"{first.closed} is none", Kind.BOOL, first, tight=False)
    if not first.is_text:
        return None
    if node.function in _FILTERS:
        return _piece(f"{first.closed} | {_FILTERS[node.function]}", Kind.TEXT, first, tight=False)
    if node.function in _STRIP:
        return _piece(f"{first.closed}.{_STRIP[node.function]}(' ')", Kind.TEXT, first)
    if node.function == "LEN":
        return _piece(f"{first.closed} | length", Kind.WHOLE, first, tight=False)
    if node.function == "REPLACE" and arguments[1].text and arguments[2].is_text:
        code = f"{first.closed} | replace({arguments[1].code}, {arguments[2].code})"
        return _piece(code, Kind.TEXT, *arguments, tight=False)
    return _slice(node.function, first, [_number(piece) for piece in arguments[1:]])


def _slice(function: str, first: Piece, numbers: list[int | None]) -> Piece | None:
    match function, numbers:
        case "LEFT", [int(count)] if count >= 0:
            part = f":{count}"
        case "RIGHT", [int(count)] if count > 0:
            part = f"-{count}:"
        case "SUBSTRING", [int(position), int(length)] if position > 0 and length >= 0:
            start = "" if position == 1 else str(position - 1)
            part = f"{start}:{position - 1 + length}"
        case _:
            return None
    return _piece(f"{first.closed}[{part}]", Kind.TEXT, first)


def _number(piece: Piece) -> int | None:
    """The number that a piece is, if it is a literal."""
    return int(piece.code) if piece.kind is Kind.WHOLE and piece.code.removeprefix("-").isdecimal() else None


def _piece(code: str, kind: Kind, *of: Piece, tight: bool = True) -> Piece:
    return Piece(code=code, kind=kind, tight=tight, depth=1 + max(piece.depth for piece in of))
