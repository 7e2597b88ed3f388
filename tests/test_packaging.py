"""The metadata of a release: its version, its minimum versions, its changelog, and the README's links on the index."""

from __future__ import annotations

import ast
import datetime as dt
import re
import sys
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from readme_renderer import markdown

import airflow_provider_smtpcm
import noxfile
from hatch_build import with_whole_addresses
from tests.brought_by import brought_by
from tests.dependencies import DEPENDENCIES, comes_with
from tests.release import find_faults, find_mismatches, render

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_the_version_is_that_of_the_installed_distribution() -> None:
    """It is defined once; run `make venv` after a change."""
    assert airflow_provider_smtpcm.__version__ == metadata.version("airflow-provider-smtpcm")


def test_the_tested_minimum_versions_are_the_declared_ones() -> None:
    """`make floor` updates them."""
    optional = PROJECT["optional-dependencies"]
    declared = [Requirement(text) for text in (*PROJECT["dependencies"], *optional["fast"], *optional["testing"])]
    lock = (ROOT / "requirements/floor.lock").read_text(encoding="utf-8")
    locked = {name: Version(version) for name, version in re.findall(r"^([a-z0-9-]+)==([^\s;]+)", lock, re.MULTILINE)}
    floors = {wanted.name: [Version(part.version) for part in wanted.specifier] for wanted in declared}
    assert floors == {name: [locked[name]] for name in floors}


def imported_names() -> set[str]:
    """Return the top-level modules that the package imports or looks for, except its own and Python's."""
    found: set[str] = set()
    for path in sorted((ROOT / "airflow_provider_smtpcm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
            elif isinstance(node, ast.Call) and "find_spec" in ast.unparse(node):
                found |= {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and part.value}
    return {name for name in found if name not in sys.stdlib_module_names} - {"airflow_provider_smtpcm"}


def test_every_imported_library_is_in_the_table_of_dependencies() -> None:
    """Of docs/contributing/dependencies.md; a library that is no longer imported is not."""
    assert set(DEPENDENCIES) == imported_names()


def test_each_dependency_installs_what_the_table_lists_for_it() -> None:
    """Directly or indirectly, by the metadata of the installed distributions."""
    optional = PROJECT["optional-dependencies"]
    sources = {Requirement(text).name: [text] for text in PROJECT["dependencies"]} | {
        extra: optional[extra] for extra in ("kerberos", "fast", "ssis", "xlsx", "parquet", "testing")
    }
    by_users = {"pandas", "wtforms"}
    assert {module for source in sources for module in comes_with(source)} == set(DEPENDENCIES) - by_users
    for source, requirements in sources.items():
        brought = {module for requirement in requirements for module in brought_by(requirement)}
        missing = {module for module in comes_with(source) - brought if find_spec(module)}
        assert missing == set(), f"{source} does not bring {sorted(missing)}"


def test_make_versions_leaves_out_only_the_pythons_that_an_airflow_does_not_support() -> None:
    """By that Airflow's own metadata; under `make versions` each Airflow is checked."""
    supported = SpecifierSet(metadata.metadata("apache-airflow")["Requires-Python"])
    left_out = {python for python, airflow in noxfile.UNSUPPORTED if airflow == metadata.version("apache-airflow")}
    assert left_out == {python for python in noxfile.PYTHONS if python not in supported}


def pythons(text: str) -> list[str]:
    """Return the Python versions in a text, each once, oldest first."""
    found = set(re.findall(r"\b3\.\d\d\b", text))
    return sorted(found, key=Version)


def test_the_same_pythons_are_supported_wherever_they_are_named() -> None:
    """A range includes the versions between its ends."""
    supported = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if "Python :: 3." in text]
    first, last = supported[0], supported[-1]
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(f">={first},<3.{Version(last).minor + 1}")
    nox_file = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert pythons(nox_file) == supported
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"is not Python ([^:]*):", makefile) == [f"{', '.join(supported[:-1])} or {last}"]
    assert f"(3, {Version(first).minor}) <= sys.version_info[:2] <= (3, {Version(last).minor})" in makefile
    for page in ("README.md", "docs/index.md", "docs/quick-start.md", "docs/contributing.md"):
        ranges = re.findall(r"Python (?:from )?(3\.\d\d) to (3\.\d\d)", (ROOT / page).read_text(encoding="utf-8"))
        assert set(ranges) == {(first, last)}, page


