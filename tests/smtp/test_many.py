"""Many mails over a few sessions: one delivery for each, nobody twice, and memory and patience that end."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import (
    AuthenticationError,
    ConnectError,
    MessageError,
    OutcomeUnknownError,
)
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.smtp import Delivery, Outcome
from airflow_provider_smtpcm.smtp.lane import Lane
from airflow_provider_smtpcm.smtp.many import send_many
from airflow_provider_smtpcm.smtp.pace import OPENINGS_BEFORE_GIVING_UP, Pace
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.wire import Wire
from tests.smtp.dialogue import Dialogue, Dialogues, hang_up
from tests.smtp.server import HANG_UP, MESSAGE, STORE_AND_HANG_UP, Habit, Limit, Server
from tests.smtp.test_pipelining import BYE, ENVELOPE, HELLO, QUEUED, WANTED

ManagerFor = Callable[..., SmtpConnectionManager]
NO_FROM = Mail(to="a@corp.example")


def letter(number: int, *to: str, size: int = 0, text: str = "All is well.") -> Mail:
    """A mail, with a file of so many octets."""
    return Mail(
        from_address="etl@corp.example",
        to=to or (f"a{number}@corp.example", f"b{number}@corp.example"),
        text=text,
        attachments=[Attachment(content=b"." * size, name="report.csv")] if size else (),
        message_id=f"<{number}@corp.example>",
    )


def send(manager: SmtpConnectionManager, mails: Iterable[Mail], **how: object) -> Generator[Delivery, None, None]:
    """Send them through sessions that are opened as they are needed."""
    return send_many(mails, manager, lambda: Session(manager).open(), **how)  # type: ignore[arg-type]


def send_through_a_strait(
    manager: SmtpConnectionManager, mails: Iterable[Mail], **how: float
) -> Generator[Delivery, None, None]:
    """As `send`, where the system takes little at a time from this side too."""

    def open_session() -> Session:
        session = Session(manager).open()
        session.wire._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return session

    return send_many(mails, manager, open_session, **how)  # type: ignore[arg-type]


def outcomes(deliveries: list[Delivery]) -> list[str]:
    """What became of each mail, in their order."""
    assert sorted(delivery.index for delivery in deliveries) == list(range(len(deliveries)))
    return [str(delivery.outcome) for delivery in sorted(deliveries, key=lambda delivery: delivery.index)]


@pytest.fixture
def tls(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], authority: trustme.CA) -> tuple[ssl.SSLContext, str]:
    """A server's context, and the certificate of its authority."""
    return tls_contexts[0], authority.cert_pem.bytes().decode()


class TimeLimit(BaseException):
    """As Airflow's own: no Exception."""


# --- Where mails come from


def test_a_source_that_raises_is_heard_of_when_what_it_gave_is_settled() -> None:
    """Nothing that was begun is lost for it."""

    def source() -> Iterator[Mail]:
        yield letter(0)
        yield letter(1)
        raise LookupError("no such column")

    found: list[Delivery] = []
    with Server() as server, pytest.raises(LookupError, match="no such column"):
        found.extend(send(server.manager(), source(), connections=2))
    assert outcomes(found) == ["accepted", "accepted"]
    assert len(server.stored) == 2


def test_a_source_is_asked_for_no_more_than_is_needed() -> None:
    """However many mails there are, a few are in memory."""
    taken = 0

    def source() -> Iterator[Mail]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield letter(number)

    with Server() as server:
        for delivered, _ in enumerate(send(server.manager(), source(), connections=2)):
            # In memory: two on each line, two ready, and two that finished together with this one.
            assert taken - delivered <= 2 * 2 + 2 + 2 + 1
    assert taken == 100


def test_a_source_of_mails_that_cannot_be_sent_is_not_read_ahead_of_either() -> None:
    """Each has its delivery at once, and nobody has to keep many of them."""
    taken = 0

    def source() -> Iterator[Mail]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield NO_FROM

    with Server() as server:
        deliveries = send(server.manager(), source(), connections=3)
        for delivered, delivery in enumerate(deliveries, 1):
            assert delivery.outcome is Outcome.NOT_SENT
            assert taken - delivered <= 3
    assert server.heard == []


