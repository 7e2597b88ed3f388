"""Text without template syntax is not compiled, and becomes what Jinja would make of it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from jinja2.ext import Extension
from jinja2.sandbox import SandboxedEnvironment

from airflow_provider_smtpcm.arguments.templates import FieldEnvironments

TEXTS = ("", "Done", "Done\n", "Done\n\n", "Two\nlines\n", "\n", "100 % }} done\n", "Dos\r\nlines\r\n", "old\rMac\r")


class Shouting(Extension):
    """Rewrites a template before it is parsed."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:  # noqa: ARG002 - Jinja's
        return source.upper()


class Neutral(Extension):
    """Rewrites nothing."""


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "options",
    [
        {"keep_trailing_newline": keep, "newline_sequence": line_break, "extensions": [extension]}
        for keep, line_break, extension in itertools.product((False, True), ("\n", "\r\n"), (Neutral, Shouting))
    ],
    ids=str,
)
@pytest.mark.parametrize("field", ["text", "html", "subject", "to", "text_file"])
def test_a_text_is_what_jinja_makes_of_it(field: str, options: dict[str, Any], text: str) -> None:
    """In every field, however the DAG's environment treats line breaks and extensions."""
    environment = SandboxedEnvironment(**options)
    rendered = FieldEnvironments(environment).compile(field, text)({})
    assert rendered == environment.from_string(text).render()


def test_a_text_without_syntax_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling one takes longer than sending a mail."""
    environments = FieldEnvironments(SandboxedEnvironment(extensions=["jinja2.ext.do"]))
    monkeypatch.setattr(SandboxedEnvironment, "from_string", None)
    assert environments.compile("text", "The load is done.\n")({}) == "The load is done."
