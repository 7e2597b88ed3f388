"""A mail to more recipients than a server accepts at once reaches all of them; its limit is exceeded only slightly."""

from __future__ import annotations

from collections import Counter

import pytest

from airflow_provider_smtpcm.errors import StoppedError
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.smtp import Delivery, Outcome
from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.retry import pending_recipients
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.throttling import ServerProfile
from tests.smtp.connection_pool.batches import requests, send_many
from tests.smtp.limits import Limit
from tests.smtp.server import HANG_UP, MESSAGE, STORE_AND_HANG_UP, Server
from tests.smtp.test_retried_batches import batch

PIPELINING = ("PIPELINING", "SIZE 0", "SMTPUTF8")
BINARY = ("PIPELINING", "SIZE 0", "CHUNKING", "BINARYMIME")


def people(number: int) -> list[str]:
    """This many recipients."""
    return [f"r{at}@corp.example" for at in range(number)]


def letter(index: int, recipients: int, **fields: object) -> Mail:
    """A mail to this many recipients."""
    given = {"from_address": "etl@corp.example", "bcc": people(recipients), "text": "x", **fields}
    return Mail(message_id=f"<{index}@corp.example>", **given)  # type: ignore[arg-type]


def sent(server: Server, *mails: Mail, profile: ServerProfile | None = None, **settings: object) -> list[Delivery]:
    """Their deliveries over one connection at a time."""
    manager = server.manager(**settings)
    return list(send_many(mails, manager, lambda: Session(manager), profile=profile))


def everybody_once(server: Server, index: int, recipients: int) -> bool:
    """Whether each of this many recipients has this mail exactly once."""
    return Counter(server.copies(f"<{index}@corp.example>")) == Counter(people(recipients))


# --- Failures


def test_a_server_that_loses_its_patience_at_once_has_the_mail_all_the_same() -> None:
    """It closes the connection after twenty too many; the next connection keeps to the limit."""
    limit = Limit(150, overshoot=0)
    with Server(limit, offers=PIPELINING) as server:
        (delivery,) = sent(server, letter(0, 500))
    assert (delivery.outcome, len(delivery.accepted)) == (Outcome.ACCEPTED, 500)
    assert everybody_once(server, 0, 500)
    assert limit.asked == [171, 150, 150, 150, 50]


def test_a_line_that_breaks_in_a_further_transaction_leaves_those_who_have_it_alone() -> None:
    """And the others get it in the next one."""
    rcpts = 0

    def breaks_once(about: str) -> str | None:
        nonlocal rcpts
        rcpts += about.startswith("RCPT")
        return HANG_UP if rcpts == 170 and about.startswith("RCPT") else None

    with Server(Limit(100, also=breaks_once), offers=("SIZE 0",)) as server:
        (delivery,) = sent(server, letter(0, 250))
    assert delivery.outcome is Outcome.ACCEPTED
    assert everybody_once(server, 0, 250)


def test_no_answer_to_a_further_transaction_leaves_its_recipients_alone_in_doubt() -> None:
    """Those of the previous one have it; those of later ones are not attempted, nor by another attempt."""
    messages = iter([None, STORE_AND_HANG_UP])
    with Server(Limit(100, also=lambda about: next(messages) if about == MESSAGE else None)) as server:
        (delivery,) = sent(server, letter(0, 350))
    everybody = people(350)
    assert delivery.outcome is Outcome.UNKNOWN
    assert list(delivery.accepted) == everybody[:100]
    assert len(server.copies("<0@corp.example>")) == 200
    assert "It may have been delivered to r100@corp.example" in str(delivery.error)
    assert "r0@corp.example, r1@corp.example" in str(delivery.error).partition("by an earlier transaction")[0]
    assert "It was not sent to r200@corp.example" in str(delivery.error)
    assert pending_recipients(delivery, SendRequest(0, letter(0, 350))) == ()