def test_a_slow_source_and_a_server_that_closes_idle_sessions_lose_nothing(manager_for: ManagerFor) -> None:
    """Whether the server says so or only hangs up."""
    once = f"{HELLO}\n{ENVELOPE}\n{WANTED}\nMESSAGE\n{QUEUED}"

    def source() -> Iterator[Mail]:
        for number in range(3):
            yield letter(number, "a@corp.example", "b@corp.example")
            time.sleep(0.1)

    with Dialogues(f"{once}\nS: 421 4.4.2 idle for too long", once, f"{once}\n{BYE}") as dialogues:
        assert outcomes(list(send(manager_for(dialogues), source()))) == ["accepted"] * 3
    assert len(dialogues.messages) == 3


def test_a_session_that_was_closed_before_it_carried_anything_refuses_nobody() -> None:
    """It came too late for the first mails, and the server tired of it; the next mail is not for that line."""
    first_peer: list[int] = []

    def slow_for_the_second(about: str) -> str | None:
        if about == "CONNECT":
            first_peer.append(1)
            time.sleep(0.1 if len(first_peer) == 2 else 0)
        return None

    def source() -> Iterator[Mail]:
        yield letter(0)
        yield letter(1)
        while len(server.heard) < 2 or len(server.heard[1]) < 1 or len(server.stored) < 2:
            yield letter_of_nobody
        time.sleep(0.05)
        server._peers[1].sendall(b"421 4.4.2 idle\r\n")
        hang_up(server._peers[1])
        yield letter(2)
        yield letter(3)

    letter_of_nobody = NO_FROM
    with Server(slow_for_the_second) as server:
        found = list(send(server.manager(), source(), connections=2))
    assert Counter(str(delivery.outcome) for delivery in found if delivery.message_id) == {"accepted": 4}


def test_no_mail_waits_in_a_servers_hands_for_the_next_one_to_be_made() -> None:
    """A server that wants a message gives up after a while, and a source may take its time."""
    heard: Counter[str] = Counter()
    order: list[str] = []

    def note(about: str) -> str | None:
        heard[about] += 1
        return None

    def source() -> Iterator[Mail]:
        for number in range(4):
            order.append(f"{number} is made")
            yield letter(number)
            time.sleep(0.15)
            # Nobody serves the sessions meanwhile: what a server wants now it would not get, however long it waits.
            until = time.monotonic() + 4
            while heard["DATA"] > heard[MESSAGE] and time.monotonic() < until:
                time.sleep(0.01)
            if heard["DATA"] > heard[MESSAGE]:
                order.append("a server waits")

    with Server(note) as server:
        for delivery in send(server.manager(), source()):
            order += (f"{delivery.index} is {delivery.outcome}",)
    made, told = ([f"{number} is {what}" for number in range(4)] for what in ("made", "accepted"))
    assert order == [made[0], made[1], told[0], made[2], told[1], made[3], told[2], told[3]]


def test_an_open_session_that_was_closed_while_it_was_idle_is_opened_again(manager_for: ManagerFor) -> None:
    """Although it never carried a mail; and it stays open afterwards."""
    closed = f"{HELLO}\nS: 421 4.4.2 idle for too long"
    again = f"{HELLO}\n{ENVELOPE}\n{WANTED}\nMESSAGE\n{QUEUED}\nC: NOOP\nS: 250 ok\n{BYE}"
    with Dialogues(closed, again) as dialogues, Session(manager_for(dialogues)) as session:
        time.sleep(0.1)
        mail = letter(0, "a@corp.example", "b@corp.example")
        assert outcomes(list(session.send_many([mail]))) == ["accepted"]
        assert session.noop().positive


# --- Sessions that cannot be had


def test_a_server_that_is_down_is_asked_a_few_times_and_no_more() -> None:
    """Not for each of forty thousand mails."""
    attempts = 0

    def refuse() -> Session:
        nonlocal attempts
        attempts += 1
        raise ConnectError("Connection refused.", remedy="Start it.")

    manager = SmtpConnectionManager(host="127.0.0.1", ssl_mode="none")
    found = list(send_many([letter(number) for number in range(50)], manager, refuse, connections=4))
    assert outcomes(found) == ["not_sent"] * 50
    assert attempts <= OPENINGS_BEFORE_GIVING_UP * 4
    assert all(delivery.error is not None and delivery.error.retryable for delivery in found)


