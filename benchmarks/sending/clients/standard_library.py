"""`smtplib` with `EmailMessage`, used with care: one connection, one TLS context."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - with the first name that is looked up
import smtplib
import ssl
from email.message import EmailMessage
from pathlib import Path

from benchmarks.sending.clients.order import HOST, SENDER, Order, addresses, text


def environment(_order: Order) -> dict[str, str]:
    """Return no environment."""
    return {}


def message(order: Order, number: int) -> EmailMessage:
    """Build a mail."""
    mail = EmailMessage()
    mail["From"] = SENDER
    mail["To"] = ", ".join(addresses(order, number))
    mail["Subject"] = f"Mail {number}"
    mail.set_content(text(order, number))
    if order.file:
        path = Path(order.file)
        mail.add_attachment(path.read_bytes(), maintype="application", subtype="octet-stream", filename=path.name)
    return mail


def send(order: Order) -> int:
    """Send the mails one after the other."""
    with smtplib.SMTP(HOST, order.port) as server:
        if order.tls:
            server.starttls(context=ssl.create_default_context())
        for number in range(order.mails):
            server.send_message(message(order, number))
    return order.mails


WORKS = {"send": send, "attach": send}
