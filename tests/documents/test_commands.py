"""The commands of the pages: run where this machine can, and at least parsed where it cannot."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from cryptography import x509

from airflow_provider_smtpcm.check.client_certificate import describe_client_certificate
from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.smtp.client_certificate import load_client_certificate
from airflow_provider_smtpcm.testing import Relay
from tests.documents.pages import ROOT, Block, blocks_in, commands_of

HANDLED = {"console"}
LOGIN, PASSWORD = r"CORP\svc-etl", "the password"
# The first words of commands that are not run here, and why.
NOT_RUN = {
    "apt-get install": "changes the machine",
    "chmod": "a keytab's, which test_data makes and tries, and a certificate's that only the reader has",
    "cp": "of a certificate that only the reader has",
    "update-ca-certificates": "changes the machine",
    "kubectl": "asks the reader's own cluster",
    "openssl pkcs12": "of a file that only the reader has",
    "openssl s_client": "asks the reader's own server",
    "klist": "as chmod",
    "kinit": "as chmod",
    "python3 -m venv": "the quick start, which test_quick_start walks",
    ".": "as python3 -m venv",
    "echo": "as python3 -m venv",
    "mkdir": "as python3 -m venv",
    "touch": "the guide for SSIS, which tests/integration/test_import_ssis.py walks",
    "airflow db migrate": "as python3 -m venv",
    "airflow api-server": "as python3 -m venv",
    "airflow dags": "as python3 -m venv and touch",
}
RUN = ("airflow ", "python -m airflow_provider_smtpcm ", "python -c ")
PARSED = ("pip install ", "make", "export ")
CERTIFICATE = "openssl req "  # run by a test of its own

COMMANDS = [(block, command) for block in blocks_in("console") for command in commands_of(block)]


def reason_not_to_run(command: str) -> str | None:
    """Return why a command is not run; None if it is."""
    return next((why for words, why in NOT_RUN.items() if f"{command} ".startswith(f"{words} ")), None)


def test_every_line_of_a_console_block_is_a_command_or_its_comment() -> None:
    """Output has a block of its own, so that the button copies commands only."""
    for block in blocks_in("console"):
        assert commands_of(block), block
        for line in block.code.replace("\\\n", " ").splitlines():
            assert line.startswith("$ "), f"{block}: {line}"


@pytest.mark.parametrize(("block", "command"), COMMANDS, ids=[f"{block}: {line[:40]}" for block, line in COMMANDS])
def test_every_command_is_run_or_excused(block: Block, command: str) -> None:
    """And a shell can parse it."""
    subprocess.run(["bash", "-n", "-c", command], check=True)
    is_run = command.startswith((*RUN, *PARSED, CERTIFICATE))
    assert is_run or reason_not_to_run(command), f"{block}: run it, or say why not"


@pytest.mark.parametrize("words", NOT_RUN)
def test_every_excuse_is_still_used(words: str) -> None:
    """No excuse is left without its command."""
    assert any(f"{command} ".startswith(f"{words} ") for _, command in COMMANDS)


def test_every_make_target_exists() -> None:
    """`make` lists them."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [shlex.split(command, comments=True) for _, command in COMMANDS if command.startswith("make")]
    assert named
    assert {words[1] for words in named if len(words) > 1} <= targets


def test_every_extra_in_a_pip_command_exists() -> None:
    """Of this distribution."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [shlex.split(command, comments=True)[2:] for _, command in COMMANDS if command.startswith("pip install")]
    assert wanted
    for [requirement] in wanted:
        name, _, extras = requirement.rstrip("]").partition("[")
        assert name in (project["name"], ".")  # from the index, or from a checkout
        assert set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])


def test_a_client_certificate_is_made_as_the_page_says(tmp_path: Path) -> None:
    """A request with the name and the usage, and a certificate that can be sent; nobody else may read the key."""
    request, self_signed = [command for _, command in COMMANDS if command.startswith(CERTIFICATE)]
    for command in (request, self_signed):
        subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, capture_output=True)
        assert (tmp_path / "etl.key").stat().st_mode & 0o077 == 0
    asked_for = x509.load_pem_x509_csr((tmp_path / "etl.csr").read_bytes())
    made = x509.load_pem_x509_certificate((tmp_path / "etl.crt").read_bytes())
    for each in (asked_for, made):
        assert each.subject.rfc4514_string() == "CN=etl.corp.example"
        names = each.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["etl.corp.example"]
    certificate, key = str(tmp_path / "etl.crt"), str(tmp_path / "etl.key")
    load_client_certificate(ssl.create_default_context(), certificate, key)
    assert describe_client_certificate(certificate, key)[1] == []


def test_every_connection_in_the_environment_is_valid() -> None:
    """In JSON, and as a URI."""
    found = []
    for _, command in COMMANDS:
        if command.startswith("kubectl "):
            continue  # its JSON is a patch of a pod
        for word in shlex.split(command, comments=True):
            value = word.removeprefix("AIRFLOW_CONN_SMTPCM_DEFAULT=")
            if value.startswith("{"):
                found.append(SmtpConnectionManager.from_airflow(SimpleNamespace(**json.loads(value))))
            elif value.startswith("smtpcm://"):
                uri = urlsplit(value)
                found.append(
                    SmtpConnectionManager.from_airflow(
                        SimpleNamespace(
                            host=uri.hostname,
                            port=uri.port,
                            login=unquote(uri.username or ""),
                            password=unquote(uri.password or ""),
                            extra=dict(parse_qsl(uri.query)),
                        )
                    )
                )
    assert {manager.host for manager in found} == {"relay.corp.example", "exchange.corp.example"}
    assert {manager.login for manager in found if manager.auth_mode is AuthMode.WINDOWS} == {LOGIN}


def _each_once() -> list[tuple[Block, str]]:
    """Return the commands that are run; some are on several pages."""
    run = {command: block for block, command in COMMANDS if command.startswith(RUN) and not reason_not_to_run(command)}
    return [(block, command) for command, block in run.items() if " relay " not in f"{command} "]


Shell = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def shell(airflow_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Return a shell with `airflow` and `python` in its path, and an Airflow of its own."""
    home, programs = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("programs")
    for name, module in (("airflow", "-m airflow"), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n')
        program.chmod(0o755)
    own = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
    }

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=home,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    shutil.copyfile(airflow_tables, home / "airflow.db")
    return run


