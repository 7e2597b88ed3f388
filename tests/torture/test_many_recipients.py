"""Mails to more recipients than a server accepts at once: whatever it replies, each has the mail exactly once."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.smtp import Delivery, Outcome, retry, throttling
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.throttling import ServerProfile
from tests.integration.loopback_postfix import ANONYMOUS
from tests.smtp.connection_pool.batches import send_many
from tests.smtp.server import HANG_UP, MESSAGE, STORE_AND_HANG_UP, Server
from tests.smtp.test_retried_batches import batch
from tests.torture.anonymous_postfix import AnonymousPostfix
from tests.torture.tally import SEED, TALLY

TOPIC = "many recipients"
SCHEDULES, AT_ONCE = 150, 32
OFFERS = (("PIPELINING", "SIZE 0"), ("PIPELINING", "SIZE 0", "CHUNKING", "BINARYMIME"), ("SIZE 0",))
TROUBLE = ("451 4.3.0 later", "450 4.2.0 Greylisted", "550 5.1.1 no", "554 5.6.0 never", "421 4.3.2 closing", HANG_UP)


class Moody:
    """A server's limit and moods; each connection of it counts for itself.

    Args:
        dice: decides what goes wrong, and how large the limit is.
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._lock = threading.Lock()
        self._limit = dice.choice((1, 3, 20, 100, 130, 250, 10_000))
        self._chance = dice.choice((0.0, 0.001, 0.01))
        self._taken = threading.local()
        self.too_many = 0

    def __call__(self, about: str) -> str | None:
        """See `tests.smtp.server.Decide`."""
        with self._lock:
            if about.startswith("MAIL"):
                self._taken.number = 0
            if about.startswith("RCPT") and self._taken.number >= self._limit:
                self.too_many += 1
                return "452 4.5.3 too many recipients"
            # A message comes seldom, and goes wrong more often.
            often = 20 if about == MESSAGE else 1
            if about.startswith(("MAIL", "RCPT", "DATA", MESSAGE)) and self._dice.random() < often * self._chance:
                return self._dice.choice((*TROUBLE, STORE_AND_HANG_UP) if about == MESSAGE else TROUBLE)
            if about.startswith("RCPT"):
                self._taken.number += 1
            return None


def broken_promises(server: Server, mails: list[Mail], found: list[Delivery]) -> Iterator[tuple[str, str]]:
    """Who was lost, who has a mail twice, and who has one that was not reported."""
    if sorted(delivery.index for delivery in found) != list(range(len(mails))):
        yield "lost", "a delivery"
    for delivery in found:
        everybody = {address.address for address in mails[delivery.index].recipients}
        for kind, what in broken_by(delivery, Counter(server.copies(delivery.message_id)), everybody):
            yield kind, f"{delivery.index}: {what}"


def broken_by(delivery: Delivery, copies: Counter[str], everybody: set[str]) -> Iterator[tuple[str, str]]:
    """The same for one mail."""
    accepted, refused = set(delivery.accepted), delivery.refused.keys()
    told = {Outcome.ACCEPTED: accepted, Outcome.REFUSED: refused, Outcome.NOT_SENT: everybody - accepted}
    yield from (("lost", f"{address} was told to have it") for address in accepted - copies.keys())
    yield from (("lost", f"{address} has it and was refused") for address in accepted & refused)
    yield from (("lost", f"{address} was not told") for address in everybody - told.get(delivery.outcome, everybody))
    yield from (("doubled", address) for address, number in copies.items() if number > 1)
    yield from (("doubled", f"{address} has it and is told as refused") for address in copies.keys() & refused)
    if delivery.outcome is not Outcome.UNKNOWN:
        yield from (("doubled", f"{address} has it, and may have it again") for address in copies.keys() - accepted)


