"""`questions.csv`: each question of an import once, and the answers that the next import takes from it."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.cli import main
from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.findings import Question
from airflow_provider_smtpcm.ssis.questions import PackageQuestion, QuestionList, read_answers
from tests.documents.pages import DOCS, blocks_of

[LOAD] = [block.code for block in blocks_of(DOCS / "reference/ssis-example.md") if block.language == "xml"]


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with three packages that differ in name only."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for number in range(3):
        text = LOAD.replace('DTS:ObjectName="load"', f'DTS:ObjectName="load {number}"')
        (folder / f"load {number}.dtsx").write_text(text, encoding="utf-8")
    return folder


def run(*arguments: str | Path) -> int:
    """Run the command."""
    return main(["import-ssis", *map(str, arguments)])


def rows_of(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    """Return the lines of a file by column."""
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""), delimiter=delimiter))


def fill_in(path: Path, answer: str = "keep", *, delimiter: str = ",", encoding: str = "utf-8-sig") -> None:
    """Write an answer into every line, as a person would."""
    rows = [{**row, "answer": answer} for row in rows_of(path)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))


def test_equal_questions_of_all_packages_are_one_line(packages: Path, tmp_path: Path) -> None:
    """With the packages that ask it and the mails that wait, the most first; the reports have the same list."""
    out = tmp_path / "out"
    assert run(packages, "--out", out) == 3
    rows = rows_of(out / "questions.csv")
    assert list(rows[0]) == ["question", "packages", "mails", "guess", "answer", "key"]
    assert [(row["packages"], row["mails"], row["answer"]) for row in rows] == [("3", "3", "")] * len(rows)
    assert len({row["key"] for row in rows}) == len(rows)
    assert any("Windows Authentication" in row["question"] for row in rows)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [{**row, "answer": None} for row in rows] == [
        {**one, "packages": str(one["packages"]), "mails": str(one["mails"])} for one in report["questions"]
    ]
    assert report["counts"]["questions"] == len(rows)
    html = (out / "report.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r' id="(question-\w+)"', html))
    assert len(anchors) == len(rows)
    assert set(re.findall(r'href="#(question-\w+)"', html)) <= anchors


def test_excel_opens_it_as_utf8(packages: Path, tmp_path: Path) -> None:
    """For that it begins with a byte order mark."""
    run(packages, "--out", tmp_path)
    assert (tmp_path / "questions.csv").read_bytes().startswith(b"\xef\xbb\xbfquestion,")


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16")])
def test_a_second_import_asks_nothing_that_was_answered(
    packages: Path, tmp_path: Path, delimiter: str, encoding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In whatever form a spreadsheet has saved the file."""
    out = tmp_path / "out"
    run(packages, "--out", out)
    questions = out / "questions.csv"
    fill_in(questions, delimiter=delimiter, encoding=encoding)
    capsys.readouterr()
    assert run(packages, "--out", out, "--answers", questions) == 0
    assert "wait for the answer" not in capsys.readouterr().out
    rows = rows_of(questions)
    assert {row["answer"] for row in rows} == {"keep"}, "the next import still needs them"
    assert {row["mails"] for row in rows} == {"3"}
    assert run(packages, "--out", out, "--answers", questions) == 0


