"""The output folder of an import: files are replaced as a whole, and edited files are kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from airflow_provider_smtpcm.ssis.output_folder import MANIFEST, OutputError, OutputFolder, WriteResult

NAME = "dags/load.py"


def imported(path: Path, text: str = "one\n", *, force: bool = False, name: str = NAME) -> WriteResult:
    """Write one file as an import does; return the result."""
    folder = OutputFolder(path, force=force)
    folder.open()
    result = folder.write(name, text)
    folder.close(complete=True)
    return result


def test_a_folder_that_is_a_file_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    """So is a folder below a file."""
    (tmp_path / "file").write_text("a file")
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(OutputError, match=r"cannot be written.*Name a folder with --out"):
            OutputFolder(path).open()


def test_a_folder_where_a_file_should_be_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """No temporary file is left."""
    (tmp_path / "dags/load.py").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"load\.py"):
        imported(tmp_path)
    assert [path.name for path in (tmp_path / "dags").iterdir()] == ["load.py"]


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    """The old file is complete, and no temporary file is left."""
    folder = OutputFolder(tmp_path)
    folder.open()
    folder.write_report("report.json", lambda file: file.write("whole"))

    def breaking(file: object) -> None:
        file.write("half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left on device"):
        folder.write_report("report.json", breaking)
    assert (tmp_path / "report.json").read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST, "dags", "report.json"]


@pytest.mark.parametrize(
    "name", ["../load.py", "/etc/load.py", "dags/../../load.py", "dags/.load.py", "", "dags/a/b.py"]
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """A package can have any name."""
    with pytest.raises(OutputError, match="not a valid file name"):
        imported(tmp_path / "out", name=name)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_report_that_no_import_wrote_is_not_overwritten(tmp_path: Path) -> None:
    """Except with --force."""
    (tmp_path / "report.html").write_text("another report")
    with pytest.raises(OutputError, match=r"report\.html that no import wrote"):
        OutputFolder(tmp_path).open()
    OutputFolder(tmp_path, force=True).open()


def test_an_edited_file_is_kept_and_the_new_text_is_next_to_it(tmp_path: Path) -> None:
    """At every import, until the file has the new text."""
    imported(tmp_path)
    (tmp_path / NAME).write_text("edited\n")
    for text in ("two\n", "three\n"):
        assert imported(tmp_path, text) is WriteResult.KEPT
        assert (tmp_path / NAME).read_text() == "edited\n"
        assert (tmp_path / f"{NAME}.new").read_text() == text
    (tmp_path / NAME).write_text("three\n")
    assert imported(tmp_path, "three\n") is WriteResult.UNCHANGED
    assert not (tmp_path / f"{NAME}.new").exists()
    assert imported(tmp_path, "four\n") is WriteResult.WRITTEN


def test_a_file_that_no_import_wrote_is_kept_too(tmp_path: Path) -> None:
    """The folder may already have a DAG of that name."""
    (tmp_path / "dags").mkdir()
    (tmp_path / NAME).write_text("mine\n")
    assert imported(tmp_path) is WriteResult.KEPT
    assert imported(tmp_path, force=True) is WriteResult.WRITTEN
    assert (tmp_path / NAME).read_text() == "one\n"
    assert not (tmp_path / f"{NAME}.new").exists()


def test_without_a_readable_manifest_every_file_counts_as_edited(tmp_path: Path) -> None:
    """So nothing is lost."""
    for content in ("not JSON", "[]", '{"files": 3}', '{"files": {"dags/load.py": null}}'):
        imported(tmp_path, force=True)
        (tmp_path / MANIFEST).write_text(content)
        assert imported(tmp_path, "two\n") is WriteResult.KEPT


def test_a_file_that_an_import_wrote_is_updated(tmp_path: Path) -> None:
    """An unchanged one is not written again, so that Airflow does not parse it again."""
    assert imported(tmp_path) is WriteResult.WRITTEN
    os.utime(tmp_path / NAME, (1, 1))
    assert imported(tmp_path) is WriteResult.UNCHANGED
    assert (tmp_path / NAME).stat().st_mtime == 1
    assert imported(tmp_path, "two\n") is WriteResult.WRITTEN
    assert (tmp_path / NAME).read_text() == "two\n"


def test_a_file_that_is_not_written_again_is_left_over_and_kept(tmp_path: Path) -> None:
    """It is not an edited file if its package is imported again."""
    imported(tmp_path)
    folder = OutputFolder(tmp_path)
    folder.open()
    folder.write("dags/other.py", "other\n")
    assert folder.close(complete=True) == [NAME]
    assert imported(tmp_path, "two\n") is WriteResult.WRITTEN


def test_an_interrupted_import_reports_nothing_as_left_over(tmp_path: Path) -> None:
    """It did not get to the other packages."""
    imported(tmp_path)
    folder = OutputFolder(tmp_path)
    folder.open()
    assert folder.close(complete=False) == []


def test_other_users_may_read_the_files(tmp_path: Path) -> None:
    """Airflow may run as another user."""
    before = os.umask(0o022)
    try:
        imported(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o644


def test_a_surrogate_in_a_file_name_does_not_stop_it(tmp_path: Path) -> None:
    """Linux allows file names that are not UTF-8."""
    imported(tmp_path, "# from a\udcff.dtsx\n")
    assert (tmp_path / NAME).read_text(encoding="utf-8") == "# from a?.dtsx\n"