def test_a_sign_in_that_is_refused_is_not_repeated() -> None:
    """It would lock the account."""
    attempts = 0

    def refuse() -> Session:
        nonlocal attempts
        attempts += 1
        raise AuthenticationError("Wrong password.", remedy="Correct it.")

    manager = SmtpConnectionManager(host="127.0.0.1", ssl_mode="none")
    found = list(send_many([letter(number) for number in range(20)], manager, refuse))
    assert outcomes(found) == ["not_sent"] * 20
    assert attempts == 1


def test_fewer_sessions_than_wanted_carry_all_mails() -> None:
    """The server allows two at a time, and refuses a third in its greeting."""
    greeted = itertools.count(1)

    def at_most_two(about: str) -> str | None:
        return "421 4.7.0 too many connections" if about == "CONNECT" and next(greeted) > 2 else None

    with Server(at_most_two) as server:
        found = list(send(server.manager(), [letter(number) for number in range(40)], connections=5))
    assert outcomes(found) == ["accepted"] * 40
    assert len(server.stored) == 40
    assert len(server.heard) <= 5


def test_a_bug_in_opening_a_session_is_not_taken_for_a_mails_fault() -> None:
    """It is raised where somebody listens."""

    def broken() -> Session:
        raise ZeroDivisionError

    manager = SmtpConnectionManager(host="127.0.0.1", ssl_mode="none")
    with pytest.raises(ZeroDivisionError):
        list(send_many([letter(0)], manager, broken))


def test_a_server_that_closes_every_session_at_once_is_given_up_mail_by_mail() -> None:
    """Each session is tried with a mail, and there is no further one without progress."""
    with Server(lambda about: "421 4.3.2 not now" if about.startswith("MAIL") else None) as server:
        found = list(send(server.manager(), [letter(number) for number in range(5)], connections=2))
    assert outcomes(found) == ["refused"] * 5
    assert len(server.heard) <= 6


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("limit", Limit)
@pytest.mark.parametrize("per_connection", [1, 2, 5])
def test_a_limit_of_messages_for_each_connection_loses_and_repeats_nothing(
    per_connection: int, limit: Limit, connections: int
) -> None:
    """However the server ends the session."""
    with Server(per_connection=per_connection, limit=limit) as server:
        found = list(send(server.manager(), [letter(number) for number in range(12)], connections=connections))
    assert outcomes(found) == ["accepted"] * 12
    assert sorted(stored.message_id for stored in server.stored) == sorted(f"<{at}@corp.example>" for at in range(12))
    assert len(server.heard) >= 12 / per_connection


# --- Mails that stand out


def test_a_mail_that_the_server_cannot_take_is_nothing_to_the_others() -> None:
    """Too large, or an address that needs SMTPUTF8: each is told, before anything of it is sent."""
    batch = [letter(0), letter(1, size=90_000), letter(2, "jürgen@corp.example"), NO_FROM, letter(4)]
    with Server(offers=("PIPELINING", "SIZE 100000")) as server:
        found = list(send(server.manager(), batch))
    assert outcomes(found) == ["accepted", "not_sent", "not_sent", "not_sent", "accepted"]
    errors = {delivery.index: str(delivery.error) for delivery in found if delivery.error}
    assert "100,000" in errors[1]
    assert "SMTPUTF8" in errors[2]
    assert len([line for line in server.commands if line.startswith("MAIL")]) == 2


def test_an_address_outside_ascii_is_announced_for_its_mail_alone() -> None:
    """RFC 6531 3.4."""
    with Server(offers=("PIPELINING", "SMTPUTF8")) as server:
        found = list(send(server.manager(), [letter(0), letter(1, "jürgen@corp.example"), letter(2)]))
    assert outcomes(found) == ["accepted"] * 3
    assert server.copies("<1@corp.example>") == ["jürgen@corp.example"]
    assert ["SMTPUTF8" in line for line in server.commands if line.startswith("MAIL")] == [False, True, False]


