"""The command `relay`: runs a relay until Ctrl-C and tells what arrives. Knows nothing of argparse."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.testing.process import RelayError
from airflow_provider_smtpcm.testing.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_smtpcm.testing.process import ReceivedMail
    from airflow_provider_smtpcm.testing.settings import SslMode

#: Seconds between two looks at whether somebody has pressed Ctrl-C.
PAUSE = 0.2
#: Stands for the password where the shell puts it in.
PLACEHOLDER = "smtpcm-password-from-the-environment"


def run_relay(*, port: int, ssl_mode: SslMode, user: str | None, password_env: str | None, save: Path | None) -> int:
    """Run a relay until SIGINT or SIGTERM; the exit status.

    Args:
        port: 0 takes any free one.
        ssl_mode: as `Relay` has it.
        user: who may log in; None for an anonymous relay.
        password_env: the environment variable with the user's password; a password is made up without it.
        save: the folder into which each mail goes as an `.eml` file.
    """
    with stop_signals() as stop:
        try:
            users = None if user is None else {user: find_password(password_env)}
            if save is not None:
                save.mkdir(parents=True, exist_ok=True)
            with Relay(port=port, ssl_mode=ssl_mode, users=users) as relay:
                say(introduction(relay, user, password_env))
                while not stop.is_set():
                    for mail in next_mails(relay):
                        say(report(mail, None if save is None else save_mail(mail, save)))
                for mail in relay.clear():
                    say(report(mail, None if save is None else save_mail(mail, save)))
        except (RelayError, ModuleNotFoundError, ValueError, OSError) as error:
            print(f"relay: {error}", file=sys.stderr)  # noqa: T201
            return 1
        say("Stopped.")
        return 0


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a mail that is being told is told to its end."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def find_password(password_env: str | None) -> str:
    """The password from the environment, or a new one."""
    if password_env is None:
        return secrets.token_urlsafe(12)
    password = os.environ.get(password_env)
    if not password:
        raise ValueError(f"The environment variable {password_env} is empty. Export the password in it.")
    if json.dumps(password, ensure_ascii=False) != f'"{password}"':
        raise ValueError(
            f"The password in {password_env} has a quotation mark, a backslash or a control character in it, which the "
            "command that adds the connection could not take over from the environment. Take another password."
        )
    return password


def next_mails(relay: Relay) -> list[ReceivedMail]:
    """What has arrived after a short wait; often nothing."""
    try:
        relay.wait_for_messages(1, timeout=PAUSE)
    except TimeoutError:
        return []
    return relay.clear()


def introduction(relay: Relay, user: str | None, password_env: str | None) -> str:
    """Where the relay is and how Airflow gets there; a password from the environment is not repeated."""
    connection = relay.airflow_connection()
    ssl_mode = connection["extra"]["ssl_mode"]
    who = "anonymous" if user is None else f"Windows Authentication as {user}"
    lines = [f"The relay listens on {relay.host}, port {relay.port}: ssl_mode={ssl_mode}, {who}."]
    if user is not None and password_env is None:
        lines.append(f"Password: {connection['password']}")
    lines += ["", add_command(connection, password_env), "", "Stop it with Ctrl-C."]
    return "\n".join(lines)


def add_command(connection: dict[str, Any], password_env: str | None) -> str:
    """The `airflow connections add` line, ready to paste into a shell."""
    if password_env is None:
        quoted = shlex.quote(json.dumps(connection))
    else:
        # The shell leaves the single quotes, puts the variable in, and goes on within single quotes.
        quoted = shlex.quote(json.dumps(connection | {"password": PLACEHOLDER}))
        quoted = quoted.replace(PLACEHOLDER, f"'\"${{{password_env}}}\"'")
    return f"airflow connections add smtpcm_default --conn-json {quoted}"


def report(mail: ReceivedMail, saved: Path | None) -> str:
    """What there is to say about one mail."""
    who = f"authenticated as {mail.authenticated_as} by {mail.mechanism}" if mail.authenticated_as else "anonymous"
    lines = [
        f"Mail from {mail.mail_from or '<>'} to {', '.join(mail.recipients)}",
        f"  Subject: {mail.message['Subject'] or ''}",
        f"  {who}, {mail.tls_version or 'no TLS'}, {len(mail.content):,} octets",
        *([] if saved is None else [f"  saved as {saved}"]),
    ]
    return "\n".join(printable(line) for line in lines)


def printable(text: str) -> str:
    """Without the control characters by which a mail could paint on the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def save_mail(mail: ReceivedMail, folder: Path) -> Path:
    """Write the mail under the first free number; what is there already is left alone."""
    number = 1
    while True:
        path = folder / f"{number:04}.eml"
        try:
            with path.open("xb") as file:
                file.write(mail.content)
        except FileExistsError:
            number += 1
        else:
            return path


def say(text: str) -> None:
    """Print at once, also into a pipe, whatever the terminal can show of it."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)  # noqa: T201
