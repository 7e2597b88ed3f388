"""The run of an import, around a converter that does little: what one package does, no other notices."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.import_packages import ConvertedPackage, PackageConverter, import_packages
from airflow_provider_smtpcm.ssis.model import Container, Finding, Package, Project, Severity
from airflow_provider_smtpcm.ssis.output import OutputFolder
from airflow_provider_smtpcm.ssis.reading import Found
from airflow_provider_smtpcm.ssis.report.entries import ConnectionEntry, ImportResult, PackageEntry, PackageStatus
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions


def package(name: str, *findings: Finding) -> Package:
    """A package without anything in it; `Quiet` is one without mail."""
    root = Container(name=name, id="Package", path=("Package",))
    return Package(name=name, id="Package", path=f"/in/{name}.dtsx", root=root, findings=findings)


def found(*names: str) -> Iterator[Found]:
    """Packages of these names."""
    return (Found(source=f"/in/{name}.dtsx", package=package(name)) for name in names)


class Plain(PackageConverter):
    """Writes a comment for each package, and breaks at those called so."""

    def __init__(self, text: str = "") -> None:
        super().__init__(ConversionOptions())
        self.text = text
        self.seen = 0

    def add_project(self, project: Project) -> None:
        if project.name == "Broken":
            raise KeyError("no such thing")
        self.seen += 1

    def convert(self, package: Package, project: Project | None) -> ConvertedPackage:
        if package.name == "Broken":
            raise ZeroDivisionError("division by zero")
        if package.name == "Deep":
            return self.convert(package, project)
        quiet = package.name == "Quiet"
        entry = PackageEntry(
            source=package.path, name=package.name, status=PackageStatus.NO_MAIL if quiet else PackageStatus.CONVERTED
        )
        return ConvertedPackage(entry=entry, file="" if quiet else f"dags/{package.name}.py", source=f"# {self.text}\n")

    def connections_json(self) -> str:
        return '{"mail": {}}\n'

    def connection_entries(self) -> tuple[ConnectionEntry, ...]:
        return (ConnectionEntry(conn_id="mail"),)


def imported(out: Path, finds: Iterator[Found], **options: Any) -> tuple[ImportResult, dict[str, Any]]:
    """One import; what it did, and its report."""
    folder = OutputFolder(out)
    folder.open()
    done = import_packages(finds, options.pop("converter", None) or Plain(), folder, **options)
    return done, json.loads((out / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "error"), [("Broken", "ZeroDivisionError"), ("Deep", "RecursionError")])
def test_a_package_at_which_the_importer_fails_stops_no_other(tmp_path: Path, name: str, error: str) -> None:
    """It is told with its name, and with a request to report it; there is no traceback."""
    done, report = imported(tmp_path, found("First", name, "Last"))
    assert [(one["name"], one["status"]) for one in report["packages"]] == [
        ("First", "converted"),
        (name, "failed"),
        ("Last", "converted"),
    ]
    [finding] = report["packages"][1]["findings"]
    assert (finding["code"], finding["severity"], finding["where"]) == ("importer-failed", "error", name)
    assert error in finding["text"]
    assert finding["remedy"].startswith("Please report it")
    assert "Traceback" not in json.dumps(report)
    assert done.needs_attention


def test_a_project_at_which_the_importer_fails_stops_no_package(tmp_path: Path) -> None:
    """It is told above the packages."""
    finds = [Found(source="/in", project=Project(name="Broken", path="/in")), *found("Last")]
    done, report = imported(tmp_path, iter(finds))
    assert [one["code"] for one in report["findings"]] == ["importer-failed"]
    assert [one["name"] for one in report["packages"]] == ["Last"]
    assert done.needs_attention


def test_reading_that_fails_is_told_and_what_was_read_is_there(tmp_path: Path) -> None:
    """The report says that it is not the whole."""

    def breaking() -> Iterator[Found]:
        yield from found("First")
        raise IndexError("list index out of range")

    done, report = imported(tmp_path, breaking())
    assert [one["name"] for one in report["packages"]] == ["First"]
    assert "IndexError" in report["findings"][0]["text"]
    assert done.needs_attention


def test_what_cannot_be_read_is_told_with_its_remedy(tmp_path: Path) -> None:
    """And copies are told, too."""
    finds = [
        Found(source="x.dtsx", error=PackageError("x.dtsx is empty.", remedy="Save it again.")),
        Found(source="bin/1.dtsx", duplicate_of="1.dtsx"),
    ]
    done, report = imported(tmp_path, iter(finds))
    assert report["unreadable"] == [{"source": "x.dtsx", "message": "x.dtsx is empty.", "remedy": "Save it again."}]
    assert report["copies"] == [{"source": "bin/1.dtsx", "copy_of": "1.dtsx"}]
    assert done.needs_attention


def test_an_edited_file_is_something_to_decide(tmp_path: Path) -> None:
    """A DAG as well as the connections."""
    imported(tmp_path, found("First", "Last"))
    (tmp_path / "dags/First.py").write_text("# mine\n")
    (tmp_path / "connections.json").write_text('{"mail": {"password": "hush1"}}\n')
    done, report = imported(tmp_path, found("First", "Last"), converter=Plain("new"))
    assert [(one["status"], one["kept"]) for one in report["packages"]] == [
        ("decide", "dags/First.py.new"),
        ("converted", None),
    ]
    assert [one["code"] for one in report["findings"]] == ["edited-file-kept"]
    assert report["counts"]["kept"] == 2
    assert (tmp_path / "connections.json.new").read_text() == '{"mail": {}}\n'
    assert done.needs_attention


def test_what_nobody_edited_is_brought_up_to_date(tmp_path: Path) -> None:
    """The connections, too; nobody has to decide anything."""

    class Newer(Plain):
        def connections_json(self) -> str:
            return '{"mail": {"host": "mail.corp.example"}}\n'

    imported(tmp_path, found("First"))
    done, report = imported(tmp_path, found("First"), converter=Newer("new"))
    assert not done.needs_attention
    assert report["left_over"] == []
    assert (tmp_path / "dags/First.py").read_text() == "# new\n"
    assert "mail.corp.example" in (tmp_path / "connections.json").read_text()


def test_an_import_that_is_stopped_ends_in_order(tmp_path: Path) -> None:
    """What was done until then is told, and nothing of an earlier import is called left over."""
    imported(tmp_path, found("First", "Second", "Last"))
    heard: list[str] = []
    done, report = imported(
        tmp_path,
        found("First", "Second", "Last"),
        on_progress=lambda _totals, source: heard.append(source),
        is_stopped=lambda: len(heard) == 2,
    )
    assert heard == ["/in/First.dtsx", "/in/Second.dtsx"]
    assert [one["name"] for one in report["packages"]] == ["First", "Second"]
    assert report["interrupted"]
    assert report["left_over"] == done.left_over == []


def test_what_no_package_becomes_any_more_is_called_left_over(tmp_path: Path) -> None:
    """And stays."""
    imported(tmp_path, found("First", "Last"))
    done, report = imported(tmp_path, found("Last"))
    assert done.left_over == report["left_over"] == ["dags/First.py"]
    assert (tmp_path / "dags/First.py").exists()


def test_packages_without_mail_need_nobody(tmp_path: Path) -> None:
    """They are counted and named, and no DAG is written."""
    done, report = imported(tmp_path, found("Quiet"))
    assert (report["counts"]["no_mail"], report["counts"]["dags"]) == (1, 0)
    assert not done.needs_attention
    assert "/in/Quiet.dtsx" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_one_package_at_a_time_is_in_memory(tmp_path: Path) -> None:
    """However many there are, and however large they are."""
    note = Finding(code="dangling-connection-manager", severity=Severity.NOTE, where="Package", text="x" * 100_000)
    finds = (Found(source="x", package=package(f"P{number}", note)) for number in range(300))
    tracemalloc.start()
    try:
        imported(tmp_path, finds)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