@pytest.mark.parametrize("pipelining", [True, False])
def test_more_recipients_than_the_server_takes_get_it_in_turns(pipelining: bool) -> None:
    """RFC 5321 4.5.3.1.10; each once, and the mail has one delivery."""
    asked = 0

    def at_most_seven(about: str) -> str | None:
        nonlocal asked
        asked = 0 if about.startswith("MAIL") else asked + about.startswith("RCPT")
        return "452 4.5.3 too many recipients" if about.startswith("RCPT") and asked > 7 else None

    everybody = [f"r{number}@corp.example" for number in range(40)]
    with Server(at_most_seven, offers=("PIPELINING",) if pipelining else ()) as server:
        found = list(send(server.manager(), [letter(0, *everybody), letter(1)]))
    assert outcomes(found) == ["accepted", "accepted"]
    assert sorted(server.copies("<0@corp.example>")) == sorted(everybody)
    assert len(server.stored) == 6 + 1
    assert len({stored.message for stored in server.stored if stored.message_id == "<0@corp.example>"}) == 1


@pytest.mark.parametrize("encrypted", [False, True])
def test_hundreds_of_recipients_and_long_answers_do_not_lock_both_sides_up(
    encrypted: bool, tls: tuple[ssl.SSLContext, str]
) -> None:
    """A server that answers each command at length before it reads the next one fills the buffers both ways."""
    everybody = [f"recipient-number-{number}@corp.example" for number in range(500)]
    long = "\r\n".join(["250-2.1.5 " + "so be it " * 50] * 2 + ["250 2.1.5 ok"])
    decide = {"RCPT": long}.get
    with Server(
        lambda about: decide(about[:4]), at_once=256, tls=tls[0] if encrypted else None, offers=("PIPELINING",)
    ) as server:
        how = {"ssl_mode": "implicit", "ca_certificate": tls[1]} if encrypted else {}
        began = time.monotonic()
        manager = server.manager(timeout=10, **how)
        found = list(send_through_a_strait(manager, [letter(0, *everybody), letter(1, *everybody)]))
    assert time.monotonic() - began < 9
    assert outcomes(found) == ["accepted", "accepted"]
    assert sorted(server.copies("<1@corp.example>")) == sorted(everybody)


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_message_that_is_out_is_known_to_be_out_while_the_next_envelope_is_not(
    encrypted: bool, tls: tuple[ssl.SSLContext, str]
) -> None:
    """The server has the final dot when the line breaks, in the middle of what was to be sent in one piece with it."""
    everybody = [f"recipient-number-{number}@corp.example" for number in range(3000)]

    def hang_up_once(about: str) -> str | None:
        return STORE_AND_HANG_UP if about == MESSAGE and not server.stored else None

    with Server(hang_up_once, at_once=256, tls=tls[0] if encrypted else None) as server:
        how = {"ssl_mode": "implicit", "ca_certificate": tls[1]} if encrypted else {}
        batch = [letter(0, text="x\n" * 20_000), letter(1, *everybody)]
        found = list(send_through_a_strait(server.manager(**how), batch))
    assert outcomes(found) == ["unknown", "accepted"]
    assert len(server.copies("<0@corp.example>")) == 2


@pytest.mark.parametrize("connections", [1, 3])
def test_many_mails_go_over_an_encrypted_line(connections: int, tls: tuple[ssl.SSLContext, str]) -> None:
    """Small ones, and files in blocks; what TLS holds back, `poll` does not show."""
    batch = [letter(number, size=(0, 10_000, 400_000)[number % 3]) for number in range(12)]
    with Server(tls=tls[0], per_connection=5) as server:
        manager = server.manager(ssl_mode="implicit", ca_certificate=tls[1])
        found = list(send(manager, batch, connections=connections))
    assert outcomes(found) == ["accepted"] * 12
    assert sorted(len(stored.message) > 400_000 for stored in server.stored) == [False] * 8 + [True] * 4


# --- Time


