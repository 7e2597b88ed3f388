"""`questions.csv`: the questions of an import, and the answers that a person has written into it.

A person fills in the column `answer`, in any editor or in Excel, which writes semicolons in many locales. The next
import reads the file with `--answers`, and writes it again with the answers in place. A line may have several keys, one
below the other: its answer holds for each of them.
"""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.csv_dialects import read_header, read_rows, read_text
from airflow_provider_smtpcm.ssis.expressions import ExpressionError, parse
from airflow_provider_smtpcm.ssis.findings import KEEP, Question, ask_for_connection_manager
from airflow_provider_smtpcm.ssis.writing.handler_values import is_expression
from airflow_provider_smtpcm.ssis.writing.secrets import sanitize_line

#: The name of the file in the output folder.
QUESTIONS = "questions.csv"
#: The reports name at most this many packages or sources for each item, and count the others.
MAX_NAMED = 3
_MAX_DETAILS = 10
_MAX_KNOWN_DETAILS = 1_000
# What precedes the subjects and details of a question in its line.
_CONCERNS = " It concerns "
_CONNECTION_MANAGER = "connection manager "
COLUMNS = ("question", "packages", "mails", "guess", "answer", "key")
_REQUIRED = {"key", "answer"}
# The code of a finding as a key, as opposed to `variable User::X`.
_CODE = re.compile(r"[a-z]+(?:-[a-z]+)+")
# Excel takes a cell that begins with one of these for a formula.
_FORMULA_SIGNS = ("=", "+", "-", "@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer from a file.

    Args:
        text: the answer; never empty.
        question: the question as the file has it.
        location: the file and the line.
    """

    text: str = field(repr=False)
    question: str = ""
    location: str = ""


class Answers(Mapping[str, str]):
    """The answers given to an import, by the key of the question. Remembers which of them the import asked for.

    Args:
        answers: by key.
    """

    def __init__(self, answers: Mapping[str, Answer] | None = None) -> None:
        self._answers = dict(answers or {})
        self._asked: set[str] = set()

    def __getitem__(self, key: str) -> str:
        key = sanitize_line(key)
        answer = self._answers[key]
        self._asked.add(key)
        return answer.text

    def __iter__(self) -> Iterator[str]:
        return iter(self._answers)

    def __len__(self) -> int:
        return len(self._answers)

    def all(self) -> Mapping[str, Answer]:
        """Return the answers by key."""
        return self._answers

    def not_asked(self) -> dict[str, Answer]:
        """Return the answers that nothing asked for, by key."""
        return {key: answer for key, answer in self._answers.items() if key not in self._asked}

    def includes(self, other: Answers) -> bool:
        """Whether all answers of another file are among these."""
        return all(
            key in self._answers and self._answers[key].text == answer.text for key, answer in other.all().items()
        )


def read_answers(paths: Iterable[Path]) -> Answers:
    """Read files with answers.

    Raises:
        PackageError: a file cannot be read, has another encoding or other columns, or two lines give different answers
            to one question.
    """
    answers: dict[str, Answer] = {}
    for path in paths:
        for key, answer in _read_file(path):
            known = answers.setdefault(key, answer)
            if known.text != answer.text:
                raise PackageError(
                    f"{known.location} and {answer.location} give different answers to the same question, {key!r}.",
                    remedy="Delete one of the two lines.",
                )
    return Answers(answers)


def _read_file(path: Path) -> Iterator[tuple[str, Answer]]:
    """Yield the key and the answer of each line that has an answer."""
    for line, row in _read_rows(path):
        keys = [sanitize_line(key) for key in row["key"].splitlines() if key.strip()]
        text = _without_guard(row["answer"].strip())
        if not text:
            continue
        location = f"{path}, line {line}"
        if not keys:
            raise PackageError(
                f"{location}, has an answer but no key.",
                remedy="Fill in the answers in the questions.csv of an import, and leave its column 'key' as it is.",
            )
        text = KEEP if text.lower() == KEEP else text
        answer = Answer(text=text, question=sanitize_line(row.get("question", "")), location=location)
        for key in keys:
            _check_answer(key, text, location)
            yield key, answer


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the cells of each line, by the name of the column in lower case."""
    text = read_text(path)
    header = read_header(text, _REQUIRED)
    if header is None:
        raise PackageError(
            f"{path} has no columns 'key' and 'answer' in its first line.",
            remedy="Name the questions.csv of an import, with its column 'answer' filled in.",
        )
    return read_rows(path, text, *header)


def _check_answer(key: str, text: str, location: str) -> None:
    """Raise PackageError if no import can use the answer to this question."""
    if text.lower() == KEEP:
        return
    if key.startswith("path ") and not text.startswith("/"):
        raise PackageError(
            f"{location}: the answer to {key!r} is neither a path on a worker nor {KEEP}.",
            remedy="A path on a worker begins with a slash, such as /mnt/share.",
        )
    if key.startswith(("configuration sql server ", "configuration xml file ")):
        raise PackageError(
            f"{location}: {key!r} sets several values, so its answer can only be {KEEP}.",
            remedy="Give an export of the table, or the file, as a further PATH of the import.",
        )
    if key.startswith("variable ") and key.endswith(" in event handlers") and is_expression(text):
        try:
            parse(text)
        except ExpressionError as error:
            raise PackageError(
                f"{location}: the answer to {key!r} is not an SSIS expression: {error}",
                remedy='Write an expression such as @[System::ErrorDescription], or a text without @[ and ".',
            ) from error
    if _CODE.fullmatch(key):
        raise PackageError(
            f"{location}: {key!r} asks whether the DAGs may stay as they are, so its answer can only be {KEEP}.",
            remedy="If they may not, leave the answer empty, and change the DAGs.",
        )
    if key.startswith("windows authentication of ") and text.lower() != "anonymous":
        raise PackageError(
            f"{location}: the answer to {key!r} is neither {KEEP} nor anonymous.", remedy=f"Write {KEEP} or anonymous."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageQuestion:
    """A question as one package or connection asks it.

    Args:
        details: which parts of it are asked.
        answer: the answer, if it was given.
        mails: the positions of the package's mails that wait for it.
    """

    question: Question
    details: tuple[str, ...] = ()
    answer: str = ""
    mails: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedQuestion:
    """A line of `questions.csv`: a question of an import, or several with the same text, guess and answer.

    Args:
        keys: the keys of the questions.
        text: the question, with its subjects and details.
        answer: the answer that was given with `--answers`; empty if there is none.
        packages: the number of packages that ask it.
        mails: the number of enabled mails that wait for it.
        first: the source and the name of the first packages that ask it, at most `MAX_NAMED`.
    """

    keys: tuple[str, ...]
    text: str
    guess: str
    answer: str
    packages: int
    mails: int
    first: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        """The cell of the column `key`: the keys, one below the other."""
        return "\n".join(self.keys)


@dataclass(slots=True, kw_only=True)
class _Entry:
    """What is known about the question with one key.

    Args:
        packages: the numbers of the packages that ask it, in the order of the import.
        mails: the numbers of the mails that wait for it.
        more_mails: how many mails use a connection that asks it.
    """

    key: str
    text: str
    subject: str = ""
    shared_text: str = ""
    guess: str = ""
    answer: str = ""
    details: dict[str, None] = field(default_factory=dict)
    packages: array[int] = field(default_factory=lambda: array("L"))
    mails: array[int] = field(default_factory=lambda: array("L"))
    more_mails: int = 0
    first: list[tuple[str, str]] = field(default_factory=list)

    @property
    def line(self) -> tuple[str, ...]:
        """The key by which questions are merged into one line of the file."""
        if self.shared_text:
            # What no package asks is a line of its own, as it concerns none of what the packages have.
            return self.shared_text, self.guess, self.answer, "asked" if self.packages or self.more_mails else ""
        return (self.key,)


class QuestionList:
    """The questions of an import, each once. Of most packages it keeps only numbers, so that it stays small."""

    def __init__(self) -> None:
        self._by_key: dict[str, _Entry] = {}
        self._packages = 0
        self._mails = 0

    def add_package(self, source: tuple[str, str], asked: Iterable[PackageQuestion]) -> None:
        """Count a package for each of its questions.

        Args:
            source: the source and the name of the package.
            asked: its questions, each once.
        """
        count = 0
        for question in asked:
            entry = self._entry(question.question, question.details, question.answer)
            entry.packages.append(self._packages)
            entry.mails.extend(self._mails + index for index in question.mails)
            count = max(count, *question.mails, 0)
            if len(entry.first) < MAX_NAMED:
                entry.first.append(source)
        self._packages += 1
        self._mails += count + 1

    def add_connection(self, asked: Iterable[PackageQuestion], *, users: Iterable[int], mails: int) -> None:
        """Add the questions of a connection.

        Args:
            asked: its questions, each once.
            users: the number of each package that uses it.
            mails: the number of mails that use it.
        """
        for question in asked:
            entry = self._entry(question.question, question.details, question.answer)
            entry.packages.extend(users)
            entry.more_mails += mails

    def _entry(self, question: Question, details: Iterable[str], answer: str) -> _Entry:
        key = sanitize_line(question.key)
        entry = self._by_key.get(key)
        if entry is None:
            entry = self._by_key[key] = _Entry(
                key=key,
                text=sanitize_line(question.text),
                subject=sanitize_line(question.subject),
                shared_text=sanitize_line(question.shared_text),
                guess=sanitize_line(question.guess),
            )
        entry.answer = entry.answer or answer
        for detail in details:
            if len(entry.details) < _MAX_KNOWN_DETAILS:
                entry.details[sanitize_line(detail)] = None
        return entry

    def suggest(self, key: str, place: str, guess: str) -> None:
        """Add a guess to a question without an answer.

        Args:
            key: the key of the question.
            place: where the guess comes from, as a clause such as `'Mail' in Load.dtsx has this GUID`.
            guess: used if the question has no guess yet.
        """
        entry = self._by_key[key]
        entry.text += f" {place}: {guess}"
        entry.subject += f" ({place})"
        entry.guess = entry.guess or guess

    def carry_over(self, answers: Mapping[str, Answer]) -> None:
        """Add answers to questions that this import did not ask, so that the next `questions.csv` still has them."""
        for key, answer in answers.items():
            if key not in self._by_key:
                self._by_key[key] = _restore(key, answer)

    def unanswered_keys(self) -> list[str]:
        """Return the keys of the questions without an answer."""
        return [entry.key for entry in self._by_key.values() if not entry.answer]

    def all(self) -> list[AskedQuestion]:
        """Return the questions: those without an answer first, then by the number of mails that wait, descending."""
        lines: dict[tuple[str, ...], list[_Entry]] = {}
        for entry in self._by_key.values():
            lines.setdefault(entry.line, []).append(entry)
        return sorted(
            map(_merge, lines.values()),
            key=lambda asked: (bool(asked.answer), -asked.mails, -asked.packages, asked.keys),
        )

    def unanswered(self) -> list[AskedQuestion]:
        """Return the questions without an answer, by the number of mails that wait for them, descending."""
        return [asked for asked in self.all() if not asked.answer]

    def to_csv(self) -> str:
        """Return the text of `questions.csv`; empty if there is no question."""
        questions = self.all()
        if not questions:
            return ""
        # Excel reads a file as UTF-8 only if it begins with a byte order mark.
        file = io.StringIO("\ufeff", newline="")
        file.seek(0, io.SEEK_END)
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for asked in questions:
            text, guess = _as_text(asked.text), _as_text(asked.guess)
            writer.writerow((text, asked.packages, asked.mails, guess, asked.answer, asked.key))
        return file.getvalue()


def _restore(key: str, answer: Answer) -> _Entry:
    """Return a question that this import did not ask, without what its line named in an earlier import."""
    if key.startswith(_CONNECTION_MANAGER):
        asked = ask_for_connection_manager(key.removeprefix(_CONNECTION_MANAGER))
        text, subject, shared_text = asked.text, asked.subject, asked.shared_text
    else:
        text, subject = answer.question.partition(_CONCERNS)[0], key
        shared_text = text
    return _Entry(key=key, text=text, subject=subject, shared_text=shared_text, answer=answer.text)


def _merge(entries: Sequence[_Entry]) -> AskedQuestion:
    """Return the line for questions whose `_Entry.line` is the same."""
    entries = sorted(entries, key=lambda entry: entry.key)
    first = entries[0]
    if len(entries) == 1:
        text, subjects = first.text, list(first.details)
    else:
        text = first.shared_text
        subjects = [_with_details(entry) for entry in entries if entry.subject]
    if subjects:
        text += f"{_CONCERNS}{_enumerate(subjects)}."
    return AskedQuestion(
        keys=tuple(entry.key for entry in entries),
        text=text,
        guess=first.guess,
        answer=first.answer,
        packages=_count(entry.packages for entry in entries),
        mails=_count(entry.mails for entry in entries) + sum(entry.more_mails for entry in entries),
        first=tuple(dict.fromkeys(source for entry in entries for source in entry.first))[:MAX_NAMED],
    )


def _with_details(entry: _Entry) -> str:
    return f"{entry.subject} ({_enumerate(list(entry.details))})" if entry.details else entry.subject


def _enumerate(things: Sequence[str]) -> str:
    more = f" and {len(things) - _MAX_DETAILS:,} more" if len(things) > _MAX_DETAILS else ""
    return ", ".join(things[:_MAX_DETAILS]) + more


def _count(numbers: Iterable[array[int]]) -> int:
    return len(set(chain.from_iterable(numbers)))


def is_replaceable(path: Path, answers: Answers) -> bool | None:
    """Whether a `questions.csv` may be replaced, even if it was edited: if all its answers were given to this import.

    Args:
        path: the file in the output folder.
        answers: the answers given to this import.

    Returns:
        True: it has no other answers. False: it has others, or cannot be read. None: it has additional columns.
    """
    try:
        columns = {name for _, row in _read_rows(path) for name in row}
        if not answers.includes(read_answers([path])):
            return False
    except PackageError:
        return False
    return True if columns <= {*COLUMNS, ""} else None


def _as_text(cell: str) -> str:
    """Return a cell that Excel does not take for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA_SIGNS) else cell


def _without_guard(cell: str) -> str:
    """Return a cell without the apostrophe that an import has put before it: a copied guess, or an earlier answer."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA_SIGNS) else cell


def describe_keys(keys: Collection[str]) -> str:
    """Return the first keys and the number of the others: `'a', 'b', 'c' and 2 more`."""
    more = f" and {len(keys) - MAX_NAMED} more" if len(keys) > MAX_NAMED else ""
    return ", ".join(map(repr, list(keys)[:MAX_NAMED])) + more