def test_the_changelog_s_sections_are_versions_newest_first() -> None:
    """Unreleased changes, if there are any, come before."""
    released = re.findall(r"^## (.*)$", CHANGELOG.replace("## [Unreleased]\n", "", 1), re.MULTILINE)
    parts = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", heading) for heading in released]
    assert all(parts), released
    found = [(Version(part[1]), dt.date.fromisoformat(part[2])) for part in parts if part]
    assert found == sorted(found, reverse=True)
    assert found[0][0] == Version(airflow_provider_smtpcm.__version__)


def test_the_changelog_s_entries_are_of_the_six_kinds() -> None:
    """In the order of Keep a Changelog within each version."""
    for section in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)$", section, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]


def test_every_version_of_the_changelog_links_to_its_commits() -> None:
    """The heading in brackets is a reference link, whose address is at the end."""
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
def test_links_that_work_on_the_index_and_code_stay(text: str) -> None:
    """Other sites, headings of the page, and code blocks."""
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
def test_links_to_files_become_links_to_the_tag(text: str, expected: str) -> None:
    """To the raw content for a picture, to the page for anything else."""
    assert with_whole_addresses(text, "https://code.example/us", "v1.2.3") == expected


def readme_of_the_index() -> str:
    """Return the README as the metadata has it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return with_whole_addresses(text, PROJECT["urls"]["Repository"], f"v{airflow_provider_smtpcm.__version__}")


def test_the_readme_is_a_page_on_the_index() -> None:
    """Rendered and cleaned as there: with headings, tables, highlighted code, and a picture in its width."""
    html = render(readme_of_the_index())
    assert find_faults(html) == []
    for part in ("<h2", "<table>", '<span class="k', "<img "):
        assert part in html
    assert re.search(r'<img [^>]*width="\d+"', html)


def test_every_link_from_the_index_to_the_repository_has_a_file() -> None:
    """At the tag, which has the files of today."""
    repository = re.escape(PROJECT["urls"]["Repository"])
    links = re.findall(rf'(?:href|src)="{repository}/(?:blob|raw)/v[^/]+/([^#"]+)', render(readme_of_the_index()))
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[a](docs/a.md)", "leads nowhere on the index: 'docs/a.md'"),
        ("[a](#no-such-heading)", "leads nowhere on the index: '#"),
        ("![a](docs/a.png)", "leads nowhere on the index: 'docs/a.png'"),
        ("![](https://code.example/a.png)", "a picture without alt"),
        ("**a", "shown as source: **a"),
        ("| a |\n| --- | --- |", "shown as source: | ---"),
        ("<div>[a](https://code.example)</div>", "shown as source: ](https"),
    ],
)
def test_what_the_index_would_show_badly_is_noticed(text: str, fault: str) -> None:
    """Each would be published otherwise: an index refuses no Markdown."""
    (found,) = find_faults(render(text))
    assert found.startswith(fault)


def test_a_description_that_is_not_rendered_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without the extra `md` of readme_renderer, which then only warns."""
    monkeypatch.setattr(markdown, "variants", {})
    with pytest.warns(UserWarning, match=r"readme_renderer\[md\]"), pytest.raises(ValueError, match="not rendered"):
        render("# A heading")


@pytest.mark.parametrize(
    ("changelog", "tag", "expected"),
    [
        ("# Changelog\n\n## [1.2.3] - 2026-01-31\n\n## [1.2.2] - 2026-01-02\n", "v1.2.3", []),
        ("## [1.2.3] - 2026-01-31\n", "v1.2.4", ["The tag is 'v1.2.4', and the version '1.2.3'."]),
        ("## [1.2.3] - 2026-01-31\n", "1.2.3", ["The tag is '1.2.3', and the version '1.2.3'."]),
        (
            "## [Unreleased]\n\n## [1.2.3] - 2026-01-31\n",
            "v1.2.3",
            ["CHANGELOG.md begins with '[Unreleased]', not with '[1.2.3] - ' and a date."],
        ),
        (
            "## [1.2.3] - soon\n",
            "v1.2.3",
            ["CHANGELOG.md begins with '[1.2.3] - soon', not with '[1.2.3] - ' and a date."],
        ),
    ],
)
def test_only_a_tag_of_the_version_with_a_dated_changelog_is_released(
    changelog: str, tag: str, expected: list[str]
) -> None:
    """By `make dist TAG=...`, which the workflow of a release runs."""
    assert find_mismatches(version="1.2.3", changelog=changelog, tag=tag) == expected