@pytest.mark.slow
@pytest.mark.parametrize(("block", "command"), _each_once(), ids=[line[:60] for _, line in _each_once()])
def test_every_command_that_this_machine_can_run_succeeds(
    block: Block, command: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` with a server that requires Windows Authentication; Airflow's own commands in a private Airflow."""
    with Relay(users={LOGIN: PASSWORD}) as relay:
        if " check " in command:
            conn_id = command.split(" check ")[1].split(maxsplit=1)[0]
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(relay.airflow_connection()))
        if " preview " in command:
            monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection()))
            [dag] = [block for block in blocks_in("python") if block.title == "nightly_load.py"]
            shell(f"mkdir -p dags && printf %s {shlex.quote(dag.code)} > dags/nightly_load.py")
            monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", shell("pwd").stdout.strip() + "/dags")
        if " from-smtp " in command:
            monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", "smtp://relay.corp.example:25")
        if " connections import " in command:
            connections = shlex.quote(json.dumps({"relay": relay.airflow_connection()}))
            path = command.split(" import ")[1].split(maxsplit=1)[0]
            shell(f"mkdir -p $(dirname {path}) && printf %s {connections} > {path}")
            shell("airflow connections delete relay")
        if " import-ssis " in command:
            for package in blocks_in("xml"):
                path = shlex.quote(package.title)
                shell(f"mkdir -p $(dirname {path}) && printf %s {shlex.quote(package.code)} > {path}")
            shell("[ -e airflow/questions.csv ] || (mkdir -p airflow && echo key,answer > airflow/questions.csv)")
            insert = r"INSERT SSISConfigurations VALUES ('Mail', 'x', '\Package.Properties[Name]', 's')"
            shell(f'echo "{insert}" > table.sql')
            shell("echo name,value > production.csv && echo '<DTSConfiguration/>' > Mail.dtsConfig")
        if " connections add " in command:
            shell("airflow connections delete smtpcm_default")
        ended = shell(command)
    # Windows Authentication, which the package of the page uses, requires a decision.
    assert ended.returncode == (3 if " import-ssis " in command else 0), f"{block}:\n{ended.stdout}{ended.stderr}"
    said = {
        "check": "tls-server-end-point",
        "preview": "written to mail.eml",
        "from-smtp": "smtp_default -> smtpcm_default",
        "import-ssis": "DAGs: airflow/dags",
        "providers list": "airflow-provider-smtpcm",
        "connections add": "Successfully added",
        "connections import": "Imported connection relay",
        "pools set": "created",
        "-c": "notifications/templates",
    }
    [answer] = [answer for words, answer in said.items() if f" {words} " in f"{command} "]
    assert answer in ended.stdout + ended.stderr


@pytest.mark.parametrize("command", sorted({line for _, line in COMMANDS if " relay " in f"{line} "}))
def test_the_relay_prints_the_connection_to_add_and_ends_with_ctrl_c(command: str, tmp_path: Path) -> None:
    """In a folder where it may save mails."""
    program, *arguments = shlex.split(command)
    words = [sys.executable, *(["-m", program] if program == "airflow" else []), *arguments]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True) as relay:
        assert relay.stdout is not None
        said = ""
        for line in relay.stdout:
            said += line
            if line.startswith("Stop it with Ctrl-C"):
                os.killpg(relay.pid, signal.SIGINT)
    assert "airflow connections add smtpcm_default --conn-json" in said
    assert said.rstrip().endswith("Stopped.")
    assert relay.returncode == 0
