"""`import-ssis` from the command line: on one package, on hundreds, and on files that are not packages."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_smtpcm.cli import main
from airflow_provider_smtpcm.ssis import command
from airflow_provider_smtpcm.ssis.import_packages import ConvertedPackage, PackageConverter
from airflow_provider_smtpcm.ssis.model import Package, Project
from airflow_provider_smtpcm.ssis.reading import discovery
from airflow_provider_smtpcm.ssis.reading.packages import ReadOptions, build_package
from airflow_provider_smtpcm.ssis.reading.xml import Element
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions
from benchmarks.ssis_spoilt import spoil
from benchmarks.ssis_tree import make_tree
from tests.documents.pages import DOCS, blocks_of

PROGRAM = [sys.executable, "-m", "airflow_provider_smtpcm"]
#: The package on the page.
[LOAD] = [block.code for block in blocks_of(DOCS / "reference/ssis-example.md") if block.language == "xml"]


#: All that a person has to decide about it.
DECIDED = ("--windows-auth", "keep", "--map-path", r"\\files\loads=/srv/loads")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with the package of the documentation."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "load.dtsx").write_text(LOAD, encoding="utf-8")
    return folder


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    words = [*PROGRAM, "import-ssis", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required: PATH, --out"),
        (["x.dtsx"], "required: --out"),
        (["x.dtsx", "--out", "o", "--windows-auth", "none"], "give keep, anonymous"),
        (["x.dtsx", "--out", "o", "--windows-auth", "anonymous="], "give keep, anonymous"),
        (["x.dtsx", "--out", "o", "--placeholders", "skip"], "choose from"),
        (["x.dtsx", "--out", "o", "--map-path", r"\\files\loads"], r"write it as '\\server\share=/mnt/share'"),
        (["x.dtsx", "--out", "o", "--map-path", r"\\files\loads=loads"], "write it as"),
    ],
)
def test_wrong_arguments_are_explained(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With argparse's exit status, and nothing is written."""
    with pytest.raises(SystemExit) as end:
        main(["import-ssis", *arguments])
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_path_that_does_not_exist_is_an_error_before_anything_is_written(packages: Path, tmp_path: Path) -> None:
    """Also next to one that does: half of an import looks like all of it."""
    ended = run(packages, tmp_path / "pakcages", "--out", tmp_path / "out")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert f"{tmp_path / 'pakcages'} does not exist" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_an_option_that_names_nothing_in_the_packages_is_reported(packages: Path, tmp_path: Path) -> None:
    """A typo in it would otherwise look like a decision that was made."""
    words = ["--windows-auth", "anonymous=Typo", "--map-path", r"\\typo\share=/mnt"]
    ended = run(packages, "--out", tmp_path / "out", *words, *DECIDED)
    told = " ".join(ended.stdout.split())
    assert "--windows-auth names 'Typo', but no connection manager has that name." in told
    assert r"--map-path maps \\typo\share, but no path of a mail begins with it." in told
    assert "files" not in told.partition("--map-path maps")[2].partition(".")[0]


@pytest.mark.parametrize("content", [b"", b"<html/>", b"\0" * 100])
def test_without_a_readable_package_only_the_reason_is_given(tmp_path: Path, content: bytes) -> None:
    """Files that are not packages."""
    path = tmp_path / "x.dtsx"
    path.write_bytes(content)
    ended = run(path, "--out", tmp_path / "out")
    assert ended.returncode == 2
    assert str(path) in ended.stdout.replace("\n    ", " ")
    assert "Traceback" not in ended.stdout + ended.stderr
    assert sorted(one.name for one in (tmp_path / "out/dags").iterdir()) == []


def test_paths_that_overlap_are_read_once(packages: Path, tmp_path: Path) -> None:
    """A package, its folder, and the folder again, which is not reported as empty."""
    ended = run(packages / "load.dtsx", packages, packages, "--out", tmp_path / "out", *DECIDED)
    assert ended.returncode == 0, ended.stdout
    assert "1  package read" in ended.stdout


def test_a_folder_without_packages_is_reported(tmp_path: Path) -> None:
    """The wrong folder is the most common mistake."""
    ended = run(tmp_path, "--out", tmp_path / "out")
    assert ended.returncode == 2
    assert "contains no SSIS package" in ended.stdout


def test_a_folder_that_cannot_be_written_is_reported_on_one_line(packages: Path, tmp_path: Path) -> None:
    """With the remedy."""
    (tmp_path / "file").write_text("a file")
    ended = run(packages, "--out", tmp_path / "file")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert re.fullmatch(r"import-ssis: .*file.* cannot be written: .*\n", ended.stderr)


def test_an_account_in_a_connection_string_is_written_nowhere(packages: Path, tmp_path: Path) -> None:
    """Not in a DAG, the connections, a report or the terminal."""
    text = LOAD.replace("EnableSsl=True;", "EnableSsl=True;UserName=svc-etl;Password=hush1;")
    assert text != LOAD
    (packages / "load.dtsx").write_text(text, encoding="utf-8")
    ended = run(packages, "--out", tmp_path / "out")
    assert ended.returncode == 3
    written = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert "load" in written
    assert "hush1" not in written + ended.stdout + ended.stderr


