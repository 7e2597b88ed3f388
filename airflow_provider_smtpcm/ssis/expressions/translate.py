"""The nodes of an SSIS expression as pieces of a Jinja expression."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_smtpcm.ssis.expressions.errors import NotTranslatable
from airflow_provider_smtpcm.ssis.expressions.nodes import (
    Call,
    Cast,
    Conditional,
    Expression,
    Literal,
    Name,
    Null,
    Operation,
    Unary,
)
from airflow_provider_smtpcm.ssis.expressions.pieces import (
    JinjaName,
    Kind,
    Piece,
    kind_of_type,
    literal,
    macro,
    of_name,
)
from airflow_provider_smtpcm.ssis.expressions.plain_calls import plain_call
from airflow_provider_smtpcm.ssis.expressions.rules import (
    bracketed,
    check_comparison,
    check_depth,
    common_kind,
    compares_plainly,
    number,
    plain_constant,
    sum_kind,
    truth,
)
from airflow_provider_smtpcm.ssis.expressions.template_text import quoted
from airflow_provider_smtpcm.ssis.expressions.types import STRINGS

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
