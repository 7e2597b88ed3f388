"""Blocks that are not programs: connections and results in JSON, configuration, templates, and output."""

from __future__ import annotations

import configparser
import csv
import io
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.merge.report import MergeReport
from airflow_provider_smtpcm.merge.result import MergeResult
from airflow_provider_smtpcm.merge.rows import Rows
from airflow_provider_smtpcm.smtp import Delivery, Outcome
from airflow_provider_smtpcm.testing import Relay
from tests.check.checked import make_check
from tests.documents.pages import DOCS, ROOT, Block, blocks_in, commands_of
from tests.integration.kerberos import KerberosRealm
from tests.integration.system_packages import skip_for_want_of

CHECKED = {"xml", "json", "ini", "krb5", "ktutil", "dockerfile", "html", "csv", "powershell", "text"}

IMPORTED = [block for block in blocks_in("json") if block.title.endswith("connections.json")]  # test_import
CONNECTIONS = [block for block in blocks_in("json") if "conn_type" in block.code and block not in IMPORTED]
REPORT_LINES = [block for block in blocks_in("json") if block.title.startswith("A line of ")]
RESULTS = [block for block in blocks_in("json") if "conn_type" not in block.code and block not in REPORT_LINES]

# Cmdlets and programs of Windows, which cannot be run here; any other name is a misspelling.
CMDLETS = {
    "Add-ADPermission",
    "Format-List",
    "Format-Table",
    "Get-AcceptedDomain",
    "Get-ExchangeCertificate",
    "Get-InboundConnector",
    "Get-MessageTrackingLog",
    "Get-ReceiveConnector",
    "New-InboundConnector",
    "New-ReceiveConnector",
    "Set-ReceiveConnector",
}
# The parameters that Exchange's documentation has for them.
PARAMETERS = {
    "AuthMechanism",
    "Bindings",
    "ConnectorType",
    "Custom",
    "ExtendedRights",
    "Fqdn",
    "Identity",
    "MessageId",
    "MessageRateLimit",
    "MessageRateSource",
    "Name",
    "PermissionGroups",
    "RemoteIPRanges",
    "RequireTls",
    "SenderDomains",
    "Server",
    "Thumbprint",
    "TlsCertificateName",
    "TlsSenderCertificateName",
    "TransportRole",
    "User",
}
# Blocks of output by title, and the test that compares each.
SHOWN = {
    "What it prints",
    "The import prints",
    "The first import prints",
    "The second import prints",
    "The relay",
    "The relay prints",
    "Terminal 1",
    "The layers",
    "/etc/airflow/ntlm-user",
}


def ids(blocks: list[Block]) -> list[str]:
    """Return the ids of the tests."""
    return [f"{block} {block.title}".strip() for block in blocks]


@pytest.mark.parametrize("block", CONNECTIONS, ids=ids(CONNECTIONS))
def test_every_connection_in_json_is_valid(block: Block) -> None:
    """As Airflow would provide it; without a warning, and without an unknown setting."""
    written = json.loads(block.code)
    manager = SmtpConnectionManager.from_airflow(SimpleNamespace(**written))
    assert manager.warnings == ()
    if "auth_mode" in written["extra"]:
        assert manager.auth_mode == written["extra"]["auth_mode"]
    known = SmtpConnectionManager.__dataclass_fields__
    assert set(written["extra"]) <= {*known, "ssis_properties"}


def test_there_are_connections_of_both_kinds() -> None:
    """Anonymous and Windows Authentication."""
    found = [SmtpConnectionManager.from_airflow(SimpleNamespace(**json.loads(block.code))) for block in CONNECTIONS]
    assert {manager.auth_mode for manager in found} == set(AuthMode)


@pytest.mark.parametrize("block", RESULTS, ids=ids(RESULTS))
def test_every_result_in_json_has_the_keys_of_the_real_one(block: Block) -> None:
    """Of a delivery, or of a merge."""
    shown = json.loads(block.code)
    if block.page == DOCS / "sending.md":
        assert list(shown) == list(Delivery(message_id="<a@b>", outcome=Outcome.ACCEPTED).to_dict())
        assert Delivery.from_dict(shown).to_dict() == shown
        return
    real = MergeResult(rows=Rows(iter(())), report=MergeReport(None, try_number=1, to_path=Path)).to_dict()
    assert list(shown) == list(real)
    assert list(shown["counts"]) == list(real["counts"])