def test_a_dangling_reference_needs_attention(packages: Path, tmp_path: Path) -> None:
    """Exit status 3, and the finding is printed."""
    text = re.sub(r'SMTPServer="[^"]*"', 'SMTPServer="{00000000-0000-0000-0000-000000000000}"', LOAD)
    (packages / "load.dtsx").write_text(text, encoding="utf-8")
    ended = run(packages, "--out", tmp_path / "out")
    assert ended.returncode == 3
    assert "Which SMTP connection manager has the GUID {00000000-" in ended.stdout


def test_an_option_answers_the_question_of_its_finding(packages: Path, tmp_path: Path) -> None:
    """Without the options, Windows Authentication and a Windows path need a decision."""
    asked = run(packages, "--out", tmp_path / "1")
    assert asked.returncode == 3
    said = " ".join(asked.stdout.split())
    assert "Does the mail server exchange.corp.example accept Windows Authentication from the accounts" in said
    assert r"Where is \\files\loads on the workers?" in said
    for choice in ("keep", "keep=mail", "anonymous", "anonymous=MAIL"):
        ended = run(packages, "--out", tmp_path / choice, *DECIDED[2:], "--windows-auth", choice)
        assert ended.returncode == 0, choice
        connections = json.loads((tmp_path / choice / "connections.json").read_text(encoding="utf-8")).values()
        [connection] = [each for each in connections if each["conn_type"] == "smtpcm"]
        assert connection["extra"]["auth_mode"] == ("windows" if "keep" in choice else "anonymous")
    other = run(packages, "--out", tmp_path / "2", *DECIDED[2:], "--windows-auth", "keep=another")
    assert other.returncode == 3


def test_a_package_becomes_a_dag_a_connection_and_a_report(packages: Path, tmp_path: Path) -> None:
    """The summary names the files; a second run changes nothing."""
    out = tmp_path / "out"
    first = run(packages, "--out", out, *DECIDED)
    assert (first.returncode, first.stderr) == (0, "")
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path.name[0] != ".")
    assert files == ["connections.json", "dags/load.py", "report.html", "report.json"]
    assert f"airflow connections import {out / 'connections.json'}" in first.stdout
    texts = {name: (out / name).read_bytes() for name in files}
    assert run(packages, "--out", out, *DECIDED).stdout == first.stdout
    assert {name: (out / name).read_bytes() for name in files} == texts


def test_the_summary_counts_the_files_that_were_kept(packages: Path, tmp_path: Path) -> None:
    """So that nobody misses the new text, and runs an old DAG."""
    out = tmp_path / "out"
    assert "edited file" not in run(packages, "--out", out, *DECIDED).stdout
    (out / "dags/load.py").write_text("# mine\n")
    again = run(packages, "--out", out, *DECIDED)
    assert again.returncode == 3
    assert "1  edited file kept, with the new text next to it, as NAME.new" in again.stdout
    assert (out / "dags/load.py").read_text() == "# mine\n"


def test_that_placeholders_pass_is_on_the_first_line(packages: Path, tmp_path: Path) -> None:
    """Of the terminal and of the report; a reader then knows that these DAGs mail without having done the work."""
    out = tmp_path / "out"
    ended = run(packages, "--out", out, *DECIDED, "--placeholders", "pass")
    assert ended.stdout.startswith("Placeholders pass (--placeholders pass)")
    assert "1  placeholder to replace with a task" in ended.stdout
    assert "passes=True" in (out / "dags/load.py").read_text()
    text = re.sub("<[^>]*>", "", (out / "report.html").read_text().partition("<h1>SSIS import</h1>")[2])
    assert text.lstrip().startswith("Placeholders pass (--placeholders pass)")
    report = json.loads((out / "report.json").read_text())
    assert report["placeholders_pass"] is True
    assert report["counts"]["placeholders"] == 1


def test_placeholders_fail_unless_they_are_to_pass(packages: Path, tmp_path: Path) -> None:
    """And neither report mentions the option."""
    out = tmp_path / "out"
    ended = run(packages, "--out", out, *DECIDED, "--json")
    summary = json.loads(ended.stdout)
    assert summary["placeholders_pass"] is False
    assert summary["counts"]["placeholders"] == 1
    assert "passes=True" not in (out / "dags/load.py").read_text()
    assert "Placeholders pass" not in (out / "report.html").read_text()


def test_with_json_the_output_is_one_object(packages: Path, tmp_path: Path) -> None:
    """And nothing else."""
    (packages / "broken.dtsx").write_bytes(b"")
    ended = run(packages, "--out", tmp_path / "out", "--json")
    summary = json.loads(ended.stdout)
    assert ended.stderr == ""
    assert (ended.returncode, summary["exit_status"]) == (3, 3)
    assert (summary["counts"]["packages"], summary["counts"]["unreadable"]) == (1, 1)
    assert json.loads(Path(summary["report"]).read_text(encoding="utf-8"))["counts"] == summary["counts"]


