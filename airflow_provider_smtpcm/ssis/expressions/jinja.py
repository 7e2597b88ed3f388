"""Says an SSIS expression as a Jinja template: literals as text, plain Jinja where that does the same, else our macros.

`"Failed: " + @[System::PackageName] + " at " + (DT_WSTR,30)GETDATE()` becomes
`Failed: {{ dag.dag_id }} at {{ ssis.text(ssis.getdate(), 30) }}`; `ssis` is `airflow_provider_smtpcm.ssis.macros`.
Rendering gives what `evaluate` gives, and nothing for a null.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_smtpcm.ssis.expressions.parser import Conditional, Expression, Operation, parse
from airflow_provider_smtpcm.ssis.expressions.pieces import JinjaName, Kind, Piece, protected
from airflow_provider_smtpcm.ssis.expressions.translate import Translator, check_depth, constant_value
from airflow_provider_smtpcm.ssis.expressions.types import NotTranslatable

__all__ = ["JinjaName", "Translation", "condition_to_jinja", "protected", "to_jinja"]

_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """A template.

    Args:
        template: the whole text of it.
        is_template: whether there is anything for Jinja in it; false: it is plain text.
        text: what of it stands outside of braces, and the literals within.
        uses_macros: whether the DAG needs `user_defined_macros={"ssis": macros}`.
        notes: what a reader has to know, one sentence or two each.
    """

    template: str
    is_template: bool
    text: str
    uses_macros: bool
    notes: tuple[str, ...]


def to_jinja(expression: str | Expression, resolve: Callable[[str], JinjaName | str | None]) -> Translation:
    """The template that says an expression.

    Args:
        expression: its text, or its tree.
        resolve: gives what a variable is in a template (its Jinja expression, without braces), by the name that the
            expression gives it; None: nothing.

    Raises:
        ExpressionError: it cannot be read.
        NotTranslatable: no template says it.
    """
    tree = parse(expression) if isinstance(expression, str) else expression
    translator = Translator(resolve)
    parts = _Parts()
    _write(parts, translator, tree)
    template, is_template = parts.template()
    notes = tuple(dict.fromkeys(translator.notes))
    return Translation(
        template=template,
        is_template=is_template,
        text=parts.written_text(),
        uses_macros=parts.uses_macros,
        notes=notes,
    )


class _Parts:
    """The template as it grows: runs of text, and what Jinja does."""

    __slots__ = ("_parts", "uses_macros")

    def __init__(self) -> None:
        self._parts: list[tuple[bool, str]] = []
        self.uses_macros = False

    def text(self, text: str) -> None:
        """Text as it is."""
        if self._parts and not self._parts[-1][0]:
            text = self._parts.pop()[1] + text
        self._parts.append((False, text))

    def code(self, piece: Piece) -> None:
        """What an expression prints."""
        if piece.text is not None:
            self.text(piece.text)
            return
        check_depth(piece)
        # None would be written out by its name.
        by_name = piece.nullable and piece.native and not piece.code.startswith("ssis.")
        self.statement("{{ ", f"ssis.text({piece.code})" if by_name else piece.code, " }}")

    def statement(self, start: str, code: str, end: str) -> None:
        """Something in braces."""
        self.uses_macros = self.uses_macros or "ssis." in code
        self._parts.append((True, f"{start}{code}{end}"))

    def written_text(self) -> str:
        """The runs of text, and the literals in braces."""
        return "".join("".join(_LITERAL.findall(part)) if code else part for code, part in self._parts)

    def template(self) -> tuple[str, bool]:
        """The whole text, and whether Jinja has anything to do in it."""
        last = len(self._parts) - 1
        done = [part if code else protected(part, ends=index == last) for index, (code, part) in enumerate(self._parts)]
        plain = "".join(part.replace("\r\n", "\n") for _, part in self._parts)
        template = "".join(done)
        return template, any(code for code, _ in self._parts) or template != plain


def _write(parts: _Parts, translator: Translator, node: Expression) -> None:
    """A node at the outermost level, where texts can stand outside of the braces."""
    if (value := constant_value(node)) is not None:
        parts.text(str(value))
        return
    if isinstance(node, Operation) and all(sign == "+" for sign, _, _ in node.rest):
        operands = (node.first, *(right for _, right, _ in node.rest))
        pieces = [translator.piece(operand) for operand in operands]
        if translator.joins(pieces):
            for operand, piece in zip(operands, pieces, strict=True):
                if _is_long(operand):
                    _write(parts, translator, operand)
                else:
                    parts.code(piece)
            return
    if isinstance(node, Conditional) and (block := _block(translator, node)):
        word = "if"
        for test, chosen in block:
            parts.statement("{% ", f"{word} {test}", " %}")
            _write(parts, translator, chosen)
            word = "elif"
        parts.statement("{% ", "else", " %}")
        _write(parts, translator, node.otherwise)
        parts.statement("{% ", "endif", " %}")
        return
    parts.code(translator.piece(node))


def _is_long(node: Expression) -> bool:
    """What reads better in pieces: a chain, or a choice between chains."""
    if isinstance(node, Conditional):
        return len(node.arms) > 1 or any(_is_long(part) for part in (node.arms[0][1], node.otherwise))
    return isinstance(node, Operation) and all(sign == "+" for sign, _, _ in node.rest)


def _block(translator: Translator, node: Conditional) -> list[tuple[str, Expression]] | None:
    """The tests of a choice that is written as `{% if %}`; None where it is not."""
    if not _is_long(node):
        return None
    tests = [translator.condition(test) for test, _ in node.arms]
    if any(test is None for test in tests):
        return None
    return [(test, chosen) for test, (_, chosen) in zip(tests, node.arms, strict=True) if test is not None]


def condition_to_jinja(expression: str | Expression, resolve: Callable[[str], JinjaName | str | None]) -> str:
    """A Boolean expression as a Jinja expression without braces, for an `if`.

    Raises:
        ExpressionError: it cannot be read.
        NotTranslatable: no template says it, or it is no Boolean.
    """
    tree = parse(expression) if isinstance(expression, str) else expression
    translator = Translator(resolve)
    piece = translator.piece(tree)
    if piece.kind not in {Kind.BOOL, Kind.UNKNOWN}:
        raise NotTranslatable(f"The condition gives {piece.kind}, no Boolean.", remedy="Compare it with something.")
    check_depth(piece)
    return piece.code if piece.plain and piece.kind is Kind.BOOL else f"ssis.is_true({piece.code})"
