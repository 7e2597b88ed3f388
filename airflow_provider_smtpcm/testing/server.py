"""The relay's own process: settings on standard input, events on standard output. Knows no Airflow and no client.

Input, a line each: the settings as JSON, then `answer <number>` any number of times. `stop`, or the end of the input
(whoever started this process is gone), ends it. Output, a JSON object on each line: `ready` or `failed`, then each
`mail`, written before the client is told 250, and each `answer`.

Needs the `testing` extra: only the relay's own process imports this module.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import ssl
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.testing.settings import RelaySettings
from airflow_provider_smtpcm.testing.smtp_server import Handler, Policy, RelaySmtp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_smtpcm.testing.process import ReceivedMail

Report = Callable[[dict[str, Any]], None]

#: The longest line of input, in octets: a large table of users.
INPUT_LIMIT = 16 * 1024 * 1024


def main() -> None:
    """Serve until told to stop."""
    report = reporter()
    # aiosmtpd tells of each client that does not trust our certificate; the client tells it better.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)
    with suppress(BrokenPipeError):  # whoever wanted to know is gone
        asyncio.run(serve(report))


def reporter() -> Report:
    """A function that writes an event to what was standard output; whatever else prints goes to standard error."""
    events = os.dup(1)
    os.dup2(2, 1)

    def report(event: dict[str, Any]) -> None:
        line = memoryview(json.dumps(event).encode() + b"\n")
        while line:
            line = line[os.write(events, line) :]

    return report


async def serve(report: Report) -> None:
    """Read the settings, listen, and obey."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(ignore_lost_clients)
    orders = asyncio.StreamReader(limit=INPUT_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    obeying = loop.create_task(obey(orders, report))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, obeying.cancel)
    await asyncio.wait([obeying])
    if not obeying.cancelled():
        obeying.result()


async def obey(orders: asyncio.StreamReader, report: Report) -> None:
    """From the settings to the order to stop."""
    line = await orders.readline()
    if not line.endswith(b"\n"):
        return
    settings = RelaySettings.from_json(line)
    context, ca_certificate = (None, "") if settings.ssl_mode == "none" else tls(settings)
    with user_file(settings.users) as folder:
        try:
            server = await listen(settings, context, report)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            report(
                {
                    "event": "failed",
                    "error": f"The relay cannot listen on {settings.host}, port {settings.port}: {reason}. "
                    "Choose another port, or 0 for any free one.",
                }
            )
            return
        port = server.sockets[0].getsockname()[1]
        report({"event": "ready", "port": port, "ca_certificate": ca_certificate, "folder": folder})
        while (line := await orders.readline()).startswith(b"answer "):
            report({"event": "answer", "number": int(line.split()[1])})
        server.close()


async def listen(settings: RelaySettings, context: ssl.SSLContext | None, report: Report) -> asyncio.Server:
    """The listening server."""
    users = settings.users
    policy = Policy(
        users=None if users is None else {user.removeprefix("\\").upper(): user for user in users},
        refuse={address.lower(): reply for address, reply in settings.refuse.items()},
        deliver=lambda mail: report(mail_event(mail)),
    )
    handler = Handler(policy)
    if users is not None:
        import spnego  # noqa: F401  (now, and not while the first client waits)

    def session() -> RelaySmtp:
        return RelaySmtp(
            policy,
            handler,
            size_limit=settings.size_limit,
            smtputf8=settings.smtputf8,
            starttls=context if settings.ssl_mode == "starttls" else None,
        )

    return await asyncio.get_running_loop().create_server(
        session, settings.host, settings.port, ssl=context if settings.ssl_mode == "implicit" else None
    )


def mail_event(mail: ReceivedMail) -> dict[str, Any]:
    """The event that tells of a mail."""
    return {"event": "mail", **asdict(mail), "content": base64.b64encode(mail.content).decode()}


@contextmanager
def user_file(users: Mapping[str, str] | None) -> Iterator[str | None]:
    """For as long as it lasts, these are the users whom pyspnego's acceptor knows here; the folder with their file."""
    if users is None:
        yield None
        return
    # NTLMv2 only, as domains demand it that were hardened, and whatever the environment says to clients.
    os.environ["LM_COMPAT_LEVEL"] = "5"
    with tempfile.TemporaryDirectory(prefix="smtpcm-relay-") as folder:
        path = Path(folder, "users")
        path.touch(mode=0o600)
        path.write_text("".join(user_line(*user) for user in users.items()), encoding="utf-8", newline="")
        os.environ["NTLM_USER_FILE"] = str(path)
        yield folder


def user_line(user: str, password: str) -> str:
    """`DOMAIN:user:password`; the domain of `alice`, or of `alice@corp.example`, is empty."""
    domain, _, name = user.rpartition("\\")
    return f"{domain}:{name}:{password}\n"


def tls(settings: RelaySettings) -> tuple[ssl.SSLContext, str]:
    """The server's side of TLS, and the certificate, as PEM, of the authority that vouches for it."""
    import trustme

    authority = trustme.CA()
    now = datetime.now(UTC)
    end = now + timedelta(days=-1 if settings.certificate_expired else 365)
    certificate = authority.issue_cert(*settings.certificate_names, not_before=now - timedelta(days=30), not_after=end)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context, authority.cert_pem.bytes().decode("ascii")


def ignore_lost_clients(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A client that breaks the connection, or does not trust us, is no error of the relay's."""
    if not isinstance(context.get("exception"), OSError):  # ssl.SSLError is one
        loop.default_exception_handler(context)


if __name__ == "__main__":
    main()