def run(number: int) -> list[tuple[str, str]]:
    """One schedule; what is wrong with it."""
    dice = random.Random(f"{SEED} {number}")  # noqa: S311 - no secret
    moody = Moody(dice)
    sizes = [dice.choice((1, 99, 101, 300, 700)) for _ in range(3)]
    mails = [
        Mail(
            from_address="etl@corp.example",
            bcc=[f"r{at}@corp.example" for at in range(size)],
            text="x",
            attachments=[Attachment(content=b"x" * 1000, name="x")],
            message_id=f"<{index}@corp.example>",
        )
        for index, size in enumerate(sizes)
    ]
    offers = dice.choice(OFFERS)
    with Server(moody, offers=offers) as server:
        manager = server.manager(binary_mime="BINARYMIME" in offers)
        found = list(batch(manager, mails, retry_for=dice.choice((0, 0.3)), connections=dice.choice((1, 3))))
    wrong = list(broken_promises(server, mails, found))
    kinds = Counter(kind for kind, _ in wrong)
    TALLY.add(
        TOPIC,
        {
            "schedules run": 1,
            "recipients": sum(sizes),
            "too many": moody.too_many,
            "lost": kinds["lost"],
            "doubled": kinds["doubled"],
        },
    )
    return wrong


def test_whatever_is_answered_each_recipient_has_a_mail_once_or_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of one to ten thousand, refusals, a lost connection, in groups or not, over one connection or three."""
    for module, name in ((throttling, "FIRST_PAUSE"), (throttling, "LONGEST_PAUSE"), (retry, "FIRST_WAIT")):
        monkeypatch.setattr(module, name, 0.02)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(zip(itertools.count(), pool.map(run, range(SCHEDULES)), strict=False))
    assert [(number, wrong) for number, wrong in found if wrong] == []


# Accepted mail stays in the queue: delivering thousands of copies would take a minute.
HELD = (*ANONYMOUS, "smtpd_client_restrictions=check_client_access,static:HOLD")


class LimitedPostfix(AnonymousPostfix):
    """Postfix as it is installed, with a limit that some have, and the same without PIPELINING."""

    default: int
    hundred: int
    one_by_one: int
    services: ClassVar = {
        "default": HELD,
        "hundred": (*HELD, "smtpd_recipient_limit=100"),
        "one_by_one": (*HELD, "smtpd_recipient_limit=100", "smtpd_discard_ehlo_keywords=pipelining"),
    }


@pytest.fixture(scope="module")
def limited_postfix(anonymous_postfix: AnonymousPostfix) -> Iterator[LimitedPostfix]:
    """Where the other one runs, this one does."""
    assert anonymous_postfix
    with LimitedPostfix() as server:
        yield server


@pytest.mark.parametrize(
    ("port", "limit", "too_many"), [("default", 1000, 100), ("hundred", 100, 450), ("one_by_one", 100, 1)]
)
def test_a_real_postfix_takes_mails_to_any_number(
    port: str, limit: int, too_many: int, limited_postfix: LimitedPostfix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One group too many in all, however many mails; it counts to a thousand above its limit, then it hangs up."""
    asked = 0
    begin = Session.open

    def counted(session: Session, **options: Any) -> Session:
        opened = begin(session, **options)
        send = opened.transport.send_some

        def send_some(octets: bytes | memoryview) -> int:
            nonlocal asked
            number = send(octets)
            asked += bytes(octets[:number]).count(b"RCPT TO")
            return number

        opened.transport.send_some = send_some  # type: ignore[method-assign]
        return opened

    monkeypatch.setattr(Session, "open", counted)
    numbers = [2100, 2500]
    mails = [
        Mail(
            from_address="etl@corp.example",
            bcc=[f"r{at}@corp.example" for at in range(number)],
            text="x",
            message_id=f"<{index}.{port}@corp.example>",
        )
        for index, number in enumerate(numbers)
    ]
    manager = SmtpConnectionManager(host="127.0.0.1", port=getattr(limited_postfix, port), ssl_mode="none", timeout=60)
    profile = ServerProfile()
    found = list(send_many(mails, manager, lambda: Session(manager), profile=profile))
    assert [(delivery.outcome, len(delivery.accepted)) for delivery in found] == [
        (Outcome.ACCEPTED, number) for number in numbers
    ]
    assert profile.recipient_limit == limit
    assert asked == sum(numbers) + too_many
    TALLY.add(TOPIC, {"recipients": sum(numbers), "too many": too_many})