@pytest.mark.parametrize("block", REPORT_LINES, ids=ids(REPORT_LINES))
def test_every_line_of_a_report_is_written_as_shown(block: Block, tmp_path: Path) -> None:
    """Octet by octet, for the delivery that it describes."""
    shown = json.loads(block.code)
    report = MergeReport(tmp_path / "report.jsonl", try_number=shown["try_number"], to_path=Path)
    delivery = Delivery(
        message_id=shown["message_id"],
        outcome=Outcome(shown["outcome"]),
        accepted=tuple(shown["accepted"]),
        server=shown["server"],
    )
    MergeResult(rows=Rows(iter(())), report=report).add_delivery(
        shown["row"], shown["key"], Mail(to="; ".join(shown["accepted"])), delivery
    )
    report.close()
    assert (tmp_path / "report.jsonl").read_text(encoding="utf-8") == block.code


def test_every_setting_of_airflow_exists(airflow_db: None) -> None:
    """Section and option; and what it names can be imported."""
    from airflow.configuration import conf

    found = 0
    for block in blocks_in("ini"):
        if block.title != "airflow.cfg":
            continue
        parser = configparser.ConfigParser()
        parser.read_string(block.code)
        for section in parser.sections():
            for option, value in parser[section].items():
                assert conf.get(section, option, fallback="") is not None
                assert option in {**conf.configuration_description[section]["options"]}, f"{block}: {option}"
                found += 1
                if option == "email_backend":
                    module, _, name = value.rpartition(".")
                    assert callable(getattr(import_module(module), name))
    assert found


def test_every_systemd_unit_can_be_parsed() -> None:
    """Sections and keys."""
    units = [block for block in blocks_in("ini") if block.title.endswith(".service")]
    assert units
    for block in units:
        parser = configparser.ConfigParser(strict=True)
        parser.read_string(block.code)
        assert parser.sections() == ["Unit", "Service", "Install"]
        assert parser["Service"]["ExecStart"].startswith("/usr/bin/k5start ")
    assert {block.title for block in blocks_in("ini")} == {"airflow.cfg", *(block.title for block in units)}


def test_kerberos_s_library_reads_krb5_conf(tmp_path: Path) -> None:
    """And finds the realm in it."""
    if find_spec("krb5") is None:
        skip_for_want_of("python-krb5")
    [block] = blocks_in("krb5")
    (tmp_path / "krb5.conf").write_text(block.code)
    code = "import krb5; print(krb5.get_default_realm(krb5.init_context()).decode())"
    environment = {**os.environ, "KRB5_CONFIG": str(tmp_path / "krb5.conf")}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "CORP.EXAMPLE"


@pytest.mark.slow
def test_a_keytab_is_made_and_tried_as_the_page_says(tmp_path: Path) -> None:
    """In a private realm, in which `alice` has a password and the page's account has none."""
    if missing := KerberosRealm.missing():
        skip_for_want_of(missing)
    [block] = blocks_in("ktutil")
    [trial] = [block for block in blocks_in("console") if block.title.startswith("On the worker")]
    with KerberosRealm() as realm:
        first, *rest = block.code.replace("svc-etl@", "alice@").splitlines()
        environment = {**os.environ, **realm.environment(), "KRB5CCNAME": f"FILE:{tmp_path}/cache"}
        options: dict[str, Any] = {"cwd": tmp_path, "env": environment, "text": True, "capture_output": True}
        typed = "\n".join([first, realm.password_of("alice"), *rest, ""])
        subprocess.run(["ktutil"], input=typed, check=True, **options)
        script = "\n".join(commands_of(trial)).replace("svc-etl@", "alice@").replace("/etc/airflow/", f"{tmp_path}/")
        tried = subprocess.run(["bash", "-ec", script], check=True, **options)
    assert "alice@CORP.EXAMPLE" in tried.stdout
    assert "krbtgt/CORP.EXAMPLE@CORP.EXAMPLE" in tried.stdout


def test_the_image_is_built_from_airflow_s_and_brings_what_kerberos_compiles() -> None:
    """From the base that the tests run on, with an existing extra."""
    [block] = blocks_in("dockerfile")
    airflow = (ROOT / ".ci/airflow-version.txt").read_text().split("==")[1].strip()
    assert block.code.startswith(f"FROM apache/airflow:{airflow}\n")
    instructions = re.findall(r"^(?:[A-Z]+) ", block.code, re.MULTILINE)
    assert {word.strip() for word in instructions} <= {"FROM", "USER", "RUN"}
    assert "pip install 'airflow-provider-smtpcm[kerberos]'" in block.code
    assert {"gcc", "libkrb5-dev"} <= set(block.code.split())


