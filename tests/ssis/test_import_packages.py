"""An import with a simple converter: an error in one package does not affect the others."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.import_packages import ConvertedPackage, PackageConverter, import_packages
from airflow_provider_smtpcm.ssis.model import Container, Finding, OtherTask, Package, Project, Severity
from airflow_provider_smtpcm.ssis.output_folder import OutputFolder
from airflow_provider_smtpcm.ssis.reading import ReadResult
from airflow_provider_smtpcm.ssis.report.entries import ConnectionEntry, ImportResult, PackageEntry, PackageStatus
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions
from tests.ssis.writing.building import constraint, mail, other_task, variable
from tests.ssis.writing.building import package as package_of


def package(name: str, *findings: Finding) -> Package:
    """Return an empty package; the one called `Quiet` has no mail."""
    root = Container(name=name, id="Package", path=("Package",))
    return Package(name=name, id="Package", path=f"/in/{name}.dtsx", root=root, findings=findings)


def found(*names: str) -> Iterator[ReadResult]:
    """Return packages of these names, as the reader finds them."""
    return (ReadResult(source=f"/in/{name}.dtsx", package=package(name)) for name in names)


class Plain(PackageConverter):
    """Writes a comment for each package, and raises an error for one that is called `Broken` or `Deep`."""

    def __init__(self, text: str = "") -> None:
        super().__init__(ConversionOptions())
        self.text = text

    def add_project(self, project: Project) -> None:
        if project.name == "Broken":
            raise KeyError("no such thing")

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


def imported(out: Path, finds: Iterator[ReadResult], **options: Any) -> tuple[ImportResult, dict[str, Any]]:
    """Run an import; return its result and its report."""
    folder = OutputFolder(out)
    folder.open()
    done = import_packages(finds, options.pop("converter", None) or Plain(), folder, **options)
    return done, json.loads((out / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "error"), [("Broken", "ZeroDivisionError"), ("Deep", "RecursionError")])
def test_an_internal_error_in_one_package_stops_no_other(tmp_path: Path, name: str, error: str) -> None:
    """The report names the package and asks to report the error, without a traceback."""
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


def test_an_internal_error_in_a_project_stops_no_package(tmp_path: Path) -> None:
    """It is among the findings about the import as a whole."""
    finds = [ReadResult(source="/in", project=Project(name="Broken", path="/in")), *found("Last")]
    done, report = imported(tmp_path, iter(finds))
    assert [one["code"] for one in report["findings"]] == ["importer-failed"]
    assert [one["name"] for one in report["packages"]] == ["Last"]
    assert done.needs_attention


def test_an_internal_error_of_the_reader_is_reported_and_the_packages_before_it_are_imported(tmp_path: Path) -> None:
    """The report shows that it is incomplete."""

    def breaking() -> Iterator[ReadResult]:
        yield from found("First")
        raise IndexError("list index out of range")

    done, report = imported(tmp_path, breaking())
    assert [one["name"] for one in report["packages"]] == ["First"]
    assert "IndexError" in report["findings"][0]["text"]
    assert done.needs_attention


def test_an_unreadable_file_is_reported_with_its_remedy(tmp_path: Path) -> None:
    """Copies are reported, too."""
    finds = [
        ReadResult(source="x.dtsx", error=PackageError("x.dtsx is empty.", remedy="Save it again.")),
        ReadResult(source="bin/1.dtsx", duplicate_of="1.dtsx"),
    ]
    done, report = imported(tmp_path, iter(finds))
    assert report["unreadable"] == [{"source": "x.dtsx", "message": "x.dtsx is empty.", "remedy": "Save it again."}]
    assert report["copies"] == [{"source": "bin/1.dtsx", "copy_of": "1.dtsx"}]
    assert done.needs_attention


def test_an_edited_file_needs_a_decision(tmp_path: Path) -> None:
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


def test_files_that_were_not_edited_are_updated(tmp_path: Path) -> None:
    """The connections, too, without any decision."""

    class Newer(Plain):
        def connections_json(self) -> str:
            return '{"mail": {"host": "mail.corp.example"}}\n'

    imported(tmp_path, found("First"))
    done, report = imported(tmp_path, found("First"), converter=Newer("new"))
    assert not done.needs_attention
    assert report["left_over"] == []
    assert (tmp_path / "dags/First.py").read_text() == "# new\n"
    assert "mail.corp.example" in (tmp_path / "connections.json").read_text()


def test_an_import_that_is_stopped_writes_its_reports(tmp_path: Path) -> None:
    """They contain what was done until then, and no file of an earlier import is left over."""
    imported(tmp_path, found("First", "Second", "Last"))
    sources: list[str] = []
    done, report = imported(
        tmp_path,
        found("First", "Second", "Last"),
        on_progress=lambda _totals, source: sources.append(source),
        is_stopped=lambda: len(sources) == 2,
    )
    assert sources == ["/in/First.dtsx", "/in/Second.dtsx"]
    assert [one["name"] for one in report["packages"]] == ["First", "Second"]
    assert report["interrupted"]
    assert report["left_over"] == done.left_over == []


def test_a_dag_whose_package_is_gone_is_left_over(tmp_path: Path) -> None:
    """The file is kept."""
    imported(tmp_path, found("First", "Last"))
    done, report = imported(tmp_path, found("Last"))
    assert done.left_over == report["left_over"] == ["dags/First.py"]
    assert (tmp_path / "dags/First.py").exists()


def test_packages_without_mail_need_no_attention(tmp_path: Path) -> None:
    """They are counted and named, and no DAG is written."""
    done, report = imported(tmp_path, found("Quiet"))
    assert (report["counts"]["no_mail"], report["counts"]["dags"]) == (1, 0)
    assert not done.needs_attention
    assert "/in/Quiet.dtsx" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_one_package_at_a_time_is_in_memory(tmp_path: Path) -> None:
    """Independent of how many packages there are."""
    note = Finding(code="dangling-connection-manager", severity=Severity.NOTE, where="Package", text="x" * 100_000)
    finds = (ReadResult(source="x", package=package(f"P{number}", note)) for number in range(300))
    tracemalloc.start()
    try:
        imported(tmp_path, finds)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("reverse", [False, True])
def test_a_child_package_that_sets_a_variable_of_its_parent_is_told(*, reverse: bool) -> None:
    """If the parent reads it and the child has none of that name; in whichever order they are read."""
    path = ("Package",)
    run = OtherTask(
        name="Run", id="{run}", path=(*path, "Run"), kind="Microsoft.ExecutePackageTask", child_package="Count.dtsx"
    )
    mailing = mail(expressions={"Subject": "@[User::Rows]"})
    variables = [variable("Rows", "0"), variable("Unread", "0")]
    parent = package_of(run, mailing, name="Load", variables=variables, constraints=[constraint(run, mailing)])
    setting = other_task("Set", sets=("User::Rows", "User::Unread", "User::Own"))
    child = package_of(setting, name="Count", variables=[variable("Own")])
    own = package_of(setting, name="Count", variables=variables)
    for other, count in ((child, 1), (own, 0)):
        converter = PackageConverter(ConversionOptions())
        for each in (other, parent) if reverse else (parent, other):
            converter.convert(each, None)
        found = list(converter.child_setters())
        assert len(found) == count
    converter = PackageConverter(ConversionOptions())
    converter.convert(parent, None)
    converter.convert(child, None)
    (found_,) = converter.child_setters()
    assert (found_.code, found_.where) == ("set-by-child-package", parent.path)
    assert f"'Run' executes {child.path}, whose 'Set' (Execute SQL task) sets User::Rows" in found_.text