@pytest.mark.parametrize(("answer", "again"), [("554 5.6.0 bad content", 0), ("451 4.3.0 later", 150)])
def test_a_message_that_is_refused_in_a_further_transaction_is_refused_for_all_who_are_left(
    answer: str, again: int
) -> None:
    """It is the same message; those who have it keep it, and a transient refusal is retried only for the others."""
    messages = iter([None, answer])
    with Server(Limit(100, also=lambda about: next(messages) if about == MESSAGE else None)) as server:
        (delivery,) = sent(server, letter(0, 250))
    assert (delivery.outcome, list(delivery.accepted)) == (Outcome.PARTIAL, people(100))
    assert [str(reply) for reply in set(delivery.refused.values())] == [answer]
    assert len(delivery.refused) == 150
    assert len(pending_recipients(delivery, SendRequest(0, letter(0, 250)))) == again
    assert len(server.stored) == 1


def test_asked_to_end_it_begins_no_further_transaction() -> None:
    """Those who have it are named, and the others get nothing."""
    stop = CancellationToken()
    messages: list[str] = []

    def ask(about: str) -> None:
        if about == MESSAGE:
            messages.append(about)
            if len(messages) == 2:
                stop.cancel()

    with Server(Limit(100, also=ask)) as server:
        manager = server.manager()
        mailing = BatchSender(requests([letter(0, 350)]), manager, lambda: Session(manager), cancellation=stop)
        (delivery,) = mailing.deliveries()
    assert (delivery.outcome, len(delivery.accepted)) == (Outcome.PARTIAL, 200)
    assert delivery.refused == {}
    assert len(delivery.never_asked(people(350))) == 150
    assert "asked to end" in str(delivery.error) or isinstance(delivery.error, StoppedError)
    assert len(server.stored) == 2


def test_a_quota_is_not_taken_for_a_limit() -> None:
    """A quota with three left is no reason to send one mail for every three recipients for the rest of the batch."""
    left = 103

    def quota(about: str) -> str | None:
        nonlocal left
        left -= about.startswith("RCPT")
        return "452 4.5.3 too many recipients" if left < 0 and about.startswith("RCPT") else None

    profile = ServerProfile()
    with Server(quota) as server:
        found = sent(server, letter(0, 100), letter(1, 100), profile=profile)
    assert found[0].outcome is Outcome.ACCEPTED
    assert (found[1].outcome, len(found[1].accepted)) == (Outcome.PARTIAL, 3)
    assert profile.recipient_limit is None


def test_of_recipients_who_are_all_refused_the_others_are_asked() -> None:
    """A whole transaction of unknown addresses says nothing about those after them."""
    gone = dict.fromkeys(people(300)[:120], "550 5.1.1 no such user")
    profile = ServerProfile(recipient_limit=100)
    with Server(Limit(100, refused=gone)) as server:
        (delivery,) = sent(server, letter(0, 300), profile=profile)
    assert delivery.outcome is Outcome.PARTIAL
    assert delivery.accepted == tuple(people(300)[120:])
    assert set(delivery.refused) == set(gone)
    assert server.copies("<0@corp.example>") == people(300)[120:]


def test_a_sender_who_is_refused_is_refused_before_all_recipients_were_named() -> None:
    """One group goes with the MAIL, and no further one."""
    limit = Limit(1000, also=lambda about: "550 5.7.1 not you" if about.startswith("MAIL") else None)
    with Server(limit, offers=PIPELINING) as server:
        (delivery,) = sent(server, letter(0, 1500))
    assert (delivery.outcome, len(delivery.refused)) == (Outcome.REFUSED, 1500)
    assert sum(line.startswith("RCPT") for line in server.commands) == 550
    assert "DATA" not in server.commands


# --- Success


@pytest.mark.parametrize("offers", [PIPELINING, BINARY, ("SIZE 0",)])
@pytest.mark.parametrize(
    "says", ["452 4.5.3 Error: too many recipients", "552 too many recipients", "451 4.5.3 Too many recipients"]
)
def test_a_limit_is_explored_once_for_all_mails_of_a_connection(says: str, offers: tuple[str, ...]) -> None:
    """By one group, or by one recipient if each is sent alone; never again after that."""
    limit, profile = Limit(150, says=says), ServerProfile()
    files = [Attachment(content=b"x" * 100_000, name="x")] if offers is BINARY else []
    mails = [letter(index, 700, attachments=files) for index in range(2)]
    with Server(limit, offers=offers) as server:
        found = sent(server, *mails, profile=profile, binary_mime=offers is BINARY)
    assert [delivery.outcome for delivery in found] == [Outcome.ACCEPTED] * 2
    assert all(list(delivery.accepted) == people(700) for delivery in found)
    assert all(everybody_once(server, index, 700) for index in range(2))
    first = 550 if "PIPELINING" in offers else 151
    assert limit.asked[0] == first
    assert sorted(limit.asked[1:]) == [100, 100, *[150] * 7]
    assert profile.recipient_limit == 150
    assert len({stored.message for stored in server.stored if stored.message_id == "<0@corp.example>"}) == 1