def test_the_answer_to_a_message_may_take_its_time_while_the_next_envelope_waits() -> None:
    """A server that is busy with a message reads nothing (RFC 5321 4.5.3.2.6), however long the envelope behind it."""
    everybody = [f"recipient-number-{number}@corp.example" for number in range(3000)]

    def busy(about: str) -> str | None:
        time.sleep(4 if about == MESSAGE and not server.stored else 0)
        return None

    with Server(busy, at_once=1024, pause=0.003) as server:
        manager = server.manager(timeout=3.5, final_reply_timeout=30)
        found = list(send_through_a_strait(manager, [letter(0), letter(1, *everybody)]))
    assert outcomes(found) == ["accepted", "accepted"]
    assert len(server.heard) == 1


def test_a_long_text_has_its_time_for_each_block_of_it() -> None:
    """The server reads slowly, and steadily."""
    text = "All is well.\n" * 50_000
    with Server(at_once=2048, pause=0.004) as server:
        found = list(send_through_a_strait(server.manager(timeout=1), [letter(0, text=text)]))
    assert outcomes(found) == ["accepted"]


def test_a_server_that_stops_reading_is_left_at_the_deadline(manager_for: ManagerFor) -> None:
    """Also in the middle of a block."""
    steps = f"{HELLO}\n{ENVELOPE}\n{WANTED}\nPART\nPAUSE\nPAUSE\nPAUSE\nPAUSE"
    mail = letter(0, "a@corp.example", "b@corp.example", size=20_000_000)
    began = time.monotonic()
    with Dialogue(steps) as dialogue:
        found = list(send(manager_for(dialogue), [mail]))
        assert 0.9 < time.monotonic() - began < 10
    assert outcomes(found) == ["not_sent"]
    assert "did not take what we sent" in str(found[0].error)


def test_waiting_takes_no_processor_time(manager_for: ManagerFor) -> None:
    """Here for a server that does not read, while the next mail is ready, and from some moment on may be sent."""
    both = ("a@corp.example", "b@corp.example")
    first = f"{ENVELOPE}\n{WANTED}\nPAUSE\nPAUSE\nMESSAGE\n{ENVELOPE}\n{QUEUED}\n{WANTED}\nPAUSE\nMESSAGE"
    with Dialogue(f"{HELLO}\n{first}\n{QUEUED}\n{BYE}") as dialogue:
        dialogue._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        manager = manager_for(dialogue, timeout=5)
        busy = time.process_time()
        batch = [letter(0, *both, text="x\n" * 20_000), letter(1, *both)]
        found = list(send_through_a_strait(manager, batch, rate_limit=600))
        busy = time.process_time() - busy
    assert outcomes(found) == ["accepted", "accepted"]
    assert busy < 0.4


