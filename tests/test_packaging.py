"""What a release says of itself: its version, its floors, its changelog, and the README's links on the index."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import airflow_provider_smtpcm
from hatch_build import with_whole_addresses

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_the_package_knows_the_version_that_is_installed() -> None:
    """It stands in one place; `make venv` after changing it."""
    assert airflow_provider_smtpcm.__version__ == metadata.version("airflow-provider-smtpcm")


def test_the_floor_that_is_tested_is_the_one_that_is_declared() -> None:
    """`make floor` mends it."""
    optional = PROJECT["optional-dependencies"]
    declared = [Requirement(text) for text in (*PROJECT["dependencies"], *optional["fast"], *optional["testing"])]
    lock = (ROOT / "requirements/floor.lock").read_text(encoding="utf-8")
    locked = {name: Version(version) for name, version in re.findall(r"^([a-z0-9-]+)==([^\s;]+)", lock, re.MULTILINE)}
    floors = {wanted.name: [Version(part.version) for part in wanted.specifier] for wanted in declared}
    assert floors == {name: [locked[name]] for name in floors}


def test_the_changelog_s_sections_are_versions_newest_first() -> None:
    """What is not released yet stands above them all."""
    first, *released = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert first == "[Unreleased]"
    parts = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", heading) for heading in released]
    assert all(parts), released
    found = [(Version(part[1]), dt.date.fromisoformat(part[2])) for part in parts if part]
    assert found == sorted(found, reverse=True)


def test_the_changelog_s_entries_are_of_the_six_kinds() -> None:
    """And in their order within each version."""
    for section in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)$", section, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]


def test_every_version_of_the_changelog_leads_to_its_commits() -> None:
    """The heading in brackets is a link, whose address stands at the end."""
    headings = re.findall(r"^## \[(.*?)\]", CHANGELOG, re.MULTILINE)
    places = dict(re.findall(r"^\[(.*?)\]: (\S+)$", CHANGELOG, re.MULTILINE))
    assert list(places) == headings
    assert all(place.startswith(PROJECT["urls"]["Repository"]) for place in places.values())


@pytest.mark.parametrize(
    "text",
    [
        "[Airflow](https://airflow.example/docs)",
        "[below](#every-field)",
        "[write](mailto:ann@corp.example)",
        "`[a link](docs/connection.md)` is written so",
        "``rows[`0`](docs/x.md)``",
        "```python\nhandlers[0](relay)\n```",
        '  ~~~html\n  <img src="docs/a.png">\n  ~~~',
        "<img src='cid:logo'>",
    ],
)
def test_what_leads_somewhere_on_the_index_or_is_code_stays(text: str) -> None:
    """Another site, a heading of the page, and whatever is shown as it was written."""
    assert with_whole_addresses(text, "https://code.example/us", "v1.2.3") == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](docs/a.md#b)", "[a](https://code.example/us/blob/v1.2.3/docs/a.md#b)"),
        ("[a](./LICENSE)", "[a](https://code.example/us/blob/v1.2.3/LICENSE)"),
        ("[`a`](docs/a.md) `b`", "[`a`](https://code.example/us/blob/v1.2.3/docs/a.md) `b`"),
        ("![a](docs/a.PNG)", "![a](https://code.example/us/raw/v1.2.3/docs/a.PNG)"),
        ("[a]: docs/a.md", "[a]: https://code.example/us/blob/v1.2.3/docs/a.md"),
        ('<img alt="" src="docs/a.svg">', '<img alt="" src="https://code.example/us/raw/v1.2.3/docs/a.svg">'),
        (
            "[![a](docs/a.svg)](docs/a.md)",
            "[![a](https://code.example/us/raw/v1.2.3/docs/a.svg)](https://code.example/us/blob/v1.2.3/docs/a.md)",
        ),
        ("```\ncode\n```\n[a](b.md)", "```\ncode\n```\n[a](https://code.example/us/blob/v1.2.3/b.md)"),
    ],
)
def test_what_leads_to_a_file_leads_to_the_tag_s_file(text: str, expected: str) -> None:
    """A picture to its content, anything else to its page."""
    assert with_whole_addresses(text, "https://code.example/us", "v1.2.3") == expected
