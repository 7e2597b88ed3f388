"""Everything under some paths: projects, packages, copies and errors, one after the other."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest

from airflow_provider_smtpcm.ssis import read_package, read_project
from airflow_provider_smtpcm.ssis.reading import ReadResult, read_connection_manager, read_paths

PACKAGES = Path(__file__).parent.parent / "packages"
PROJECT = PACKAGES / "project"
MAIL = PACKAGES / "mail_2014.dtsx"
LOAD = "Load – all.dtsx"


def kinds_of(*paths: Path, below: Path) -> list[tuple[str, str]]:
    """The path of each result, with what it is: a project, a package, a copy or an error."""

    def kind(one: ReadResult) -> str:
        if one.error is not None:
            return "error"
        if one.duplicate_of is not None:
            return f"copy of {Path(one.duplicate_of).relative_to(below)}"
        return "package" if one.package is not None else "project"

    return [(str(Path(one.source).relative_to(below)), kind(one)) for one in read_paths(paths)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project, to be changed."""
    return Path(shutil.copytree(PROJECT, tmp_path / "project"))


def build(project: Path, target: Path, **more: str) -> Path:
    """An `.ispac` of it, with URL-encoded part names as SSIS writes them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("@Project.manifest", "<SSIS:Project xmlns:SSIS='www.microsoft.com/SqlServer/SSIS'/>")
        for file in sorted(project.iterdir()):
            if file.suffix in {".dtsx", ".conmgr", ".params"}:
                archive.write(file, quote(file.name))
        for name, text in more.items():
            archive.writestr(f"{name}.dtsx", text)
    return target


def test_a_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    """Whether it comes before the others or after them."""
    (tmp_path / "a.dtsx").write_text("<a>")
    shutil.copy(MAIL, tmp_path / "b.dtsx")
    (tmp_path / "c.ispac").write_text("no zip")
    (tmp_path / "d.conmgr").write_text("")
    gone = tmp_path / "gone.dtsx"
    assert kinds_of(tmp_path, gone, below=tmp_path) == [
        (".", "project"),
        ("d.conmgr", "error"),
        ("a.dtsx", "error"),
        ("b.dtsx", "package"),
        ("c.ispac", "error"),
        ("gone.dtsx", "error"),
    ]


def test_a_tree_without_packages_is_an_error(tmp_path: Path) -> None:
    """It may be the wrong folder."""
    (tmp_path / "readme.txt").write_text("x")
    assert kinds_of(tmp_path, below=tmp_path) == [(".", "error")]


def test_a_file_is_read_once_although_two_paths_lead_to_it(project: Path, tmp_path: Path) -> None:
    """A person passes a folder and a file in it."""
    assert kinds_of(project, project / LOAD, below=tmp_path) == [("project", "project"), (f"project/{LOAD}", "package")]


def test_a_dtproj_means_its_folder(project: Path, tmp_path: Path) -> None:
    """It is what a person opens in Visual Studio."""
    assert kinds_of(project / "Nightly.dtproj", below=tmp_path) == [
        ("project", "project"),
        (f"project/{LOAD}", "package"),
    ]


def test_a_package_finds_what_its_project_has(project: Path) -> None:
    """In the folder, or in the `.ispac`."""
    built = build(project, project.parent / "built.ispac")
    for read in (read_project(project), read_project(built)):
        (package,) = read.packages
        assert package.name == "Load – all"
        assert package.findings == ()
        (task,) = package.send_mail_tasks
        assert task.connection is not None
        assert (task.connection.name, task.connection.scope) == ("Relay", "project")
        assert package.connection_managers == (task.connection,)
        assert [(one.qualified_name, one.value) for one in read.parameters] == [
            ("$Project::MailServer", "mail.corp.example"),
            ("$Project::MailPassword", None),
        ]
        assert "hunter2" not in repr(read)
    assert read_project(built).packages[0].path == f"{built}!{LOAD}"
    assert read_project(project).name == "Nightly"


def test_a_package_alone_finds_its_neighbors_or_reports_that_it_cannot(project: Path, tmp_path: Path) -> None:
    """A project that is passed takes precedence over the folder."""
    assert read_package(project / LOAD).findings == ()
    alone = shutil.copy(project / LOAD, tmp_path)
    assert [one.code for one in read_package(alone).findings] == ["dangling-connection-manager"]
    assert read_package(alone, project=read_project(project)).findings == ()


def test_a_package_in_a_folder_below_finds_the_project_above(project: Path, tmp_path: Path) -> None:
    """As far up as the folder that was passed."""
    (project / "Packages").mkdir()
    shutil.move(project / LOAD, project / "Packages" / LOAD)
    found = [one for one in read_paths([tmp_path]) if one.package is not None]
    assert [one.package.findings for one in found if one.package is not None] == [()]


def test_build_output_is_a_copy_however_old_it_is(project: Path, tmp_path: Path) -> None:
    """A package that is in the build output only is read."""
    output = project / "obj" / "Development"
    output.mkdir(parents=True)
    old = (project / LOAD).read_text(encoding="utf-8").replace("ops@", "old@")
    (output / LOAD).write_text(old, encoding="utf-8")
    shutil.copy(project / "Relay.conmgr", output)
    build(project, project / "bin" / "Development" / "Nightly.ispac", Gone=MAIL.read_text(encoding="utf-8"))
    ispac = "project/bin/Development/Nightly.ispac"
    assert kinds_of(tmp_path, below=tmp_path) == [
        ("project", "project"),
        (f"project/{LOAD}", "package"),
        (f"{ispac}!Gone.dtsx", "package"),
        (f"{ispac}!{LOAD}", f"copy of project/{LOAD}"),
        (f"project/obj/Development/{LOAD}", f"copy of project/{LOAD}"),
    ]


def test_build_output_is_a_copy_where_the_project_file_is_missing(project: Path, tmp_path: Path) -> None:
    """Its connection managers and parameters show that it is a project; many repositories have nothing else of it."""
    (project / "obj").mkdir()
    old = (project / LOAD).read_text(encoding="utf-8").replace("ops@", "old@")
    (project / "obj" / LOAD).write_text(old, encoding="utf-8")
    for file in project.glob("*.dtproj"):
        file.unlink()
    found = [kind for name, kind in kinds_of(tmp_path, below=tmp_path) if "obj" in name]
    assert found == [f"copy of project/{LOAD}"]


def test_a_package_in_several_folders_is_read_once(tmp_path: Path) -> None:
    """Copies are recognized by their octets, whatever their names."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(MAIL, tmp_path / name / f"{name}.dtsx")
    assert kinds_of(tmp_path, below=tmp_path) == [("a/a.dtsx", "package"), ("b/b.dtsx", "copy of a/a.dtsx")]


