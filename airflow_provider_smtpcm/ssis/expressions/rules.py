"""What the translation of an SSIS expression goes by: what is constant, what is plain, and how deep Jinja can read."""

from __future__ import annotations

from airflow_provider_smtpcm.ssis.expressions.errors import ExpressionError, NotTranslatable
from airflow_provider_smtpcm.ssis.expressions.evaluate import evaluate
from airflow_provider_smtpcm.ssis.expressions.nodes import Call, Cast, Expression, Literal, Name, Null, walk
from airflow_provider_smtpcm.ssis.expressions.pieces import Kind, Piece, macro
from airflow_provider_smtpcm.ssis.expressions.types import TIMES, DataType
from airflow_provider_smtpcm.ssis.expressions.values import Value

# Python's own parser of what Jinja compiles gives up a little beyond that.
MAX_JINJA_DEPTH = 22
_LONGEST = 10_000


def check_depth(piece: Piece) -> None:
    """Refuses what Jinja cannot read."""
    if piece.depth > MAX_JINJA_DEPTH:
        raise NotTranslatable(
            f"The expression is nested {piece.depth} levels deep, and Jinja reads {MAX_JINJA_DEPTH}.",
            remedy="Work it out in a task before the mail, and pass the result on by XCom.",
        )


def constant_value(node: Expression) -> Value | None:
    """What a node always is; None: that depends on a variable or on the time."""
    if not isinstance(node, Literal):
        for found in walk(node):
            # A time becomes a date by taking today's.
            today = isinstance(found, Cast) and found.type.type in TIMES
            if today or isinstance(found, Name) or (isinstance(found, Call) and found.function.startswith("GET")):
                return None
    try:
        return evaluate(node)
    except ExpressionError as error:
        remedy = f"{error.remedy} It fails in SSIS too.".strip()
        raise NotTranslatable(f"The expression always fails: {error.message}", remedy=remedy) from None


def plain_constant(node: Expression) -> str | bool | int | None:
    """What a node always is, if that is a text, a Boolean or a number of DT_I4."""
    value = None if isinstance(node, Null) else constant_value(node)
    if value is None:
        return None
    plain = value.type.type in {DataType.WSTR, DataType.STR, DataType.BOOL, DataType.I4}
    if not plain or not isinstance(value.data, str | bool | int):
        return None
    short = isinstance(node, Literal) or len(str(value.data)) <= _LONGEST
    return value.data if short else None


def number(node: Literal) -> Piece:
    """A number of another type than DT_I4."""
    type_ = [f"'{node.type.type}'", *map(str, node.type.parameters)]
    return macro("cast", f"'{node.value}'", *type_, kind=Kind.NUMBER, nullable=False, native=False)


def compares_plainly(sign: str, left: Piece, right: Piece) -> bool:
    """Whether Python's own comparison is SSIS's."""
    if not (left.plain and right.plain):
        return False
    kinds = {left.kind, right.kind}
    if len(kinds) == 1:
        allowed = {Kind.TEXT, Kind.WHOLE, Kind.BOOL} if sign in {"==", "!="} else {Kind.TEXT, Kind.WHOLE}
        return kinds <= allowed
    # A variable of unknown type has the type of what it is compared with, or the package would not run.
    return sign in {"==", "!="} and Kind.UNKNOWN in kinds and bool(kinds & {Kind.TEXT, Kind.WHOLE, Kind.BOOL})


def check_comparison(sign: str, kinds: set[Kind]) -> None:
    """Refuses what SSIS cannot compare."""
    numbers = kinds & {Kind.WHOLE, Kind.NUMBER, Kind.BOOL}
    if Kind.TEXT in kinds and numbers:
        raise NotTranslatable(f"{sign} cannot compare a text with {numbers.pop()}.", remedy="Cast one of them.")


def sum_kind(signs: list[str], pieces: list[Piece]) -> Kind:
    """What `+` and its like give."""
    if set(signs) == {"+"} and any(piece.kind is Kind.TEXT for piece in pieces):
        return Kind.TEXT
    if set(signs) == {"+"} and any(piece.kind is Kind.UNKNOWN for piece in pieces):
        return Kind.UNKNOWN
    return Kind.NUMBER


def truth(piece: Piece) -> Piece:
    """The piece as a Boolean of Python."""
    if piece.plain and piece.kind is Kind.BOOL:
        return piece
    if piece.nullable and piece.kind is Kind.BOOL:
        return piece  # tested for null before
    return macro("truth", piece, kind=Kind.BOOL, nullable=False)


def bracketed(piece: Piece) -> Piece:
    """The piece in parentheses, which anything can follow."""
    return Piece(code=piece.closed, kind=piece.kind, nullable=piece.nullable, native=piece.native, depth=piece.depth)


def common_kind(one: Kind, other: Kind) -> Kind:
    """What a choice between two gives."""
    if one is other:
        return one
    if {one, other} == {Kind.WHOLE, Kind.NUMBER}:
        return Kind.NUMBER
    # Both have to be texts where one is: the other is a variable of unknown type.
    return Kind.TEXT if Kind.TEXT in {one, other} and Kind.UNKNOWN in {one, other} else Kind.UNKNOWN
