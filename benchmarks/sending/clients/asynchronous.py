"""`aiosmtplib` with `EmailMessage`: several connections in one event loop."""

from __future__ import annotations

import asyncio

import aiosmtplib

from benchmarks.sending.clients.order import HOST, Order
from benchmarks.sending.clients.standard_library import environment, message

__all__ = ["WORKS", "environment"]


def send(order: Order) -> int:
    """Send the mails over some connections, each of which takes the next mail when it is free."""
    return asyncio.run(_send(order))


async def _send(order: Order) -> int:
    numbers = iter(range(order.mails))

    async def connection() -> None:
        async with aiosmtplib.SMTP(hostname=HOST, port=order.port, start_tls=order.tls) as server:
            for number in numbers:
                await server.send_message(message(order, number))

    await asyncio.gather(*(connection() for _ in range(order.connections)))
    return order.mails


WORKS = {"send": send}