def test_a_limit_below_what_every_server_takes_is_believed_once_it_was_met_twice() -> None:
    """It violates RFC 5321 4.5.3.1.8, and exists nevertheless."""
    limit = Limit(30)
    with Server(limit, offers=PIPELINING) as server:
        (delivery,) = sent(server, letter(0, 150))
    assert delivery.outcome is Outcome.ACCEPTED
    assert limit.asked == [150, 120, 30, 30, 30]


def test_what_a_server_announces_is_kept_to_from_the_first_mail_on() -> None:
    """LIMITS RCPTMAX (RFC 9422 4), and all of them are sent in one group."""
    limit = Limit(40)
    with Server(limit, offers=("PIPELINING", "LIMITS MAILMAX=50 RCPTMAX=40")) as server:
        (delivery,) = sent(server, letter(0, 100))
    assert delivery.outcome is Outcome.ACCEPTED
    assert limit.asked == [40, 40, 20]


@pytest.mark.parametrize(
    ("said", "limit"), [("RCPTMAX=100", 100), ("rcptmax=7 X", 7), ("RCPTMAX=0", None), ("XRCPTMAX=5", None), ("", None)]
)
def test_a_limit_that_is_none_is_not_one(said: str, limit: int | None) -> None:
    """RFC 9422 4.2: one to six digits, the first of which is not 0."""
    with Server() as server:
        session = Session(server.manager())
        session.extensions = {"LIMITS": said}
        assert session.recipient_limit == limit


def test_what_a_server_has_taken_is_asked_for_at_once_from_then_on() -> None:
    """The second mail to as many takes one round trip for its envelope."""
    limit = Limit(1000)
    profile = ServerProfile()
    with Server(limit, offers=PIPELINING) as server:
        found = sent(server, letter(0, 700), letter(1, 700), profile=profile)
    assert [delivery.outcome for delivery in found] == [Outcome.ACCEPTED] * 2
    assert limit.asked == [700, 700]
    assert profile.recipients_at_once == 700


@pytest.mark.parametrize("offers", [PIPELINING, BINARY, ("SIZE 0",)])
def test_some_who_are_refused_and_some_who_are_greylisted_come_to_what_they_should(offers: tuple[str, ...]) -> None:
    """In any transaction; permanently refused recipients are tried once, the others until they have it."""
    grey = {f"r{at}@corp.example" for at in range(0, 430, 7)}
    gone = dict.fromkeys((f"r{at}@corp.example" for at in range(3, 430, 10)), "550 5.1.1 no")
    seen: set[str] = set()

    def greylist(about: str) -> str | None:
        address = about[9:-1]
        if address not in grey or address in seen or address in gone:
            return None
        seen.add(address)
        return "450 4.2.0 Greylisted"

    with Server(Limit(120, refused=gone, also=greylist), offers=offers) as server:
        (delivery,) = batch(server.manager(), [letter(0, 430)])
    assert delivery.outcome is Outcome.PARTIAL
    assert set(delivery.refused) == set(gone)
    assert set(delivery.accepted) == set(people(430)) - set(gone)
    assert Counter(server.copies("<0@corp.example>")) == Counter(delivery.accepted)


def test_a_mailbox_outside_ascii_is_asked_for_in_each_transaction_that_it_takes() -> None:
    """SMTPUTF8 is announced by each of them (RFC 6531 3.4)."""
    mail = letter(0, 0, bcc=[*people(150), "jürgen@corp.example"])
    with Server(Limit(100), offers=PIPELINING) as server:
        (delivery,) = sent(server, mail)
    assert delivery.outcome is Outcome.ACCEPTED
    assert "jürgen@corp.example" in delivery.accepted
    assert ["SMTPUTF8" in line for line in server.commands if line.startswith("MAIL")] == [True, True]