def test_no_more_mails_a_minute_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one to the next at least the time that is due, a second connection and a slow beginning or not."""
    begun: list[float] = []
    begin = Pace.begun

    def note_and_begin(pace: Pace) -> None:
        begun.append(time.monotonic())
        begin(pace)

    monkeypatch.setattr(Pace, "begun", note_and_begin)

    def slow(about: str) -> str | None:
        time.sleep(0.12 if about == "CONNECT" else 0)
        return None

    with Server(slow) as server:
        found = list(send(server.manager(), [letter(n) for n in range(8)], connections=8, rate_limit=600))
    assert outcomes(found) == ["accepted"] * 8
    gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert len(gaps) == 7
    assert min(gaps) > 0.0999
    assert sum(gaps) < 5
    assert len(server.heard) < 5  # one is enough for that, unless everything is slow


@pytest.mark.parametrize("wrong", [{"connections": 0}, {"rate_limit": 0}, {"rate_limit": -1}])
def test_what_makes_no_sense_is_refused_at_once(wrong: dict[str, int]) -> None:
    """Before the first mail is asked for."""
    with pytest.raises(ValueError, match="give"):
        send(SmtpConnectionManager(host="127.0.0.1", ssl_mode="none"), [letter(0)], **wrong)


# --- Files from afar


class Store:
    """A path in a store that takes its time."""

    name = "report.csv"

    def __init__(self, *, stat: Callable[[], None] = lambda: None, read: Callable[[], None] = lambda: None) -> None:
        self._stat = stat
        self._read = read

    def stat(self) -> object:
        """What it takes to measure it."""
        self._stat()
        return SimpleNamespace(st_size=100_000)

    def open(self, mode: str) -> BinaryIO:
        """What it takes to read it."""
        self._read()
        path = Path("/dev/zero")
        return _Ending(path.open(mode))  # type: ignore[arg-type,return-value]


class _Ending:
    """Some zeros, and no more."""

    def __init__(self, zeros: BinaryIO) -> None:
        self._zeros = zeros
        self._left = 100_000

    def read(self, size: int) -> bytes:
        found = self._zeros.read(min(size, self._left))
        self._left -= len(found)
        return found

    def close(self) -> None:
        self._zeros.close()


def from_afar(number: int, store: object) -> Mail:
    """A mail with such a file."""
    return Mail(
        from_address="etl@corp.example",
        to="a@corp.example",
        attachments=[Attachment(store, name="report.csv")],  # type: ignore[arg-type]
        message_id=f"<{number}@corp.example>",
    )


@pytest.mark.parametrize("where", ["stat", "read"])
def test_a_slow_store_holds_up_nobody_elses_mail(where: str) -> None:
    """Measuring and reading happen in threads."""
    others = threading.Event()
    store = Store(**{where: lambda: others.wait(5) and None})  # type: ignore[arg-type]
    order: list[int] = []
    with Server() as server:
        for delivery in send(server.manager(), [from_afar(0, store), *map(letter, range(1, 6))], connections=2):
            order.append(delivery.index)
            if len(order) == 5:
                others.set()
            assert delivery.outcome is Outcome.ACCEPTED
    assert sorted(order[:5]) == [1, 2, 3, 4, 5]
    assert order[5] == 0


@pytest.mark.parametrize("size", [2**70, "many"])
def test_a_store_that_measures_nonsense_costs_its_mail_alone(size: object) -> None:
    """It has its delivery like any other."""
    store = Store()
    store.stat = lambda: SimpleNamespace(st_size=size)  # type: ignore[method-assign]
    with Server() as server:
        found = list(send(server.manager(), [from_afar(0, store), letter(1)]))
    assert outcomes(found) == ["not_sent", "accepted"]
    assert isinstance(found[0].error if found[0].index == 0 else found[1].error, MessageError)


def test_a_session_that_is_lost_while_a_file_is_measured_leaves_its_mail_a_delivery(manager_for: ManagerFor) -> None:
    """A single mail through an open session; nobody waits for ever."""
    gone = threading.Event()
    store = Store(stat=lambda: gone.wait(5) and None)  # type: ignore[arg-type,return-value]
    with Dialogue(f"{HELLO}\nPAUSE") as dialogue, Session(manager_for(dialogue)) as session:
        threading.Timer(0.5, gone.set).start()
        delivery = session.send(from_afar(0, store))
    assert delivery.outcome is Outcome.NOT_SENT
    assert isinstance(delivery.error, ConnectError)


# --- The end before the end


def test_who_stops_listening_stops_the_sending() -> None:
    """What was begun is brought to an end, nothing more is begun, and every session says good-bye."""
    taken = 0

    def source() -> Iterator[Mail]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield letter(number)

    with Server() as server:
        deliveries = send(server.manager(), source(), connections=3)
        next(deliveries)
        deliveries.close()
    assert 1 <= len(server.stored) <= taken < 20
    assert all(count == 1 for count in Counter(stored.message_id for stored in server.stored).values())


def test_who_stops_listening_is_not_held_up_by_an_envelope(manager_for: ManagerFor) -> None:
    """The mail before it is finished; the server wants the next message, which nobody sends it now."""
    steps = f"{HELLO}\n{ENVELOPE}\n{WANTED}\nMESSAGE\n{ENVELOPE}\nPAUSE\n{QUEUED}\n{WANTED}\nHANG"
    both = ("a@corp.example", "b@corp.example")
    began = time.monotonic()
    with Dialogue(steps) as dialogue:
        deliveries = send(manager_for(dialogue, timeout=5), [letter(0, *both), letter(1, *both), NO_FROM])
        assert next(deliveries).index == 2
        deliveries.close()
        assert time.monotonic() - began < 4
    assert len(dialogue.messages) == 1


def test_who_never_listens_leaves_nothing_open() -> None:
    """The sending begins with the first delivery that is asked for."""
    manager = SmtpConnectionManager(host="127.0.0.1", ssl_mode="none")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        send(manager, [letter(0)])
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_nothing_stays_open_after_the_last_delivery() -> None:
    """No socket, no pipe, no thread; a session that was being opened when it was not needed any more soon neither."""

    def open_ones() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208

    before = open_ones()
    with Server(per_connection=2) as server:
        list(send(server.manager(), [letter(number) for number in range(10)], connections=3))
    deadline = time.monotonic() + 5
    while (now := open_ones()) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert now == before


def interrupted(seconds: float, with_what: type[BaseException], deliveries: Iterable[Delivery]) -> None:
    """Take the deliveries until a signal's handler raises, as that of Airflow's time limit does."""

    def time_is_up(_number: int, _frame: object) -> None:
        raise with_what

    before = signal.signal(signal.SIGALRM, time_is_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        list(deliveries)
    finally:
        signal.signal(signal.SIGALRM, before)


def silent_server() -> Server:
    """It takes messages, and does not say what becomes of them."""

    def say_nothing(about: str) -> str | None:
        if about == MESSAGE:
            server.over.wait(10)
        return None

    server = Server(say_nothing)
    return server


@pytest.mark.parametrize("connections", [1, 2])
def test_an_interruption_names_every_mail_that_only_the_server_knows_about(connections: int) -> None:
    """A retry would send them again; there is one for each connection at the most."""
    with silent_server() as server, pytest.raises(OutcomeUnknownError) as caught:
        interrupted(0.4, TimeLimit, send(server.manager(), map(letter, range(6)), connections=connections))
    assert sum(f"<{number}@corp.example>" in str(caught.value) for number in range(6)) == connections


def test_control_c_stays_what_it_is() -> None:
    """Nobody retries after it."""
    with silent_server() as server, pytest.raises(KeyboardInterrupt):
        interrupted(0.3, KeyboardInterrupt, send(server.manager(), [letter(0), letter(1)]))


def test_an_interruption_while_the_final_dot_goes_out_finds_it_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The octets are the system's before the program knows so."""
    send_some = Wire.send_some

    def send_and_stop(wire: Wire, octets: bytes) -> int:
        sent = send_some(wire, octets)
        if bytes(octets).startswith(b"Date:"):
            raise TimeLimit
        return sent

    monkeypatch.setattr(Wire, "send_some", send_and_stop)
    with Server() as server, pytest.raises(OutcomeUnknownError, match=r"<0@corp\.example>"):
        list(send(server.manager(), [letter(0)]))


