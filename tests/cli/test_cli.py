"""The command line: `python -m airflow_provider_smtpcm`, and its commands in Airflow's own."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import signal
import smtplib
import ssl
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from airflow_provider_smtpcm.cli import COMMANDS, main
from airflow_provider_smtpcm.get_provider_info import get_provider_info
from airflow_provider_smtpcm.testing import Relay
from airflow_provider_smtpcm.testing.inbox import Inbox
from tests.testing.clients import log_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "airflow_provider_smtpcm"]


class Running:
    """A command that runs until a signal ends it; `output` is its standard output so far."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
            start_new_session=True,
        )
        self.output = ""

    def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        while text not in self.output:
            line = self.process.stdout.readline()
            assert line, f"ended without {text!r}:\n{self.output}"
            self.output += line

    def end(self, number: signal.Signals) -> str:
        """Send a signal to the process group, as a terminal does, and return the standard error."""
        os.killpg(self.process.pid, number)
        out, err = self.process.communicate(timeout=600)
        self.output += out
        return err

    @property
    def add_command(self) -> str:
        return next(line for line in self.output.splitlines() if line.startswith("airflow connections add"))


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Running]:
    command = Running(*arguments, **environment)
    deadline = threading.Timer(120, command.process.kill)
    deadline.start()
    try:
        command.read_until("Stop it with Ctrl-C.\n")
        yield command
    finally:
        deadline.cancel()
        if command.process.poll() is None:
            command.process.kill()
        command.process.communicate()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: command"),
        (["rely"], "invalid choice: 'rely'"),
        (["relay", "--port", "70000"], "not a port"),
        (["relay", "--port", "smtp"], "not a port"),
        (["relay", "--inbox", "here"], "not a port"),
        (["relay", "--ssl-mode", "tls"], "choose one of starttls, none, implicit"),
        (["relay", "--like", "postfix"], "choose exchange"),
        (["relay", "--like", "exchange", "--message-rate-limit", "0"], "messages per minute, from 1"),
        (["relay", "--like", "exchange", "--extended-protection", "on"], "choose one of none, allow, require"),
        (["relay", "--message-rate-limit", "5"], "Add --like exchange"),
        (["check", "smtpcm_default", "--password", "hush"], "2 unknown arguments"),
        (["relay", "--password-env", "PASSWORD"], "Give one with --user"),
        (["relay", "--user", "alice", "--password-env", "my secret!"], "not the password itself"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With argparse's exit status."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    output = capsys.readouterr().err
    assert message in output
    assert "hush" not in output


@pytest.mark.parametrize(
    "arguments",
    [
        ["relay", "--port", "hush-1"],
        ["relay", "--ssl-mode", "hush-1"],
        ["relay", "--user", "etl", "--password-env", "hush-1"],
        ["relay", "--password=hush-1"],
        ["check", "mail", "hush-1"],
        ["check", "--uri", "smtpcm://etl:hush-1@mail.corp.example"],
        ["check", "--uri-env", "smtpcm://etl:hush-1@mail.corp.example"],
        ["import-ssis", "--out", "x", "y", "--windows-auth", "hush-1"],
        ["import-ssis", "--out", "x", "y", "--map-path", "hush-1"],
    ],
)
def test_an_argument_in_the_wrong_place_is_not_repeated(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be a password, and the output of a job is kept."""
    with pytest.raises(SystemExit):
        main(arguments)
    assert "hush-1" not in capsys.readouterr().err


def test_a_password_variable_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is empty, or has characters that cannot be printed as JSON in a shell command; they are not repeated."""
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    assert main(["relay", "--user", "alice", "--password-env", "NO_SUCH_VARIABLE"]) == 1
    assert "NO_SUCH_VARIABLE is empty" in capsys.readouterr().err
    for password in ('hush"hush', "hush\\hush", "hush\thush", "hush:hush"):
        monkeypatch.setenv("RELAY_PASSWORD", password)
        assert main(["relay", "--user", "alice", "--password-env", "RELAY_PASSWORD"]) == 1
        assert "hush" not in (message := capsys.readouterr().err)
        assert message


def test_a_relay_that_cannot_start_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit status 1, no traceback."""
    with Relay(ssl_mode="none") as relay:
        assert main(["relay", "--port", str(relay.port)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_relay_runs_until_a_signal_stops_it(number: signal.Signals) -> None:
    """Ctrl-C, or a service manager's: exit status 0, a last line, nothing on standard error."""
    with running("relay", "--ssl-mode", "none") as relay:
        assert relay.end(number) == ""
        assert relay.process.returncode == 0
        assert relay.output.endswith("Stopped.\n")


def test_the_relay_behaves_as_an_exchange_where_it_is_told_to() -> None:
    """Its greeting and its limits, which it prints, and the connection is added as for every relay."""
    with running("relay", "--like", "exchange", "--ssl-mode", "none", "--message-rate-limit", "1") as relay:
        assert (
            "It behaves as an on-premises Exchange does: message rate limit 1 in 60 seconds, connection limit 20, "
            "Extended Protection none.\n" in relay.output
        )
        connection = json.loads(shlex.split(relay.add_command)[-1])
        with smtplib.SMTP(connection["host"], connection["port"], timeout=60) as client:
            client.sendmail("alice@corp.example", ["bob@corp.example"], b"Subject: x\r\n\r\nHello\r\n")
            assert "xrdst" in client.esmtp_features
            assert client.docmd("MAIL", "FROM:<alice@corp.example>")[0] == 421
        assert relay.end(signal.SIGINT) == ""


def test_a_mail_is_printed_when_it_arrives_and_saved(tmp_path: Path) -> None:
    """Sender, recipients, subject, account and TLS version; and no file is overwritten."""
    folder = tmp_path / "new" / "mails"
    folder.mkdir(parents=True)
    (folder / "0001.eml").write_bytes(b"from yesterday")
    with running("relay", "--user", r"CORP\alice", "--save", str(folder)) as relay:
        words = shlex.split(relay.add_command)
        assert words[:-1] == ["airflow", "connections", "add", "smtpcm_default", "--conn-json"]
        connection = json.loads(words[-1])
        assert f"Password: {connection['password']}\n" in relay.output
        assert connection["extra"]["auth_mode"] == "windows"

        content = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe=1B[31m?=\r\n\r\nHello\r\n"
        with smtplib.SMTP(connection["host"], connection["port"], timeout=60) as client:
            client.starttls(context=ssl.create_default_context(cadata=connection["extra"]["ca_certificate"]))
            client.ehlo()
            assert log_in(client, connection["login"], connection["password"])[0] == 235
            client.sendmail("alice@corp.example", ["bob@corp.example", "carol@corp.example"], content)
        relay.read_until("saved as")
        assert "Mail from alice@corp.example to bob@corp.example, carol@corp.example\n" in relay.output
        assert re.search(r"  Subject: Grüße.\[31m\n", relay.output)
        assert "\x1b" not in relay.output
        assert f"  authenticated as CORP\\alice with NTLM, TLSv1.3, {len(content)} octets\n" in relay.output
        assert (folder / "0002.eml").read_bytes() == content
        assert (folder / "0001.eml").read_bytes() == b"from yesterday"
        assert relay.end(signal.SIGINT) == ""
        assert relay.process.returncode == 0


@pytest.mark.parametrize("arguments", [["--inbox"], ["--inbox", "0", "--ssl-mode", "none"], ["--inbox=0"]])
def test_a_mail_is_shown_in_a_browser_when_it_arrives(arguments: list[str]) -> None:
    """At the address that is printed, until the relay ends."""
    with running("relay", *arguments, "--port=0") as relay:
        [url] = re.findall(r"^In a browser, its mails are at (http://127\.0\.0\.1:\d+/)$", relay.output, re.MULTILINE)
        connection = json.loads(shlex.split(relay.add_command)[-1])
        with urllib.request.urlopen(f"{url}events", timeout=60) as events:  # noqa: S310
            assert b'"mails": []' in b"".join(events.readline() for _ in range(3))
            with smtplib.SMTP("localhost", connection["port"], timeout=60) as client:
                client.sendmail("alice@corp.example", ["bob@corp.example"], b"Subject: Hello\r\n\r\n")
            assert b'"subject": "Hello"' in b"".join(events.readline() for _ in range(3))
            assert relay.end(signal.SIGINT) == ""
            assert relay.process.returncode == 0
            assert events.read() == b""


def test_an_inbox_that_cannot_start_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """Its port is in use."""
    with Inbox() as inbox:
        port = inbox.url.rpartition(":")[2].strip("/")
        assert main(["relay", "--ssl-mode", "none", "--inbox", port]) == 1
    assert re.match(rf"relay: The inbox cannot listen on 127\.0\.0\.1, port {port}: .*", capsys.readouterr().err)


def test_a_password_from_the_environment_is_not_repeated() -> None:
    """The shell puts it into the line that adds the connection."""
    password = "it's $HOME `hush` ü"
    arguments = ("relay", "--user", r"CORP\alice", "--password-env", "RELAY_PASSWORD", "--ssl-mode", "none")
    with running(*arguments, RELAY_PASSWORD=password) as relay:
        assert "hush" not in relay.output
        echoed = subprocess.check_output(
            ["sh", "-c", relay.add_command.replace("airflow connections add smtpcm_default --conn-json", "printf %s")],
            env=os.environ | {"RELAY_PASSWORD": password},
        )
        connection = json.loads(echoed)
        assert (connection["login"], connection["password"]) == (r"CORP\alice", password)
        with smtplib.SMTP("localhost", connection["port"], timeout=60) as client:
            client.ehlo()
            assert log_in(client, connection["login"], connection["password"])[0] == 235


def test_airflows_command_line_has_the_same_commands() -> None:
    """With the same arguments, under the name that the provider info gives."""
    (path,) = get_provider_info()["cli"]  # type: ignore[misc]
    module, _, function = path.rpartition(".")
    (group,) = getattr(importlib.import_module(module), function)()
    assert group.name == "smtpcm"
    assert [action.name for action in group.subcommands] == [command.name for command in COMMANDS]
    for action, command in zip(group.subcommands, COMMANDS, strict=True):
        assert [arg.flags for arg in action.args] == [argument.flags for argument in command.arguments]


def test_the_command_line_loads_what_a_command_needs_only_for_that_command() -> None:
    """`--help` is quick, in a shell and in Airflow's own command line."""
    heavy = (
        "airflow",
        "spnego",
        "ssl",
        "smtplib",
        "email",
        "asyncio",
        "starlette",
        "uvicorn",
        "airflow_provider_smtpcm.testing",
    )
    program = f"""
import sys
from airflow_provider_smtpcm.cli import build_parser
build_parser().format_help()
assert not [name for name in {heavy!r} if name in sys.modules], sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)
