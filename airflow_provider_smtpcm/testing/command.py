"""The `relay` command: runs an embedded relay until Ctrl-C and prints each mail that arrives."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import sys
import threading
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.testing.relay import Relay, RelayError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from airflow_provider_smtpcm.testing.exchange import Exchange
    from airflow_provider_smtpcm.testing.inbox import Inbox
    from airflow_provider_smtpcm.testing.relay import ReceivedMail, SslMode

#: Seconds between two checks for Ctrl-C.
POLL_INTERVAL = 0.2
#: Replaced by a reference to the environment variable with the password, which the shell expands.
PLACEHOLDER = "smtpcm-password-from-the-environment"


def run_relay(
    *,
    port: int,
    ssl_mode: SslMode,
    user: str | None,
    password_env: str | None,
    save: Path | None,
    personality: Exchange | None = None,
    inbox_port: int | None = None,
) -> int:
    """Run a relay until SIGINT or SIGTERM.

    Args:
        port: the port to listen on; 0: any free one.
        ssl_mode: as in `Relay`.
        user: the only user that may sign in; None: an anonymous relay.
        password_env: the environment variable with the user's password; None: a random password.
        save: the folder in which each mail is saved as an `.eml` file; None: mails are not saved.
        personality: as in `Relay`.
        inbox_port: the port on which a browser can read the mails, 0 for any free one; None: no inbox.

    Returns:
        The exit status: 0 after a signal, 1 if the relay failed.
    """
    with handle_stop_signals() as stop:
        try:
            users = None if user is None else {user: find_password(password_env)}
            if save is not None:
                save.mkdir(parents=True, exist_ok=True)
            with (
                Relay(port=port, ssl_mode=ssl_mode, users=users, personality=personality) as relay,
                open_inbox(inbox_port) as inbox,
            ):
                print_text(format_introduction(relay, user, password_env, inbox, personality))
                while not stop.is_set():
                    report_mails(take_mails(relay), save, inbox)
                report_mails(relay.clear(), save, inbox)
        except (RelayError, ModuleNotFoundError, ValueError, OSError) as error:
            print(f"relay: {error}", file=sys.stderr)  # noqa: T201
            return 1
        print_text("Stopped.")
        return 0


def open_inbox(port: int | None) -> AbstractContextManager[Inbox | None]:
    """Return an inbox on this port, or a context without one."""
    if port is None:
        return nullcontext()
    from airflow_provider_smtpcm.testing.inbox import Inbox

    return Inbox(port)


@contextmanager
def handle_stop_signals() -> Iterator[threading.Event]:
    """Make SIGINT and SIGTERM set an event, so that they do not interrupt the report of a mail."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


def find_password(password_env: str | None) -> str:
    """Return the password from the environment, or a random one.

    Raises:
        ValueError: the variable is empty, or its value cannot be used in the command that adds the connection.
    """
    if password_env is None:
        return secrets.token_urlsafe(12)
    password = os.environ.get(password_env)
    if not password:
        raise ValueError(f"The environment variable {password_env} is empty. Export the password in it.")
    if json.dumps(password, ensure_ascii=False) != f'"{password}"':
        raise ValueError(
            f"The password in {password_env} contains a quotation mark, a backslash or a control character, which the "
            "command that adds the connection cannot take from the environment. Choose another password."
        )
    return password


def take_mails(relay: Relay) -> list[ReceivedMail]:
    """Wait up to `POLL_INTERVAL` for mails, and remove them from the relay."""
    try:
        relay.wait_for_messages(1, timeout=POLL_INTERVAL)
    except TimeoutError:
        return []
    return relay.clear()


def report_mails(mails: list[ReceivedMail], folder: Path | None, inbox: Inbox | None) -> None:
    """Print a report of each mail, save the mail if there is a folder, and show it if there is an inbox."""
    for mail in mails:
        if inbox is not None:
            inbox.add(mail)
        print_text(format_report(mail, None if folder is None else save_mail(mail, folder)))


def format_introduction(
    relay: Relay, user: str | None, password_env: str | None, inbox: Inbox | None, personality: Exchange | None
) -> str:
    """Describe the relay and how to add its connection. A password from the environment is not shown."""
    connection = relay.airflow_connection()
    ssl_mode = connection["extra"]["ssl_mode"]
    authentication = "anonymous" if user is None else f"Windows Authentication as {user}"
    lines = [f"The relay listens on {relay.host}, port {relay.port}: ssl_mode={ssl_mode}, {authentication}."]
    if personality is not None:
        lines.append(f"It behaves as an on-premises Exchange does: {describe_limits(personality)}.")
    if user is not None and password_env is None:
        lines.append(f"Password: {connection['password']}")
    if inbox is not None:
        lines.append(f"In a browser, its mails are at {inbox.url}")
    lines += ["", format_add_command(connection, password_env), "", "Stop it with Ctrl-C."]
    return "\n".join(lines)


def describe_limits(exchange: Exchange) -> str:
    """Describe what limits the clients of an Exchange."""
    rate, connections = exchange.message_rate_limit, exchange.connection_limit
    limits = [
        "no message rate limit" if rate is None else f"message rate limit {rate} in {exchange.rate_interval:g} seconds",
        "no connection limit" if connections is None else f"connection limit {connections}",
        f"Extended Protection {exchange.extended_protection}",
    ]
    return ", ".join(limits)


def format_add_command(connection: dict[str, Any], password_env: str | None) -> str:
    """Return the `airflow connections add` command for a shell."""
    if password_env is None:
        quoted = shlex.quote(json.dumps(connection))
    else:
        # Ends the single quotes, lets the shell expand the variable, and begins single quotes again.
        quoted = shlex.quote(json.dumps(connection | {"password": PLACEHOLDER}))
        quoted = quoted.replace(PLACEHOLDER, f"'\"${{{password_env}}}\"'")
    return f"airflow connections add smtpcm_default --conn-json {quoted}"


def format_report(mail: ReceivedMail, saved: Path | None) -> str:
    """Describe one mail."""
    sender = f"authenticated as {mail.authenticated_as} with {mail.mechanism}" if mail.authenticated_as else "anonymous"
    lines = [
        f"Mail from {mail.mail_from or '<>'} to {', '.join(mail.recipients)}",
        f"  Subject: {mail.message['Subject'] or ''}",
        f"  {sender}, {mail.tls_version or 'no TLS'}, {len(mail.content):,} octets",
        *([] if saved is None else [f"  saved as {saved}"]),
    ]
    return "\n".join(to_printable(line) for line in lines)


def to_printable(text: str) -> str:
    """Replace control characters, which could control the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def save_mail(mail: ReceivedMail, folder: Path) -> Path:
    """Save a mail as the first free of `0001.eml`, `0002.eml`, ..."""
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


def print_text(text: str) -> None:
    """Print without buffering. Characters that the terminal cannot encode are replaced."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)  # noqa: T201