def test_a_closed_pipe_is_not_an_error(packages: Path, tmp_path: Path) -> None:
    """As in `... | head -0`."""
    read, write = os.pipe()
    os.close(read)
    words = [*PROGRAM, "import-ssis", str(packages), "--out", str(tmp_path / "out")]
    ended = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")
    assert (tmp_path / "out/report.html").exists()


def test_progress_is_shown_on_a_terminal_and_cleared(packages: Path, tmp_path: Path) -> None:
    """On standard error; the tests above show that there is none without a terminal."""
    ours, theirs = pty.openpty()
    words = [*PROGRAM, "import-ssis", str(packages), "--out", str(tmp_path / "out"), *DECIDED]
    ended = subprocess.run(words, stdout=subprocess.PIPE, stderr=theirs, check=False)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert ended.returncode == 0
    assert "load.dtsx" in shown
    assert re.search(r"\r +\r$", shown)
    assert b"\r" not in ended.stdout


def test_an_internal_error_of_the_reader_in_one_package_stops_no_other(
    many_packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The package is named, with a request to report the error."""

    def breaking(root: Element, path: str, options: ReadOptions) -> Package:
        if "load 1" in path:
            raise IndexError("list index out of range")
        return build_package(root, path, options)

    monkeypatch.setattr(discovery, "build_package", breaking)
    assert main(["import-ssis", str(many_packages), "--out", str(tmp_path / "out")]) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "load 1.dtsx: The importer itself failed here: IndexError: list index out of range" in said
    assert "Please report it" in said
    assert sorted(path.name for path in (tmp_path / "out/dags").iterdir()) == ["load_0.py", "load_2.py"]


class _Interrupted(PackageConverter):
    """A converter that receives SIGINT at each package."""

    def __init__(self, times: int, options: ConversionOptions) -> None:
        super().__init__(options)
        self._times = times

    def convert(self, package: Package, project: Project | None) -> ConvertedPackage:
        for _ in range(self._times):
            signal.raise_signal(signal.SIGINT)
        return super().convert(package, project)


@pytest.fixture
def many_packages(tmp_path: Path) -> Path:
    """A folder with three packages, all with mail."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for number in range(3):
        text = LOAD.replace('DTS:ObjectName="load"', f'DTS:ObjectName="load {number}"')
        (folder / f"load {number}.dtsx").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_complete_files(
    times: int, many_packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the first, the current package is finished and the reports are written. The second stops at once."""
    monkeypatch.setattr(command, "PackageConverter", lambda options: _Interrupted(times, options))
    before = signal.getsignal(signal.SIGINT)
    assert main(["import-ssis", str(many_packages), "--out", str(tmp_path / "out")]) == 130
    assert signal.getsignal(signal.SIGINT) is before
    said = capsys.readouterr()
    dags = list((tmp_path / "out/dags").iterdir())
    if times == 1:
        assert "Stopped before the end" in said.out
        report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
        assert (report["interrupted"], len(report["packages"]), len(dags)) == (True, 1, 1)
    else:
        assert "Stopped at once" in said.err
        assert not dags
    assert list((tmp_path / "out").rglob("*.tmp")) == []


@pytest.fixture(scope="module", params=[1, 2, 3])
def wild(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 packages of all formats with their builds; half of them are changed at random, truncated or not packages."""
    folder = tmp_path_factory.mktemp("wild")
    chance = random.Random(request.param)  # noqa: S311
    for path in make_tree(folder, 500, seed=request.param, with_mail=0.6, big=2).files:
        if chance.random() < 0.5:
            spoil(chance, path)
    return folder


_MEASURED = """
import pathlib, re, sys
from airflow_provider_smtpcm.cli import main
status = main(sys.argv[1:])
memory = re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]
print("MiB", int(memory) // 1024, file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.slow
def test_every_file_of_a_tree_is_converted_or_reported(wild: Path, tmp_path: Path) -> None:
    """No traceback, no internal error, bounded memory; and every DAG is valid Python."""
    out = tmp_path / "out"
    words = [sys.executable, "-c", _MEASURED, "import-ssis", str(wild), "--out", str(out), "--json"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    [memory] = re.findall(r"MiB (\d+)", ended.stderr)
    assert int(memory) < 100
    counts = json.loads(ended.stdout)["counts"]
    assert counts["packages"] + counts["unreadable"] >= 480  # those cut alike are copies of each other
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    failed = [
        finding["text"]
        for package in [report, *report["packages"]]
        for finding in package["findings"]
        if finding["code"] == "importer-failed"
    ]
    assert failed == []
    dags = list((out / "dags").iterdir())
    assert counts["dags"] == len(dags) > 100
    for path in dags:
        compile(path.read_bytes(), path, "exec")
    json.loads((out / "connections.json").read_text(encoding="utf-8"))


def test_the_output_is_not_read_as_input(packages: Path) -> None:
    """An output folder within the input folder changes nothing at the next run."""
    first = run(packages, "--out", packages / "airflow", *DECIDED)
    assert first.returncode == 0
    assert run(packages, "--out", packages / "airflow", *DECIDED).stdout == first.stdout