def test_an_interruption_before_the_delivery_could_be_handed_out_tells_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mail was accepted, and nobody else knows."""

    def stop_when_heard(lane: Lane) -> None:
        listen(lane)
        if not lane.busy:
            raise TimeLimit

    listen = Lane.listen
    monkeypatch.setattr(Lane, "listen", stop_when_heard)
    with Server() as server, pytest.raises(OutcomeUnknownError, match=r"<0@corp\.example>"):
        list(send(server.manager(), [letter(0)]))


# --- When all goes well


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("pipelining", [True, False])
def test_every_mail_has_its_delivery_and_every_recipient_the_mail(connections: int, pipelining: bool) -> None:
    """Over no more sessions than allowed, and each that was of use says good-bye."""
    batch = [letter(number) for number in range(50)]
    with Server(offers=("PIPELINING",) if pipelining else ()) as server:
        found = list(send(server.manager(), batch, connections=connections))
    assert outcomes(found) == ["accepted"] * 50
    for number, mail in enumerate(batch):
        assert sorted(server.copies(f"<{number}@corp.example>")) == sorted(to.address for to in mail.to)
    assert len(server.heard) <= connections
    assert all(lines[-1] == "QUIT" for lines in server.heard if any(line.startswith("MAIL") for line in lines))


def test_no_mails_need_no_server() -> None:
    """Nor a session."""
    assert list(send(SmtpConnectionManager(host="127.0.0.1", ssl_mode="none"), [])) == []


# --- Whatever the server does

ANSWERS = (
    [None] * 6
    + ["450 4.2.0 later", "550 5.1.1 no", "452 4.5.3 too many recipients", "421 4.3.2 closing", "354 what?", "250 hm"]
    + ["554 5.5.0 SMTP synchronization error", HANG_UP]
)


@given(
    answers=st.lists(st.sampled_from(ANSWERS), max_size=40),
    recipients=st.lists(st.integers(1, 3), min_size=1, max_size=6),
    sizes=st.lists(st.sampled_from([0, 0, 100, 70_000]), min_size=6, max_size=6),
    offers=st.sampled_from([("PIPELINING",), (), ("PIPELINING", "CHUNKING", "BINARYMIME"), ("CHUNKING", "BINARYMIME")]),
    habit=st.sampled_from([Habit.GOOD, Habit.GOOD, Habit.OBJECTS, Habit.HANGS_UP]),
    per_connection=st.sampled_from([None, None, 1, 2]),
    limit=st.sampled_from(Limit),
    connections=st.integers(1, 3),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_server_answers_each_mail_has_one_delivery_and_each_recipient_one_copy_at_most(
    answers: list[str | None],
    recipients: list[int],
    sizes: list[int],
    offers: tuple[str, ...],
    habit: Habit,
    per_connection: int | None,
    limit: Limit,
    connections: int,
) -> None:
    """Accepted is who is stored, no more and no less; where that cannot be known, the outcome is unknown."""
    left = iter(answers)

    def decide(about: str) -> str | None:
        if about.startswith(("EHLO", "RSET", "QUIT", "CONNECT")):
            return None
        answer = next(left, None)
        if about == "DATA" and answer == "354 what?":
            return "354 although nobody was accepted"
        # A wrong yes to the end of a message would be told apart by nobody.
        if about.startswith("BDAT") and answer == "250 hm":
            return None
        if about == MESSAGE and answer is not None:
            return STORE_AND_HANG_UP if answer.startswith(("354", "250")) else answer
        return answer

    batch = [
        letter(number, *(f"r{number}x{at}@corp.example" for at in range(count)), size=sizes[number])
        for number, count in enumerate(recipients)
    ]
    with Server(decide, offers=offers, habit=habit, per_connection=per_connection, limit=limit) as server:
        manager = server.manager(binary_mime=True)
        began = time.monotonic()
        found = list(send(manager, iter(batch), connections=connections))
        assert time.monotonic() - began < 4  # nobody waited for a deadline
    outcomes(found)
    assert len(found) == len(batch)
    for delivery in found:
        everybody = {to.address for to in batch[delivery.index].to}
        copies = Counter(server.copies(f"<{delivery.index}@corp.example>"))
        assert all(count == 1 for count in copies.values())
        assert not delivery.refused.keys() & copies.keys()
        if delivery.outcome is Outcome.UNKNOWN:
            assert set(delivery.accepted) <= copies.keys()
        else:
            assert set(delivery.accepted) == copies.keys()
            assert (delivery.outcome is Outcome.ACCEPTED) is (copies.keys() == everybody)
            assert (delivery.outcome is Outcome.PARTIAL) is (bool(copies) and copies.keys() != everybody)


def test_a_server_that_is_busy_for_ever_is_left_to_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mails behind are told as not sent, and may be tried again; the batch ends."""
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.many._ENDURANCE", 0.3)
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.pace.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.pace.LONGEST_PAUSE", 0.1)

    def busy(about: str) -> str | None:
        return "450 4.3.0 busy" if about.startswith("MAIL") else None

    with Server(busy) as server:
        found = list(send(server.manager(), (letter(number) for number in range(500))))
    assert len(found) == 500
    assert {str(delivery.outcome) for delivery in found} == {"refused", "not_sent"}
    last = found[-1].error
    assert last is not None and last.retryable
    assert "has taken no mail for" in str(last)
