"""What an import reports about one place in a package: notes, decisions to make, and errors.

A decision asks a question. Equal questions of all packages are one line of `questions.csv`. Its answer, given to the
next import, turns the decision into a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

#: The answer that accepts the DAG, or the connection, as it is.
KEEP = "keep"
#: In the `where` of a finding about a connection manager, this precedes its name.
CONNECTION_MANAGERS = "Connection managers\\"


class Severity(StrEnum):
    """How urgent a finding is."""

    NOTE = "note"  # for information
    DECISION = "decision"  # needs a decision or a change by hand
    ERROR = "error"  # could not be read or written


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a person has to answer for a decision. Equal questions of a whole import are asked once.

    Args:
        key: identifies the question in every import, such as `variable User::To` or `path D:`. It does not depend on
            where a package is.
        text: the question as a sentence, with the answers that are possible.
        guess: the answer that the DAG uses until a person gives one; empty if there is none.
        detail: which part of the question a package asks, such as a filter; `questions.csv` lists them.
        subject: what the question is about, such as a GUID; empty if it cannot be merged with others.
        shared_text: the text for several subjects. Questions with the same shared text, guess and answer are one line
            of `questions.csv`, which lists their subjects.
    """

    key: str
    text: str = field(compare=False)
    guess: str = field(default="", compare=False)
    detail: str = field(default="", compare=False)
    subject: str = field(default="", compare=False)
    shared_text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    r"""A note, a decision to make, or an error, about one place in a package.

    Args:
        code: stable identifier, such as `dangling-connection-manager`.
        where: SSIS path, such as `Package\Sequence\Send Mail`.
        text: what was found.
        remedy: what to do.
        question: what a decision asks, or what was answered if this is a note; None for other notes, and for errors.
        answer: the answer to the question; empty if there is none.
    """

    code: str
    severity: Severity
    where: str
    text: str
    remedy: str = ""
    question: Question | None = None
    answer: str = field(default="", repr=False)


class Findings:
    """Collects findings in order; equal ones count once.

    Args:
        answers: the answers of `questions.csv`, by the key of the question; empty ones are left out.
    """

    def __init__(self, answers: Mapping[str, str] | None = None) -> None:
        self._answers = answers or {}
        self._all: dict[Finding, None] = {}

    def answer(self, key: str) -> str | None:
        """Return the answer to a question, or None if there is none."""
        return self._answers.get(key)

    def value(self, key: str) -> str | None:
        """Return the answer to a question if it is a value; None if it is `keep`, or if there is none."""
        answer = self.answer(key)
        return None if answer is None or answer.lower() == KEEP else answer

    def find_values(self, prefix: str) -> dict[str, str]:
        """Return the answers, other than `keep`, to questions whose keys begin with a prefix, by rest of the key."""
        keys = [key for key in self._answers if key.startswith(prefix)]
        return {key.removeprefix(prefix): value for key in keys if (value := self.value(key)) is not None}

    def note(self, code: str, where: str, text: str, remedy: str = "") -> None:
        """Add a finding that needs no action."""
        self.add(Finding(code=code, severity=Severity.NOTE, where=where, text=text, remedy=remedy))

    def decision(self, code: str, where: str, text: str, remedy: str, question: Question | None = None) -> None:
        """Add a finding that requires a decision or a change by hand; once it is answered, it is a note.

        Args:
            question: what to ask; None: whether the DAGs may stay as they are, once for all findings with this code.
        """
        severity = Severity.DECISION
        self.add(Finding(code=code, severity=severity, where=where, text=text, remedy=remedy, question=question))

    def add(self, finding: Finding) -> None:
        """Add a finding, with the default question if it is a decision without one."""
        self._all[apply_answer(finding, self._answers)] = None

    def __len__(self) -> int:
        return len(self._all)

    def truncate(self, length: int) -> None:
        """Drop all but the first `length` findings, to undo a translation that failed."""
        self._all = dict(list(self._all.items())[:length])

    def all(self) -> tuple[Finding, ...]:
        """Return the findings in the order in which they were added."""
        return tuple(self._all)


def ask_for_connection_manager(reference: str, guess: str = "") -> Question:
    """Return the question that asks which connection manager a task means if none has the GUID in the task.

    Args:
        reference: the GUID in the task.
        guess: the name of the connection manager that is used until the question is answered; empty: none.
    """
    how = (
        "Answer with the name of an SMTP connection manager of the package or its project, with a mail server, or with "
        "a connection string such as SmtpServer=mail.corp.example;EnableSsl=True. Answer "
        f"{KEEP} for the guess or, without a guess, for the connection in the DAG."
    )
    return Question(
        key=f"connection manager {reference.upper()}",
        text=f"Which SMTP connection manager has the GUID {reference}? It is in neither the package nor its project. "
        f"{how}",
        guess=guess,
        subject=reference.upper(),
        shared_text="Tasks refer to an SMTP connection manager by a GUID that is in neither their package nor its "
        f"project. Which one is it? {how}",
    )


def apply_answer(finding: Finding, answers: Mapping[str, str]) -> Finding:
    """Return a decision with its question; if that is answered, return it as a note that quotes the answer."""
    if finding.severity is not Severity.DECISION:
        return finding if finding.question is None else replace(finding, question=None)
    question = finding.question or _default_question(finding)
    answer = answers.get(question.key)
    return Finding(
        code=finding.code,
        severity=Severity.DECISION if answer is None else Severity.NOTE,
        where=finding.where,
        text=finding.text if answer is None else finding.text + quote_answer(answer),
        remedy=finding.remedy if answer is None else "",
        question=question,
        answer=answer or "",
    )


def quote_answer(answer: str) -> str:
    """Return the sentence that follows the text of a decision once it is answered."""
    return f" The answer in questions.csv: {answer}."


def _default_question(finding: Finding) -> Question:
    """Return the question that asks whether the DAGs may stay as they are, one for all findings with this code.

    It has no text: `report.entries` adds the one for its code.
    """
    return Question(key=finding.code, text="", guess=KEEP)
