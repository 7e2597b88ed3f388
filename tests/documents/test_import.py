"""The SSIS package of the example is converted to what the page shows, and the tables on the import are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_smtpcm.cli import IMPORT_SSIS, main
from tests.documents.pages import DOCS, README, Block, blocks_in, blocks_of, commands_of, table_after

PAGE = DOCS / "reference/ssis-example.md"
OPTIONS = DOCS / "reference/import-ssis.md"


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The folder in which the command of the page was run, beside the package of the page; `capsys` has its output."""
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    [package] = [block for block in blocks_of(PAGE) if block.language == "xml"]
    Path(package.title).parent.mkdir()
    Path(package.title).write_text(package.code, encoding="utf-8")
    assert main(["import-ssis", "packages", "--out", "airflow", "--map-path", r"\\files\loads=/srv/loads"]) == 3
    return tmp_path


def of_the_import(page: Path) -> list[Block]:
    """Return the blocks that are files of the import."""
    return [block for block in blocks_of(page) if block.title.startswith("airflow/")]


def test_the_package_becomes_the_files_below_it(imported: Path) -> None:
    """Byte for byte: the DAG, and the connections."""
    files = {block.title: block.code for block in of_the_import(PAGE)}
    assert set(files) == {"airflow/connections.json", "airflow/dags/load.py"}
    assert {title: (imported / title).read_text(encoding="utf-8") for title in files} == files


def test_the_terminal_says_what_the_page_shows(imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the same words and lines."""
    [shown] = [block for block in blocks_of(PAGE) if block.title == "The import prints"]
    assert capsys.readouterr().out == shown.code


def test_the_readme_shows_parts_of_the_same_import() -> None:
    """The command, a part of the package, and a part of the DAG without gaps."""
    page = {(block.language, block.title): lines_of(block.code) for block in blocks_of(PAGE)}
    [package] = [block for block in blocks_of(README) if block.language == "xml"]
    assert set(lines_of(package.code)) <= {"", *page["xml", package.title]}
    [dag] = of_the_import(README)
    assert "\n".join(lines_of(dag.code)) in "\n".join(page["python", dag.title])
    commands = {command for block in blocks_in("console") for command in commands_of(block) if "import-ssis" in command}
    assert all(command.startswith("airflow smtpcm import-ssis packages ") for command in commands)


def lines_of(code: str) -> list[str]:
    """Return the lines without their indentation."""
    return [line.strip() for line in code.splitlines()]


def test_every_option_has_its_row() -> None:
    """And no other."""
    rows = {re.findall(r"`(--[a-z-]+)", row[0])[0] for row in table_after(OPTIONS, "## Options")}
    assert rows == {argument.flags[0] for argument in IMPORT_SSIS.arguments} - {"paths"}