def test_every_template_is_valid() -> None:
    """For Jinja."""
    import jinja2

    for block in blocks_in("html"):
        assert "<p>" in jinja2.Environment(autoescape=True).from_string(block.code).render(ds="2026-01-02", dag=block)


def test_every_csv_has_as_many_cells_in_each_line() -> None:
    """As its header has columns."""
    for block in blocks_in("csv"):
        lines = list(csv.reader(io.StringIO(block.code)))
        assert len(lines) > 1
        assert {len(line) for line in lines} == {len(lines[0])}


@pytest.mark.parametrize("block", blocks_in("powershell"), ids=ids(blocks_in("powershell")))
def test_every_powershell_command_exists(block: Block) -> None:
    """It cannot be run without an Exchange: the cmdlets exist, and quotation marks and brackets are balanced."""
    code = re.sub(r"(?m)^\s*#.*$", "", block.code)
    assert set(re.findall(r"(?<![\w-])[A-Z][a-z]+-[A-Z]\w+(?![\w-])", re.sub(r'"[^"]*"', '""', code))) <= CMDLETS
    for line in code.replace("`\n", " ").replace("|\n", "| ").splitlines():
        if "-" in line and re.match(r"[A-Z]", line):
            assert set(re.findall(r" -([A-Z]\w+)", line)) <= PARAMETERS
        assert line.count('"') % 2 == 0
        assert line.count("(") == line.count(")")


def test_every_block_of_output_is_known() -> None:
    """A new one needs a test below."""
    assert {block.title for block in blocks_in("text")} == SHOWN


def shown(title: str) -> list[Block]:
    """Return the blocks of text with this title."""
    return [block for block in blocks_in("text") if block.title == title]


def test_check_prints_what_the_page_shows(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a terminal of the page's width; except for the name of the machine and the port."""
    monkeypatch.setenv("COLUMNS", "110")
    [block] = shown("What it prints")
    with Relay(users={r"CORP\svc-etl": "correct horse battery"}) as relay:
        connection = SimpleNamespace(**relay.airflow_connection())
        real = make_check(capsys, caplog)(SmtpConnectionManager.from_airflow(connection)).page
    for line in block.code.splitlines():
        words = line.replace("2525", str(relay.port)).removesuffix(" ...").rstrip(",")
        assert words in real or line.startswith("Checking "), line


def test_the_relay_prints_what_the_page_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of its report. An alert's subject and size differ from run to run."""
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.testing.command import format_report

    with Relay(users={r"CORP\alice": "correct horse"}) as relay:
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection()))
        mail = Mail(
            from_address="ETL <etl@corp.example>",
            to="operations@corp.example",
            subject="Hello from Airflow",
            text="This mail was submitted with a Windows account.",
        )
        SmtpConnectionManagerHook().send(mail)
        [received] = relay.messages
    said = format_report(received, None)
    mail_block, alert_block = shown("Terminal 1")
    assert said.startswith(mail_block.code.rstrip("\n"))
    envelope, _, session = alert_block.code.splitlines()
    assert envelope in said
    assert session.removesuffix("15,807 octets") in said


def test_the_relay_reports_a_mail_exactly_as_the_page_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its size and its file: the mail of the program on the same page."""
    from airflow_provider_smtpcm.testing.command import format_report

    [block] = shown("The relay")
    [program] = [found for found in blocks_in("python") if found.page == block.page and found.title == "try_it.py"]
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", "")  # restored after the program has set it
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(program.code, str(program), "exec"), names)  # noqa: S102
    assert format_report(names["received"], Path("mails/0001.eml")) == block.code.rstrip("\n")


def test_the_floors_on_the_page_are_the_code_s() -> None:
    """Every room of the package is in the picture."""
    [block] = shown("The layers")
    rooms = {
        path.stem for path in (ROOT / "airflow_provider_smtpcm").iterdir() if not path.name.startswith(("_", "py."))
    }
    assert rooms - set(re.findall(r"[a-z_]+", block.code)) == set()


def test_the_worker_s_own_account_is_read_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It signs in, without a user name in the connection."""
    [block] = shown("/etc/airflow/ntlm-user")
    (tmp_path / "ntlm-user").write_text(block.code)
    monkeypatch.setenv("NTLM_USER_FILE", str(tmp_path / "ntlm-user"))
    with Relay(users={r"CORP\svc-etl": "the password"}) as relay:
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection(login="")))
        works, answer = SmtpConnectionManagerHook().test_connection()
    assert works, answer
