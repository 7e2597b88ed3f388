"""The nodes of an SSIS expression as pieces of a Jinja expression."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_smtpcm.ssis.expressions.evaluate import evaluate
from airflow_provider_smtpcm.ssis.expressions.parser import (
    Call,
    Cast,
    Conditional,
    Expression,
    Literal,
    Name,
    Null,
    Operation,
    Unary,
    walk,
)
from airflow_provider_smtpcm.ssis.expressions.pieces import (
    JinjaName,
    Kind,
    Piece,
    kind_of_type,
    literal,
    macro,
    of_name,
    quoted,
)
from airflow_provider_smtpcm.ssis.expressions.types import STRINGS, TIMES, DataType, ExpressionError, NotTranslatable
from airflow_provider_smtpcm.ssis.expressions.values import Value

# folded: What the translation of an SSIS expression goes by: what is constant, what is plain, and how deep Jinja can
#   read.

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


# folded: The functions of SSIS that plain Jinja says as well, for texts that are there for certain; the rest are
#   macros.

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


# folded: here began the module itself

NOW = (
    "GETDATE() is the moment at which the mail is made, in the local time of the Airflow worker, which often is UTC; "
    "SSIS took that of its server."
)
_UTC = "GETUTCDATE() is the moment at which the mail is made."
_COMPARE = {"==", "!=", "<", ">", "<=", ">="}
_LOGIC = {"&&": "and", "||": "or"}
_RESULTS = {
    **dict.fromkeys(
        ["FINDSTRING", "LEN", "TOKENCOUNT", "SIGN", "DATEDIFF", "DATEPART", "DAY", "MONTH", "YEAR"], Kind.WHOLE
    ),
    **dict.fromkeys(["CODEPOINT", "ABS", "CEILING", "EXP", "FLOOR", "LN", "LOG", "POWER", "ROUND"], Kind.NUMBER),
    **dict.fromkeys(["SQRT", "SQUARE"], Kind.NUMBER),
    **dict.fromkeys(["DATEADD", "GETDATE", "GETUTCDATE"], Kind.DATE),
    "ISNULL": Kind.BOOL,
}
_MAY_BE_NULL = {"CODEPOINT", "LN", "LOG", "POWER"}


class Translator:
    """Translates nodes, and gathers what a reader has to know."""

    def __init__(self, resolve: Callable[[str], JinjaName | str | None]) -> None:
        self._resolve = resolve
        self.notes: list[str] = []

    def piece(self, node: Expression) -> Piece:  # noqa: PLR0911 - one for each node
        """What a node is in Jinja."""
        if (constant := plain_constant(node)) is not None:
            return literal(constant)
        match node:
            case Literal():
                return number(node)
            case Null():
                kind = kind_of_type(node.type.type)
                return macro("null", f"'{node.type.type}'", kind=kind, nullable=True, native=False)
            case Name():
                return self._name(node)
            case Cast():
                return self._cast(node)
            case Unary():
                return self._unary(node)
            case Operation():
                return self._operation(node)
            case Conditional():
                return self._conditional(node)
            case Call():
                return self._call(node)

    def _name(self, node: Name) -> Piece:
        found = self._resolve(node.name)
        if found is None:
            raise NotTranslatable(
                f"Nothing in Airflow is what the variable {node.name} is.",
                remedy="Write the value into the DAG by hand.",
            )
        if isinstance(found, str):
            found = JinjaName(text=found)
        if found.note:
            self.notes.append(found.note)
        return of_name(found)

    def _cast(self, node: Cast) -> Piece:
        inner = self.piece(node.operand)
        if node.type.type in STRINGS:
            length = node.type.length
            if inner.is_text:
                cut = "" if length is None else f"[:{length}]"
                return Piece(code=f"{inner.closed}{cut}" if cut else inner.code, kind=Kind.TEXT, depth=inner.depth + 1)
            size = [] if length is None else [str(length)]
            return macro("text", inner, *size, kind=Kind.TEXT, nullable=inner.nullable)
        type_ = [f"'{node.type.type}'", *map(str, node.type.parameters)]
        kind = kind_of_type(node.type.type)
        native = kind in {Kind.BOOL, Kind.WHOLE}
        return macro("cast", inner, *type_, kind=kind, nullable=inner.nullable, native=native)

    def _unary(self, node: Unary) -> Piece:
        inner = self.piece(node.operand)
        if node.operator == "!" and inner.plain and inner.kind is Kind.BOOL:
            return Piece(code=f"not {inner.closed}", kind=Kind.BOOL, tight=False, depth=inner.depth + 1)
        kind = Kind.BOOL if node.operator == "!" else Kind.NUMBER
        sign = quoted(node.operator)
        native = kind is Kind.BOOL
        return macro("unary", sign, inner, kind=kind, nullable=inner.nullable, native=native)

    def joins(self, pieces: list[Piece]) -> bool:
        """Whether `+` between these joins texts that are there for certain."""
        kinds = {piece.kind for piece in pieces}
        if Kind.TEXT not in kinds:
            return False
        if wrong := kinds - {Kind.TEXT, Kind.DATE, Kind.UNKNOWN}:
            raise NotTranslatable(
                f"+ cannot join a text and {wrong.pop()}; it fails in SSIS too.",
                remedy="Cast it to a text: (DT_WSTR,20)…",
            )
        return not any(piece.nullable for piece in pieces)

    def _operation(self, node: Operation) -> Piece:
        signs = [sign for sign, _, _ in node.rest]
        pieces = [self.piece(node.first), *(self.piece(right) for _, right, _ in node.rest)]
        if signs[0] in _LOGIC:
            return self._logic(signs[0], pieces)
        depth = 1 + max(piece.depth for piece in pieces)
        if set(signs) == {"+"} and self.joins(pieces):
            code = " ~ ".join(piece.closed for piece in pieces)
            return Piece(code=code, kind=Kind.TEXT, tight=False, depth=depth)
        if len(pieces) == 2 and signs[0] in _COMPARE and compares_plainly(signs[0], *pieces):
            code = f"{pieces[0].closed} {signs[0]} {pieces[1].closed}"
            return Piece(code=code, kind=Kind.BOOL, tight=False, depth=depth)
        if signs[0] in _COMPARE:
            check_comparison(signs[0], {piece.kind for piece in pieces})
        arguments: list[Piece | str] = [pieces[0]]
        for sign, piece in zip(signs, pieces[1:], strict=True):
            arguments += [quoted(sign), piece]
        kind = Kind.BOOL if signs[0] in _COMPARE else sum_kind(signs, pieces)
        nullable = any(piece.nullable for piece in pieces)
        native = kind in {Kind.BOOL, Kind.TEXT}
        return macro("calc", *arguments, kind=kind, nullable=nullable, native=native)

    def _logic(self, sign: str, pieces: list[Piece]) -> Piece:
        """`&&` and `||`, whose right side is looked at only where the left one does not decide."""
        word = _LOGIC[sign]
        result = pieces[-1]
        if all(not piece.nullable for piece in pieces):
            truths = [truth(piece) for piece in pieces]
            code = f" {word} ".join(piece.closed for piece in truths)
            depth = len(pieces) // 4 + max(piece.depth for piece in truths)
            return Piece(code=code, kind=Kind.BOOL, tight=False, depth=depth)
        for piece in reversed(pieces[:-1]):
            rest = macro("calc", piece, quoted(sign), result, kind=Kind.BOOL, nullable=True)
            decided = "false" if sign == "&&" else "true"
            code = f"{decided} if ssis.is_{decided}({piece.code}) else {rest.code}"
            result = Piece(code=code, kind=Kind.BOOL, nullable=True, tight=False, depth=rest.depth + 1)
            result = bracketed(result)
            # It holds the left side twice: what is nested too deep is not written out first.
            check_depth(result)
        return result

    def condition(self, node: Expression) -> str | None:
        """The test of an `{% if %}`; None where it may be null, and chooses nothing."""
        piece = self.piece(node)
        check_depth(piece)
        return None if piece.nullable else truth(piece).code

    def _conditional(self, node: Conditional) -> Piece:
        result = self.piece(node.otherwise)
        for test_node, chosen_node in reversed(node.arms):
            test, chosen = self.piece(test_node), self.piece(chosen_node)
            kind = common_kind(chosen.kind, result.kind)
            depth = 1 + max(test.depth, chosen.depth, result.depth)
            code = f"{chosen.closed} if {truth(test).closed} else {result.closed}"
            if test.nullable:
                # It holds the test and the choice twice.
                check_depth(test)
                check_depth(chosen)
                code = f"ssis.null({chosen.code}) if ssis.isnull({test.code}) else ({code})"
            result = Piece(
                code=code,
                kind=kind,
                nullable=test.nullable or chosen.nullable or result.nullable,
                native=chosen.native and result.native,
                tight=False,
                depth=depth + (1 if test.nullable else 0),
            )
        return result

    def _call(self, node: Call) -> Piece:
        if node.function in {"GETDATE", "GETUTCDATE"}:
            self.notes.append(NOW if node.function == "GETDATE" else _UTC)
        arguments = [self.piece(argument) for argument in node.arguments]
        if plain := plain_call(node, arguments):
            return plain
        kind = _RESULTS.get(node.function, Kind.TEXT)
        nullable = node.function in _MAY_BE_NULL or any(piece.nullable for piece in arguments)
        if node.function == "ISNULL":
            nullable = False
        elif node.function in {"REPLACENULL", "TOKENCOUNT"}:
            # Neither asks whether the first is null.
            kind = arguments[0].kind if node.function == "REPLACENULL" else kind
            nullable = arguments[1].nullable
        native = kind in {Kind.TEXT, Kind.WHOLE, Kind.BOOL}
        return macro(node.function.lower(), *arguments, kind=kind, nullable=nullable, native=native)
