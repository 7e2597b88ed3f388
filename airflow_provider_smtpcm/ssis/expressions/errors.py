"""What can be wrong with an SSIS expression: it cannot be read, it cannot be worked out, or Jinja cannot say it."""

from __future__ import annotations

from airflow_provider_smtpcm.errors import MailError

# So much of the line is shown around the place of the fault; a body may be one line of many thousand characters.
_AROUND = 60


class ExpressionError(MailError):
    """The expression cannot be read, or it has no value: a division by zero, an overflow, a cast that cannot be.

    Args:
        message: what was found and what was expected.
        remedy: what to write instead.
        text: the expression, if the place of the fault is known.
        position: the offset of the fault in it.
    """

    def __init__(self, message: str, *, remedy: str = "", text: str | None = None, position: int | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.text = text
        self.position = position

    def __str__(self) -> str:
        said = super().__str__()
        if self.text is None or self.position is None:
            return said
        return f"{said}\n{caret_line(self.text, self.position)}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.message, self.remedy, self.text, self.position)


def _rebuild(message: str, remedy: str, text: str | None, position: int | None) -> ExpressionError:
    return ExpressionError(message, remedy=remedy, text=text, position=position)


class NotTranslatable(MailError):  # noqa: N818 - it says what is so; the expression itself is no error
    """The expression is sound, but no template can say it; `reason` says why, `remedy` what a person can do."""

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        super().__init__(reason, remedy=remedy)

    @property
    def reason(self) -> str:
        """Why it cannot be said."""
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_not_translatable, (self.message, self.remedy)


def _rebuild_not_translatable(reason: str, remedy: str) -> NotTranslatable:
    return NotTranslatable(reason, remedy=remedy)


def caret_line(text: str, position: int) -> str:
    """The line of the fault, and a caret below its place."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    line = text[start : len(text) if end < 0 else end].replace("\t", " ").replace("\r", " ")
    column = position - start
    cut = max(0, column - _AROUND)
    shown = line[cut : column + _AROUND]
    before = "…" if cut else ""
    after = "…" if column + _AROUND < len(line) else ""
    return f"    {before}{shown}{after}\n    {' ' * (column - cut + len(before))}^"