def test_without_a_question_there_is_no_file(packages: Path, tmp_path: Path) -> None:
    """And one that an earlier import wrote is removed."""
    run(packages, "--out", tmp_path)
    assert (tmp_path / "questions.csv").exists()
    decided = ("--windows-auth", "keep", "--map-path", r"\\files\loads=/srv/loads")
    assert run(packages, "--out", tmp_path, *decided) == 0
    assert not (tmp_path / "questions.csv").exists()


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_answers_that_were_not_given_are_never_overwritten(
    packages: Path, tmp_path: Path, force: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The new questions are next to them."""
    out = tmp_path / "out"
    run(packages, "--out", out)
    fill_in(out / "questions.csv")
    answered = (out / "questions.csv").read_bytes()
    assert run(packages, "--out", out, *force) == 3
    assert f"Import again with --answers {out / 'questions.csv'}" in " ".join(capsys.readouterr().out.split())
    assert (out / "questions.csv").read_bytes() == answered
    assert {row["answer"] for row in rows_of(out / "questions.csv.new")} == {""}
    assert run(packages, "--out", out, "--answers", out / "questions.csv") == 0
    assert not (out / "questions.csv.new").exists()


def test_a_column_that_somebody_added_is_kept(packages: Path, tmp_path: Path) -> None:
    """Such as the person to ask."""
    out = tmp_path / "out"
    run(packages, "--out", out)
    questions = out / "questions.csv"
    text = questions.read_text("utf-8-sig").replace("answer,key", "answer,key,who")
    questions.write_text(text, encoding="utf-8")
    run(packages, "--out", out, "--answers", questions)
    assert questions.read_text(encoding="utf-8") == text
    assert (out / "questions.csv.new").exists()
    run(packages, "--out", out, "--answers", questions, "--force")
    assert "who" not in questions.read_text(encoding="utf-8")


def test_an_answer_without_a_question_is_reported_and_kept(
    packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may belong to packages that are imported another time."""
    answers = tmp_path / "answers.csv"
    answers.write_text("key,question,answer\nvariable User::Gone,Who?,ops@corp.example\n", encoding="utf-8")
    out = tmp_path / "out"
    decided = ("--windows-auth", "keep", "--map-path", r"\\files\loads=/srv/loads")
    assert run(packages, "--out", out, "--answers", answers, *decided) == 0
    assert "a question that this import does not ask: 'variable User::Gone'" in " ".join(
        capsys.readouterr().out.split()
    )
    [row] = rows_of(out / "questions.csv")
    assert (row["answer"], row["question"], row["mails"]) == ("ops@corp.example", "Who?", "0")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, r"answers\.csv cannot be read: No such file"),
        (b"", "has no columns 'key' and 'answer'"),
        (b"\xef\xbb\xbfquestion,answer\nWho?,me\n", "has no columns 'key' and 'answer'"),
        (b"\r\r\n\0", "has no columns 'key' and 'answer'"),
        ("key,answer\nvariable User::Gr\xfc\xdfe,x\n".encode("latin-1"), "is not in UTF-8"),
        (b"key,answer\n,x\n", "line 2, has an answer but no key"),
        (b"key,answer\na,x\nb,\na,y\n", r"line 2 and .*line 4 give different answers to the same question, 'a'"),
        (b'key,answer\na,"' + b"x" * 200_000, "is not CSV"),
        (b"key,answer\npath D:,D:\\loads\n", "line 2: .*'path D:' is neither a path on a worker nor keep"),
        (b"key,answer\nwindows authentication of mail,yes\n", "is neither keep nor anonymous"),
        (
            b"key,answer\nvariable User::Text in event handlers,@[System::ErrorDescription\n",
            "line 2: the answer to .* is not an SSIS expression",
        ),
        (b"key,answer\nloop-runs-once,no\n", "can only be keep"),
        (b"key,answer\nconfiguration sql server t,x\n", "can only be keep. Give an export of the table"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_before_anything_is_written(
    tmp_path: Path, content: bytes | None, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its line, and what to do."""
    answers = tmp_path / "answers.csv"
    if content is not None:
        answers.write_bytes(content)
    with pytest.raises(PackageError, match=complaint):
        read_answers([answers])
    assert run("x.dtsx", "--out", tmp_path / "out", "--answers", answers) == 2
    assert capsys.readouterr().err.startswith("import-ssis: ")
    assert not (tmp_path / "out").exists()


def test_two_files_that_contradict_each_other_are_an_error(tmp_path: Path) -> None:
    """Equal answers are none."""
    for number, answer in enumerate(("keep", "KEEP", "no")):
        (tmp_path / f"{number}.csv").write_text(f"key;answer\na;{answer}\n", encoding="utf-8")
    assert dict(read_answers([tmp_path / "0.csv", tmp_path / "1.csv"])) == {"a": "keep"}
    with pytest.raises(PackageError, match=r"0\.csv, line 2 and .*2\.csv, line 2 give different answers"):
        read_answers([tmp_path / "0.csv", tmp_path / "2.csv"])


def test_a_guess_that_is_copied_is_an_answer(tmp_path: Path) -> None:
    """Also with the apostrophe that keeps Excel from taking it for a formula; any other apostrophe is text."""
    file = tmp_path / "questions.csv"
    lines = ("User::A in event handlers,'@[System::ErrorDescription]", "User::B,'quoted'", "User::C,'-1")
    file.write_text("key,answer\n" + "".join(f"variable {line}\n" for line in lines), encoding="utf-8")
    answers = read_answers([file])
    assert answers["variable User::A in event handlers"] == "@[System::ErrorDescription]"
    assert (answers["variable User::B"], answers["variable User::C"]) == ("'quoted'", "-1")


def test_no_cell_from_a_package_is_a_formula() -> None:
    """Excel would run it."""
    questions = QuestionList()
    questions.add_package(
        ("a.dtsx", "a"), [PackageQuestion(question=Question(key="a", text="=HYPERLINK(1)", guess="@SUM(1)"))]
    )
    [_, cells] = csv.reader(io.StringIO(questions.to_csv(), newline=""))
    assert cells[0].startswith("'=")
    assert cells[3].startswith("'@")


def test_no_credentials_are_in_it() -> None:
    """From any text of a package."""
    questions = QuestionList()
    text = "UserName=svc-etl;Password=hush1;"
    questions.add_package(("a.dtsx", "a"), [PackageQuestion(question=Question(key=text, text=text, guess=text))])
    assert "hush1" not in questions.to_csv()


def test_answers_work_from_both_commands(packages: Path, tmp_path: Path) -> None:
    """`python -m` and `airflow smtpcm` share their arguments."""
    run(packages, "--out", tmp_path)
    fill_in(tmp_path / "questions.csv")
    words = [sys.executable, "-m", "airflow_provider_smtpcm", "import-ssis", str(packages), "--out", str(tmp_path)]
    ended = subprocess.run([*words, "--answers", str(tmp_path / "questions.csv")], check=False, capture_output=True)
    assert ended.returncode == 0


GUID = "{4F2A0B8E-3C1D-4B6A-9E57-000000000001}"
#: The SMTP connection manager of the package.
MANAGER = re.search(r"<DTS:ConnectionManager .*?</DTS:ObjectData>\s*</DTS:ConnectionManager>", LOAD, re.DOTALL)
DECIDED = ("--windows-auth", "keep", "--map-path", r"\\files\loads=/srv/loads")


def mail_connections(out: Path) -> dict[str, Any]:
    """Return the connections of an import that are mail servers."""
    connections = json.loads((out / "connections.json").read_text(encoding="utf-8"))
    return {conn_id: one for conn_id, one in connections.items() if one["conn_type"] == "smtpcm"}


def imported(
    tmp_path: Path, text: str, answers: dict[str, str], *options: str
) -> tuple[str, dict[str, Any], list[str]]:
    """Import a package with answers; return its DAG, the connections, and the keys of the questions that are left."""
    (tmp_path / "p").mkdir(exist_ok=True)
    (tmp_path / "p/load.dtsx").write_text(text, encoding="utf-8")
    given = tmp_path / "answers.csv"
    with given.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("key", "answer"), *answers.items()])
    out = tmp_path / "out"
    run(tmp_path / "p", "--out", out, "--answers", given, *options)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    connections = mail_connections(out)
    assert {one["key"]: one["answer"] for one in report["questions"] if one["answer"]} == answers
    assert "answer-not-asked" not in {one["code"] for one in report["findings"]}
    dag = (out / "dags/load.py").read_text(encoding="utf-8")
    return dag, connections, [one["key"] for one in report["questions"] if not one["answer"]]


def test_an_answer_makes_a_connection_anonymous(tmp_path: Path) -> None:
    """One for all connection managers of a server."""
    answers = {"windows authentication of exchange.corp.example": "anonymous"}
    _, connections, left = imported(tmp_path, LOAD, answers, *DECIDED[2:])
    assert left == []
    assert {one["extra"]["auth_mode"] for one in connections.values()} == {"anonymous"}


def test_an_answer_says_where_a_drive_or_a_share_is(tmp_path: Path) -> None:
    """In any case of letters; the other paths stay."""
    text = LOAD.replace(r"\\files\loads\errors.log", r"d:\logs\errors.log").replace(r"\\files\loads", r"\\FILES\Loads")
    dag, _, left = imported(tmp_path, text, {r"path \\files\loads": "/mnt/loads"}, *DECIDED[:2])
    assert '"/mnt/loads/rows.csv"' in dag
    assert left == ["path D:\\"]
    dag, _, left = imported(tmp_path, text, {r"path \\files\loads": "keep", "path D:\\": "/data/"}, *DECIDED[:2])
    assert '"/data/logs/errors.log"' in dag
    assert r"\\\\FILES\\Loads" in dag
    assert left == []


def test_an_answer_is_the_server_of_a_connection_manager_without_one(tmp_path: Path) -> None:
    """Where SSIS would fail."""
    text = LOAD.replace("SmtpServer=exchange.corp.example", "SmtpServer=")
    assert imported(tmp_path, text, {}, *DECIDED)[2] == ["server of Mail"]
    _, connections, left = imported(tmp_path, text, {"server of Mail": "relay.corp.example"}, *DECIDED)
    assert left == []
    assert [one["host"] for one in connections.values()] == ["relay.corp.example"]


@pytest.mark.parametrize(
    ("answer", "host", "ssl_mode"),
    [
        ("relay.corp.example", "relay.corp.example", "none"),
        ("SmtpServer=relay.corp.example;EnableSsl=True;", "relay.corp.example", "starttls"),
        ("MAIL", "exchange.corp.example", "starttls"),
    ],
)
def test_an_answer_is_the_connection_manager_of_a_dangling_reference(
    answer: str, host: str, ssl_mode: str, tmp_path: Path
) -> None:
    """A server, a connection string, or the name of another connection manager of the package."""
    text = LOAD.replace(f'SMTPServer="{GUID}"', f'SMTPServer="{GUID.replace("1}", "9}")}"')
    key = f"connection manager {GUID.replace('1}', '9}')}"
    assert imported(tmp_path, text, {}, *DECIDED)[2] == [key]
    dag, connections, left = imported(tmp_path, text, {key: answer}, *DECIDED)
    assert left == []
    [conn_id] = re.findall('smtpcm_conn_id="(.*)"', dag)
    assert (connections[conn_id]["host"], connections[conn_id]["extra"]["ssl_mode"]) == (host, ssl_mode)


def test_a_connection_manager_of_another_package_is_suggested(tmp_path: Path) -> None:
    """Also if that package is read later; answered with the suggestion, both use one connection."""
    folder = tmp_path / "p"
    folder.mkdir()
    assert MANAGER is not None
    (folder / "1.dtsx").write_text(LOAD.replace(MANAGER[0], ""), encoding="utf-8")
    (folder / "2.dtsx").write_text(LOAD.replace('"load"', '"other"'), encoding="utf-8")
    out = tmp_path / "out"
    run(folder, "--out", out, *DECIDED)
    [row] = rows_of(out / "questions.csv")
    assert row["key"] == f"connection manager {GUID}"
    assert f"'Mail' in {folder / '2.dtsx'} has this GUID" in row["question"]
    text = (out / "questions.csv").read_text("utf-8-sig")
    (out / "questions.csv").write_text(
        text.replace(f"{row['guess']},,", f"{row['guess']},{row['guess']},"), "utf-8-sig"
    )
    assert run(folder, "--out", out, "--answers", out / "questions.csv", *DECIDED) == 0
    assert len(mail_connections(out)) == 1


def test_questions_of_one_kind_are_one_line_and_can_be_answered_apart(tmp_path: Path) -> None:
    """One answer holds for all keys of the line, and a copy of the line can answer some of them differently."""
    folder, out, line = tmp_path / "p", tmp_path / "out", tmp_path / "out/questions.csv"
    folder.mkdir()
    assert MANAGER is not None
    other = GUID.replace(GUID[1:5], "FFFF")
    dangling = LOAD.replace(MANAGER[0], "")
    (folder / "1.dtsx").write_text(dangling, encoding="utf-8")
    (folder / "2.dtsx").write_text(dangling.replace(GUID, other).replace('"load"', '"other"'), encoding="utf-8")
    run(folder, "--out", out, *DECIDED)
    [row] = rows_of(line)
    keys = [f"connection manager {guid}" for guid in sorted((GUID, other))]
    assert row["key"].splitlines() == keys
    assert (row["packages"], row["mails"]) == ("2", "2")
    assert GUID in row["question"]
    assert other in row["question"]
    fill_in(line, "mail.corp.example")
    assert run(folder, "--out", out, "--answers", line, *DECIDED) == 0
    assert {one["host"] for one in mail_connections(out).values()} == {"mail.corp.example"}
    [row] = rows_of(line)
    assert row["key"].splitlines() == keys, "it stays one line"
    copies = [{**row, "key": key, "answer": f"mail{number}.corp.example"} for number, key in enumerate(keys)]
    with line.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(copies)
    assert run(folder, "--out", out, "--answers", line, *DECIDED) == 0
    assert {one["host"] for one in mail_connections(out).values()} == {"mail0.corp.example", "mail1.corp.example"}
    assert [row["key"] for row in rows_of(line)] == keys


@pytest.mark.parametrize("is_suggested", [False, True])
def test_an_answer_that_is_kept_names_nothing_that_the_import_no_longer_has(
    tmp_path: Path, *, is_suggested: bool
) -> None:
    """Neither the other subjects of its line, nor a package from which an answer was suggested."""
    folder, out, line = tmp_path / "p", tmp_path / "out", tmp_path / "out/questions.csv"
    folder.mkdir()
    assert MANAGER is not None
    other = GUID.replace(GUID[1:5], "FFFF")
    dangling = LOAD.replace(MANAGER[0], "")
    (folder / "1.dtsx").write_text(dangling, encoding="utf-8")
    gone = LOAD if is_suggested else dangling.replace(GUID, other)
    (folder / "2.dtsx").write_text(gone.replace('"load"', '"other"'), encoding="utf-8")
    run(folder, "--out", out, *DECIDED)
    fill_in(line, "mail.corp.example")
    (folder / "1.dtsx").write_text(dangling.replace(GUID, other) if is_suggested else dangling, encoding="utf-8")
    (folder / "2.dtsx").unlink()
    answers = tmp_path / "answers.csv"
    line.rename(answers)
    for _ in range(2):
        run(folder, "--out", out, "--answers", answers, *DECIDED)
        [row] = [row for row in rows_of(line) if row["mails"] == "0"]
        assert row["key"] == f"connection manager {GUID if is_suggested else other}"
        assert row["answer"] == "mail.corp.example"
        assert (GUID if not is_suggested else other) not in row["question"]
        assert "2.dtsx" not in row["question"]
        answers = line


def test_a_name_from_another_package_is_reported_as_a_server(tmp_path: Path) -> None:
    """One line may ask for several packages, and the manager of one is none of the others."""
    text = LOAD.replace(f'SMTPServer="{GUID}"', f'SMTPServer="{GUID.replace("1}", "9}")}"')
    key = f"connection manager {GUID.replace('1}', '9}')}"
    for answer, told in (("Mail", False), ("Relay", True)):
        imported(tmp_path, text, {key: answer}, *DECIDED)
        report = (tmp_path / "out/report.json").read_text(encoding="utf-8")
        assert ("answer-as-server" in report) is told


def test_a_package_with_two_servers_is_counted_once(tmp_path: Path) -> None:
    """One line asks for both, and has the package once and both mails."""
    manager = LOAD[
        LOAD.index("    <DTS:ConnectionManager DTS:refId") : LOAD.index(
            '    <DTS:ConnectionManager DTS:refId="Package.ConnectionManagers[Sales]'
        )
    ]
    mail = LOAD[LOAD.index('    <DTS:Executable DTS:refId="Package\\Send Mail"') : LOAD.index("  </DTS:Executables>")]
    other = GUID.replace("1}", "9}")
    second = (
        manager.replace(GUID, other)
        .replace("[Mail]", "[Other]")
        .replace('"Mail"', '"Other"')
        .replace("exchange", "relay")
    )
    again = mail.replace(GUID, other).replace("Send Mail", "Send Again").replace("5}", "8}")
    (tmp_path / "p.dtsx").write_text(LOAD.replace(manager, manager + second).replace(mail, mail + again), "utf-8")
    run(tmp_path / "p.dtsx", "--out", tmp_path / "out", "--map-path", r"\\files\loads=/srv/loads")
    [row] = rows_of(tmp_path / "out/questions.csv")
    assert len(row["key"].splitlines()) == 2
    assert (row["packages"], row["mails"]) == ("1", "2")


@pytest.mark.parametrize(("data_type", "answer", "default"), [(8, "Operations", '"Operations"'), (3, "4", "4")])
def test_an_answer_is_the_value_of_a_parameter(tmp_path: Path, data_type: int, answer: str, default: str) -> None:
    """Which SSIS requires; on the next import, the mails that use it are still counted."""
    text = LOAD.replace(
        "<DTS:Variables>",
        f'<DTS:PackageParameters><DTS:PackageParameter DTS:DataType="{data_type}" DTS:ObjectName="Team"'
        ' DTS:Required="True"></DTS:PackageParameter></DTS:PackageParameters><DTS:Variables>',
    ).replace("@[User::Table]", "(DT_WSTR, 9)@[$Package::Team]")
    key = "variable $Package::Team"
    assert imported(tmp_path, text, {}, *DECIDED)[2] == [key]
    dag, _, left = imported(tmp_path, text, {key: answer}, *DECIDED)
    assert f'"Team": {default}' in dag
    assert left == []
    assert {row["key"]: row["mails"] for row in rows_of(tmp_path / "out/questions.csv")} == {key: "1"}


def test_all_filters_of_a_configuration_table_are_one_question(tmp_path: Path) -> None:
    """It names the filters, since an export of the table answers all of them."""
    folder = tmp_path / "p"
    folder.mkdir()
    for number in range(12):
        configurations = "<DTS:Configurations>" + "".join(
            '<DTS:Configuration DTS:ConfigurationType="7" DTS:ConfigurationString="&quot;Admin&quot;;'
            f'&quot;[dbo].[SSIS Configurations]&quot;;&quot;{name}&quot;;" DTS:ObjectName="{name}"/>'
            for name in ("Mail", f"Filter {number}")
        )
        text = LOAD.replace('DTS:ObjectName="load">', 'DTS:ObjectName="load" DTS:EnableConfig="True">')
        text = text.replace(
            "<DTS:ConnectionManagers>", f"{configurations}</DTS:Configurations><DTS:ConnectionManagers>"
        )
        (folder / f"{number}.dtsx").write_text(text, encoding="utf-8")
    run(folder, "--out", tmp_path / "out", *DECIDED)
    [row] = rows_of(tmp_path / "out/questions.csv")
    assert (row["packages"], row["mails"]) == ("12", "12")
    assert row["question"].count("Mail") == 1
    assert row["question"].endswith("Filter 6 and 3 more.")


def test_what_no_mail_waits_for_is_not_a_question(tmp_path: Path) -> None:
    """A connection manager of a package without mail, and a package whose mail is disabled."""
    assert MANAGER is not None
    root = '<DTS:Executable xmlns:DTS="www.microsoft.com/SqlServer/Dts" DTS:ExecutableType="x">'
    unused = f"{root}{MANAGER[0]}</DTS:Executable>"
    disabled = LOAD.replace('DTS:ObjectName="Send Mail"', 'DTS:ObjectName="Send Mail" DTS:Disabled="True"')
    for name, text in (("unused", unused), ("disabled", disabled)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "load.dtsx").write_text(text, encoding="utf-8")
        assert run(tmp_path / name, "--out", tmp_path / name / "out") == 0
        assert not (tmp_path / name / "out/questions.csv").exists()


def test_connections_alone_are_asked_for(tmp_path: Path) -> None:
    """An import of a connection manager alone is about the connection."""
    assert MANAGER is not None
    text = MANAGER[0].replace(
        "<DTS:ConnectionManager ", '<DTS:ConnectionManager xmlns:DTS="www.microsoft.com/SqlServer/Dts" ', 1
    )
    (tmp_path / "Mail.conmgr").write_text(text, encoding="utf-8")
    assert run(tmp_path / "Mail.conmgr", "--out", tmp_path / "out") == 3
    [row] = rows_of(tmp_path / "out/questions.csv")
    assert row["key"] == "windows authentication of exchange.corp.example"
