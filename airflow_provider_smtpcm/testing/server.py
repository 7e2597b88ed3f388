"""The main program of the relay's process: commands on standard input, events on standard output.

Input, one line each: the settings as JSON, then any number of `ping <number>`, and finally `stop`. The end of the
input means that the parent has ended, and has the effect of `stop`. Output, one JSON object on each line: `ready` or
`failed`, then each `mail`, written before the client gets its 250, and each `pong`.

Needs the `testing` extra, so only the relay's process imports this module.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import signal
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.testing.exchange import Connector
from airflow_provider_smtpcm.testing.exchange_smtp import ExchangeHandler, ExchangeSmtp
from airflow_provider_smtpcm.testing.relay import RelaySettings
from airflow_provider_smtpcm.testing.smtp_server import Handler, Policy, RelaySmtp

if TYPE_CHECKING:
    from airflow_provider_smtpcm.testing.relay import ReceivedMail

EventWriter = Callable[[dict[str, Any]], None]

#: The maximum length of a line of input, in octets; the settings may contain many users.
INPUT_LIMIT = 16 * 1024 * 1024


def main() -> None:
    """Serve until the input ends."""
    write_event = make_event_writer()
    # aiosmtpd logs each client that does not trust the certificate; the error in that client is more useful.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)
    with suppress(BrokenPipeError):  # the parent has ended
        asyncio.run(serve(write_event))


def make_event_writer() -> EventWriter:
    """Return a function that writes events to standard output, and redirect all other output to standard error."""
    events = os.dup(1)
    os.dup2(2, 1)

    def write_event(event: dict[str, Any]) -> None:
        line = memoryview(json.dumps(event).encode() + b"\n")
        while line:
            line = line[os.write(events, line) :]

    return write_event


async def serve(write_event: EventWriter) -> None:
    """Read and execute commands until `stop`, the end of the input, or a signal."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(ignore_lost_clients)
    commands = asyncio.StreamReader(limit=INPUT_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    running = loop.create_task(run_server(commands, write_event))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    await asyncio.wait([running])
    if not running.cancelled():
        running.result()


async def run_server(commands: asyncio.StreamReader, write_event: EventWriter) -> None:
    """Read the settings, listen, and answer pings until `stop`."""
    line = await commands.readline()
    if not line.endswith(b"\n"):
        return
    settings = RelaySettings.from_json(line)
    tls = None if settings.ssl_mode == "none" else make_tls(settings)
    with ntlm_user_file(settings) as folder:
        try:
            server = await listen(settings, tls, write_event)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            write_event(
                {
                    "event": "failed",
                    "error": f"The relay cannot listen on {settings.host}, port {settings.port}: {reason}. "
                    "Choose another port, or 0 for any free one.",
                }
            )
            return
        port = server.sockets[0].getsockname()[1]
        write_event(
            {"event": "ready", "port": port, "ca_certificate": tls.ca_certificate if tls else "", "folder": folder}
        )
        while (line := await commands.readline()).startswith(b"ping "):
            write_event({"event": "pong", "number": int(line.split()[1])})
        server.close()


async def listen(settings: RelaySettings, tls: ServerTls | None, write_event: EventWriter) -> asyncio.Server:
    """Start the SMTP server.

    Raises:
        OSError: it cannot listen on the address.
    """
    users = settings.users
    policy = Policy(
        users=None if users is None else {user.removeprefix("\\").upper(): user for user in users},
        refuse={address.lower(): reply for address, reply in settings.refuse.items()},
        deliver=lambda mail: write_event(make_mail_event(mail)),
    )
    context = tls.context if tls else None
    session: dict[str, Any] = {
        "size_limit": settings.size_limit,
        "smtputf8": settings.smtputf8,
        "starttls": context if settings.ssl_mode == "starttls" else None,
    }
    make_session: Callable[[], RelaySmtp]
    if settings.personality is None:
        make_session = partial(RelaySmtp, policy, Handler(policy), **session)
    else:
        connector = Connector(settings.personality, tls.channel_bindings if tls else None)
        handler = ExchangeHandler(policy, connector)
        session["requires_authentication"] = settings.requires_authentication
        make_session = partial(ExchangeSmtp, policy, handler, connector, **session)
    if users is not None or settings.personality is not None:
        import spnego  # noqa: F401  (imported now, so that the first client does not wait for it)

    return await asyncio.get_running_loop().create_server(
        make_session, settings.host, settings.port, ssl=context if settings.ssl_mode == "implicit" else None
    )


def make_mail_event(mail: ReceivedMail) -> dict[str, Any]:
    """Return the event for a mail."""
    return {"event": "mail", **asdict(mail), "content": base64.b64encode(mail.content).decode()}


@contextmanager
def ntlm_user_file(settings: RelaySettings) -> Iterator[str | None]:
    """Configure the users of pyspnego's NTLM acceptor, and the keytab of GSSAPI's, in this process.

    Yields:
        the folder of the users' file; None without authentication.
    """
    users, personality = settings.users, settings.personality
    if users is None and personality is None:
        yield None
        return
    if personality is not None and personality.keytab is not None:
        os.environ["KRB5_KTNAME"] = personality.keytab
        os.environ["KRB5RCACHENAME"] = "none:"  # else a replay cache would outlive the relay
    # Accept NTLMv2 only, as hardened domains do, whatever the environment sets for clients.
    os.environ["LM_COMPAT_LEVEL"] = "5"
    with tempfile.TemporaryDirectory(prefix="smtpcm-relay-") as folder:
        path = Path(folder, "users")
        path.touch(mode=0o600)
        path.write_text("".join(format_user(*user) for user in (users or {}).items()), encoding="utf-8", newline="")
        os.environ["NTLM_USER_FILE"] = str(path)
        yield folder


def format_user(user: str, password: str) -> str:
    """Return a line `DOMAIN:user:password` of the user file. `alice` and `alice@corp.example` have an empty domain."""
    domain, _, name = user.rpartition("\\")
    return f"{domain}:{name}:{password}\n"


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The server's side of TLS.

    Args:
        context: its context.
        ca_certificate: the CA certificate, as PEM.
        channel_bindings: those of type `tls-server-end-point` (RFC 5929 4.1).
    """

    context: ssl.SSLContext
    ca_certificate: str
    channel_bindings: bytes


def make_tls(settings: RelaySettings) -> ServerTls:
    """Issue the server's certificate."""
    import trustme

    authority = trustme.CA()
    now = datetime.now(UTC)
    end = now + timedelta(days=-1 if settings.certificate_expired else 365)
    certificate = authority.issue_cert(*settings.certificate_names, not_before=now - timedelta(days=30), not_after=end)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    der = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode("ascii"))
    # trustme signs with SHA-256.
    bindings = b"tls-server-end-point:" + hashlib.sha256(der).digest()
    return ServerTls(context, authority.cert_pem.bytes().decode("ascii"), bindings)


def ignore_lost_clients(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle exceptions of the event loop: ignore a client that disconnects or does not trust the certificate."""
    if not isinstance(context.get("exception"), OSError):  # its subclasses include ssl.SSLError
        loop.default_exception_handler(context)


if __name__ == "__main__":
    main()
