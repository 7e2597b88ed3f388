"""Errors quoted on the troubleshooting page are those of the code: each fixed part is in one message of the package."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from airflow_provider_smtpcm.smtp import outcome
from airflow_provider_smtpcm.smtp.auth import kerberos_errors, remedies
from tests.documents.pages import DOCS, ROOT, text_of

PAGE = DOCS / "troubleshooting.md"
#: Stands for a value that a message inserts.
HOLE = "…"


def literal(node: ast.AST) -> str | None:
    """Return the text of a literal, with a hole for each value that is filled in; None for anything else."""
    match node:
        case ast.Constant(value=str() as text):
            # A template of `str.format` has its holes in braces.
            return re.sub(r"\{\w+\}", HOLE, text)
        case ast.JoinedStr(values=parts):
            return "".join(literal(part) or HOLE for part in parts)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return (literal(left) or HOLE) + (literal(right) or HOLE)
    return None


@cache
def messages() -> list[str]:
    """Return every text in the package's code but the docstrings."""
    found = []
    for path in sorted((ROOT / "airflow_provider_smtpcm").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        texts = (literal(node) for node in ast.walk(tree) if id(node) not in docstrings)
        found += [text for text in texts if text]
    return found


def quotes() -> list[str]:
    """Return the quotes in the first column of the tables."""
    found = []
    for row in re.findall(r"^\| (.*?) \| ", text_of(PAGE), re.MULTILINE):
        found += re.findall(r"`([^`]+)`", row)
    return found


def compile_quote(quote: str) -> re.Pattern[str]:
    """Return a pattern for text that has all the fixed parts of the quote, in their order."""
    parts = [re.escape(part) for part in quote.split(HOLE) if part.strip()]
    return re.compile(".*?".join(parts), re.DOTALL)


def has_message(quote: str) -> bool:
    """Return whether one message has all the fixed parts of the quote, in their order."""
    return any(map(compile_quote(quote).search, messages()))


# The words of a server in the quotes, which are not in the code.
SERVERS_WORDS = "535 5.7.3 "


@pytest.mark.parametrize("quote", quotes())
def test_every_quoted_error_is_a_message_of_the_code(quote: str) -> None:
    """Literally; `…` replaces what differs."""
    assert has_message(quote.replace(SERVERS_WORDS, "")), quote


def test_an_unknown_message_would_be_noticed() -> None:
    """Neither a whole one, nor one made of the parts of two messages."""
    assert not has_message("The server is on fire.")
    assert not has_message("Cannot connect to … is not trusted")
    assert len(quotes()) > 60


def test_every_error_of_kerberos_is_on_the_page() -> None:
    """One row for each meaning of an error code, some with two."""
    listed = " ".join(quotes())
    said = [meaning.problem.format(spn=HOLE, configuration=HOLE) for meaning in kerberos_errors._EXPLANATIONS.values()]
    assert len(said) > 10
    assert [words for words in said if words not in listed] == []


def test_every_remedy_for_a_refusal_is_on_the_page() -> None:
    """Of a mail, and of a sign-in: at least a part of each is quoted."""
    known = [
        *outcome._BY_ENHANCED_CODE.values(),
        *(remedy for _, remedy in (*outcome._BY_TEXT, *remedies._UNUSABLE_ACCOUNTS)),
        *remedies._BY_CODE.values(),
    ]
    patterns = list(map(compile_quote, quotes()))
    assert len(known) > 20
    assert [remedy for remedy in known if not any(pattern.search(remedy) for pattern in patterns)] == []