def test_the_same_octets_in_another_project_are_another_package(project: Path, tmp_path: Path) -> None:
    """Where they mean another mail server."""
    other = Path(shutil.copytree(project, tmp_path / "q"))
    manager = (other / "Relay.conmgr").read_text(encoding="utf-8")
    (other / "Relay.conmgr").write_text(manager.replace("mail.corp", "mail2.corp"), encoding="utf-8")
    assert [kind for _, kind in kinds_of(tmp_path, below=tmp_path)] == ["project", "package", "project", "package"]


def test_a_connection_manager_is_read_on_its_own(tmp_path: Path) -> None:
    """Many repositories hold nothing else of mail."""
    (found,) = read_paths([PROJECT / "Relay.conmgr"])
    assert found.project is not None
    assert [one.name for one in found.project.connection_managers] == ["Relay"]
    assert read_connection_manager(PROJECT / "Relay.conmgr") == found.project.connection_managers[0]
    assert "hunter2" not in repr(found)


def test_a_dtsconfig_among_the_paths_holds_for_all() -> None:
    """It is not a package itself."""
    found = list(read_paths([PACKAGES / "references.dtsx", PACKAGES / "mail.dtsConfig"]))
    assert [one.package is not None for one in found] == [True]
    package = found[0].package
    assert package is not None and "relay.corp.example" in package.connection_managers[0].connection_string
