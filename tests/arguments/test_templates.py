"""What a template of a field becomes is what Jinja would make of it; text without syntax is not compiled."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from jinja2.ext import Extension
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment

from airflow_provider_smtpcm.arguments.templates import FieldEnvironments
from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.attachment import parse_attachments
from airflow_provider_smtpcm.mail.tainted import TaintedStr

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


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    "source", ["{{{{ {} }}}} ", "\n    {{{{ {} }}}}\n  ", "{{# who #}} {{{{ {} }}}}\r\n\n", "\t{{{{- {} }}}}"]
)
@pytest.mark.parametrize(
    "field", ["to", "attachments", "inline_images", "rows", "from_address", "message", "html_file"]
)
def test_white_space_around_an_expression_with_a_literal_is_no_part_of_it(
    field: str, source: str, native: bool
) -> None:
    """A text between three quotation marks has some. The author's literal stays his, and a value one value."""
    environments = FieldEnvironments(NativeEnvironment() if native else SandboxedEnvironment())
    render = environments.compile(field, source.format("team or 'a@corp.example, b@corp.example'"))
    assert render({"team": ""}).strip() == "a@corp.example, b@corp.example"
    assert not isinstance(render({"team": ""}), TaintedStr)
    render = environments.compile("to", source.format("['x@corp.example', name ~ '@corp.example']"))
    assert [part.mask for part in render({"name": "a"}) if isinstance(part, TaintedStr)] == ["\0@corp.example"]
    assert render({"name": "a"}) == ["x@corp.example", "a@corp.example"]


@pytest.mark.parametrize(
    ("source", "rendered", "mask"),
    [
        ("{{ DATA / 'a.csv' }}", "/srv/a.csv", "\0\0\0\0/a.csv"),
        ("{{ DATA / 'out' / name }}", "/srv/out/x", "\0\0\0\0/out/\0"),
        ("{{ DATA / name / 'a.csv' }}", "/srv/x/a.csv", "\0\0\0\0\0\0/a.csv"),
        ("{{ DATA / (name ~ '.csv') }}", "/srv/x.csv", "\0\0\0\0/\0.csv"),
        ("{{ DATA / ('%s.csv' % absolute) }}", "/srv//etc/x.csv", "\0\0\0\0/\0\0\0\0\0\0.csv"),
        ("{{ DATA / '/etc/x.csv' }}", "/etc/x.csv", None),
        ("/{{ 6 / 3 }}", "/2.0", "/\0\0\0"),
    ],
)
def test_a_path_of_a_macro_divided_by_a_literal_is_a_path(source: str, rendered: str, mask: str | None) -> None:
    """As in Python; of a value in it, a slash at its start leads nowhere else."""
    variables = {"DATA": Path("/srv"), "name": "x", "absolute": "/etc/x"}
    result = FieldEnvironments(SandboxedEnvironment()).compile("attachments", source)(variables)
    assert result == rendered
    assert getattr(result, "mask", None) == mask


def test_a_value_leads_out_of_no_path_of_a_macro() -> None:
    """As out of no folder that the author wrote."""
    environments = FieldEnvironments(SandboxedEnvironment())
    result = environments.compile("attachments", "{{ DATA / (name ~ '.csv') }}")({"DATA": Path("/srv"), "name": "../x"})
    with pytest.raises(MessageError, match="leads out of its folder"):
        parse_attachments(result)
