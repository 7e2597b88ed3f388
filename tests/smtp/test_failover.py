"""Fallback hosts: the next server is used where the one before cannot be reached, and for nothing else."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest
import trustme

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import AuthenticationError, ConnectError, MailError, OutcomeUnknownError, TlsError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp import Delivery, failover
from airflow_provider_smtpcm.smtp.auth.kerberos import list_service_names
from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
from airflow_provider_smtpcm.smtp.connection_pool import BatchSender
from airflow_provider_smtpcm.smtp.failover import Failover
from airflow_provider_smtpcm.smtp.queue import SendRequest
from airflow_provider_smtpcm.smtp.retry import RetryQueue
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.testing import Relay
from tests.smtp.connection_pool.batches import close_from_afar, letter, outcomes, requests
from tests.smtp.server import HANG_UP, MESSAGE, Decide, Server
from tests.waiting import wait_until

ALICE = {r"CORP\alice": "correct horse battery"}


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> Iterator[None]:
    """A port may be another server's in the next test."""
    failover._outages.clear()
    yield
    failover._outages.clear()


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections for as long as this lasts, since it is taken and not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextlib.contextmanager
def blackhole() -> Iterator[int]:
    """A port from which no answer comes: its queue is full, so that the system drops what arrives."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = held.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


class SilentListener:
    """It takes connections, and never says a word."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def count_connections(self) -> int:
        """Return how many have been made so far, and take them."""
        self._listener.settimeout(0)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self._listener.accept()[0].close()
                count += 1
        return count


def saying(event: str, what: str) -> Decide:
    """Decide one event of a server, such as `CONNECT`; all others take their course."""
    return lambda about: what if about.startswith(event) else None


def manager_of(*ports: int, **settings: object) -> SmtpConnectionManager:
    """A connection to the first of these ports, with the others as fallback hosts."""
    defaults: dict[str, object] = {"host": "127.0.0.1", "port": ports[0], "ssl_mode": "none", "timeout": 60.0}
    defaults["fallback_hosts"] = ";".join(f"127.0.0.1:{port}" for port in ports[1:])
    return SmtpConnectionManager(**{**defaults, **settings})  # type: ignore[arg-type]


def sent(manager: SmtpConnectionManager, number: int = 1) -> Delivery:
    """Send a letter through a session of its own."""
    with Session(manager) as session:
        return session.send(letter(number))


def send_batch(manager: SmtpConnectionManager, mails: Iterator[Mail], connections: int) -> list[Delivery]:
    """Send mails as a hook does."""
    servers = Failover(manager)
    sender = BatchSender(
        mails, manager, lambda: Session(manager, failover=servers), connections=connections, failover=servers
    )
    return list(sender.deliveries())


def end_the_minute(manager: SmtpConnectionManager) -> None:
    """Let the next session try the first server again."""
    outage = Failover(manager).servers[0].outage
    assert outage is not None
    outage.until = 0.0


def peers(deliveries: list[Delivery]) -> set[str | None]:
    """The servers of these deliveries."""
    return {delivery.server for delivery in deliveries}


# --- What is a reason for another server, and what is not.


@pytest.mark.parametrize(
    "decide",
    [
        pytest.param(saying("CONNECT", "421 4.3.2 closing"), id="421 in the greeting"),
        pytest.param(saying("CONNECT", "554 5.3.2 no service here"), id="554 in the greeting"),
        pytest.param(saying("CONNECT", "* OK IMAP4 ready"), id="no SMTP in the greeting"),
        pytest.param(saying("EHLO", "421 4.3.2 closing"), id="421 to EHLO"),
        pytest.param(saying("EHLO", "what?"), id="no SMTP at EHLO"),
        pytest.param(saying("EHLO", HANG_UP), id="hang-up at EHLO"),
    ],
)
def test_a_server_that_takes_no_session_is_passed_over(decide: Decide) -> None:
    """It is there, and not for mail."""
    with Server(decide) as primary, Server() as second:
        delivery = sent(manager_of(primary.port, second.port))
    assert (delivery.outcome, delivery.server) == ("accepted", f"127.0.0.1:{second.port}")
    assert primary.stored == []


def test_a_server_that_is_not_there_is_passed_over() -> None:
    """Neither its port nor its name."""
    with closed_port() as closed, Server() as server:
        assert sent(manager_of(closed, server.port)).server == f"127.0.0.1:{server.port}"
        unknown = manager_of(25, server.port, host="relay.invalid")
        assert sent(unknown, 2).server == f"127.0.0.1:{server.port}"
    assert len(server.stored) == 2


def test_a_server_that_does_not_answer_is_passed_over() -> None:
    """Neither to the connection nor with a greeting."""
    with blackhole() as dead, SilentListener() as silent, Server() as server:
        started_at = time.monotonic()
        assert sent(manager_of(dead, silent.port, server.port, timeout=1.0)).server == f"127.0.0.1:{server.port}"
        assert time.monotonic() - started_at >= 2


@pytest.mark.parametrize(
    ("decide", "settings", "error"),
    [
        pytest.param(saying("EHLO", "553 5.1.8 who?"), {}, ConnectError, id="EHLO refused"),
        pytest.param(None, {"ssl_mode": "starttls"}, TlsError, id="no STARTTLS"),
        pytest.param(None, {"auth_mode": "windows"}, AuthenticationError, id="no Windows Authentication"),
    ],
)
def test_a_server_that_answers_and_cannot_be_used_is_an_error(
    decide: Decide | None, settings: dict[str, object], error: type[MailError]
) -> None:
    """Another server would hide it."""
    with Server(decide) as primary, Server() as second, pytest.raises(error):
        Session(manager_of(primary.port, second.port, **settings)).open()
    assert second.heard == []


@pytest.mark.parametrize("ssl_mode", ["starttls", "implicit"])
def test_a_certificate_that_is_not_trusted_is_an_error(ssl_mode: str) -> None:
    """Whenever TLS begins."""
    with (
        Relay(ssl_mode=ssl_mode) as primary,
        Server() as second,
        pytest.raises(TlsError, match="not trusted"),
    ):
        Session(manager_of(primary.port, second.port, ssl_mode=ssl_mode)).open()
    assert second.heard == []


def test_a_refused_sign_in_is_an_error() -> None:
    """A second server would count the wrong password again."""
    with Relay(users=ALICE) as primary, Server() as second, pytest.raises(AuthenticationError, match="535"):
        Session(with_wrong_password(primary, second.port)).open()
    assert second.heard == []


def test_a_mail_whose_message_was_begun_is_not_given_to_another_server() -> None:
    """The server dies while it gets the message, or after it: the next server gets nothing."""
    for when in ("DATA", MESSAGE):
        with Server(saying(when, HANG_UP)) as primary, Server() as second:
            manager = manager_of(primary.port, second.port)
            (delivery,) = send_batch(manager, iter([letter(1)]), 1)
            assert delivery.outcome == ("unknown" if when == MESSAGE else "not_sent")
        assert second.heard == []
        assert isinstance(delivery.error, OutcomeUnknownError) is (when == MESSAGE)


# --- What is said.


def test_if_no_server_can_be_reached_the_error_names_each_and_its_cause() -> None:
    """And is worth another try."""
    with closed_port() as closed, Server(saying("CONNECT", "421 4.3.2 closing")) as closing:
        manager = manager_of(closed, closing.port, 25, fallback_hosts=f"127.0.0.1:{closing.port};relay.invalid")
        with pytest.raises(ConnectError) as caught:
            Session(manager).open()
    text = str(caught.value)
    assert text.startswith(f"None of the servers can be reached. Cannot connect to 127.0.0.1:{closed} (127.0.0.1: ")
    assert f"127.0.0.1:{closing.port} greeted with '421 4.3.2 closing'." in text
    assert "The name 'relay.invalid' cannot be resolved" in text
    assert "'Fallback hosts'" in text
    assert caught.value.retryable


def test_if_no_server_can_be_reached_the_error_has_what_helps_at_each(authority: trustme.CA) -> None:
    """Such as the client certificate, without which a server may hang up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def hang_up(_: str) -> None:
        raise ConnectionAbortedError

    with (
        closed_port() as closed,
        Server(hang_up, tls=context) as second,
        Server(hang_up, tls=context) as third,
    ):
        trusted = authority.cert_pem.bytes().decode()
        manager = manager_of(closed, second.port, third.port, ssl_mode="implicit", ca_certificate=trusted)
        with pytest.raises(ConnectError, match="None of the servers") as caught:
            Session(manager).open()
    assert caught.value.remedy.startswith("Check 'SMTP server', 'Port' and 'Fallback hosts'")
    assert caught.value.remedy.count("It may demand a client certificate: give one as 'Client certificate'.") == 1


def test_a_certificate_that_cannot_be_loaded_says_nothing_of_a_server(tmp_path: Path) -> None:
    """It was not spoken to, so it is still down."""
    manager = manager_of(25, 26, ssl_mode="implicit", client_certificate=str(tmp_path / "missing.pem"))
    servers = Failover(manager)
    outage = failover.Outage("It is down.", is_slow=False, until=0.0)
    servers.servers[0].mark_down(outage)
    with pytest.raises(TlsError, match="No such file"):
        Session(manager, failover=servers).open()
    assert servers.servers[0].outage is outage


def test_the_error_of_a_fallback_host_says_why_it_was_tried() -> None:
    """And is worth another try, since the server before it may be up then."""
    with closed_port() as closed, Server() as server:
        with pytest.raises(TlsError, match=f"127.0.0.1:{server.port} is a fallback host. Cannot connect to") as caught:
            Session(manager_of(closed, server.port, ssl_mode="starttls")).open()
        assert caught.value.retryable
        assert Failover(manager_of(closed, server.port))._list_in_order()[0].rank == 0


def test_falling_back_and_coming_back_is_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    """However many sessions are opened in between."""
    caplog.set_level(logging.INFO, failover.__name__)
    with contextlib.ExitStack() as stack:
        closed = stack.enter_context(contextlib.closing(socket.socket()))
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        server = stack.enter_context(Server())
        manager = manager_of(port, server.port)
        for number in range(3):
            sent(manager, number)
        closed.close()
        primary = stack.enter_context(Server(port=port))
        sent(manager, 3)
        assert primary.heard == []
        end_the_minute(manager)
        for number in (4, 5):
            assert sent(manager, number).server == f"127.0.0.1:{port}"
    back, again = [record.getMessage() for record in caplog.records]
    assert back.endswith(f"Falling back to 127.0.0.1:{server.port}; 127.0.0.1:{port} is tried again in 60 seconds.")
    assert again == f"127.0.0.1:{port} can be reached again."


# --- How long it is waited for.


def test_a_server_that_is_down_is_waited_for_once() -> None:
    """Later sessions go to the fallback host at once, and only one tries it again after a minute."""
    with SilentListener() as silent, Server() as server:
        manager = manager_of(silent.port, server.port, timeout=1.0)
        sent(manager, 1)
        for number in range(2, 6):
            sent(manager, number)
        assert silent.count_connections() == 1
        end_the_minute(manager)
        first, second = Failover(manager), Failover(manager)
        assert [one.rank for one in first._list_in_order()] == [0, 1]
        assert [one.rank for one in second._list_in_order()] == [1, 0]


def test_the_servers_share_the_time_that_is_left() -> None:
    """Otherwise the first would take all of it, as in a test of the connection."""
    with SilentListener() as silent, Server() as server:
        manager = manager_of(silent.port, server.port)
        with Session(manager, give_up_at=time.monotonic() + 4) as session:
            assert session.send(letter(1)).server == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("protocol", ["negotiate", "ntlm"])
def test_the_servers_share_the_time_of_an_alert(protocol: str) -> None:
    """Whether its session is opened in a thread, since Kerberos may be asked, or not."""
    with Relay(users=ALICE) as relay, SilentListener() as silent:
        connection = relay.airflow_connection(
            windows_protocol=protocol, fallback_hosts=f"localhost:{relay.port}", timeout=60
        )
        manager = SmtpConnectionManager.from_airflow(SimpleNamespace(**{**connection, "port": silent.port}))
        servers = Failover(manager)
        sender = BatchSender(
            [letter(1)],
            manager,
            lambda: Session(manager, failover=servers),
            cancellation=CancellationToken(at=time.monotonic() + 6, reason="the time ran out"),
            failover=servers,
        )
        assert peers(list(sender.deliveries())) == {f"localhost:{relay.port}"}


def test_a_server_whose_trial_was_interrupted_is_tried_by_the_next_session() -> None:
    """It is unknown whether it is up again."""
    manager = manager_of(25, 26)
    servers = Failover(manager)
    servers.servers[0].mark_down(failover.Outage("It is down.", is_slow=False, until=0.0))

    def interrupt(server: failover.Server, _: float | None) -> None:
        assert server.rank == 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        servers.connect(interrupt, None)
    assert Failover(manager)._list_in_order()[0].rank == 0


def test_if_all_are_down_those_that_fail_at_once_are_tried_first() -> None:
    """None is left out."""
    with SilentListener() as silent, closed_port() as closed:
        manager = manager_of(silent.port, closed, timeout=1.0)
        for _ in range(2):
            with pytest.raises(ConnectError, match="None of the servers"):
                Session(manager).open()
        assert [one.rank for one in Failover(manager)._list_in_order()] == [1, 0]
        assert silent.count_connections() == 2


def test_a_merge_waits_for_a_dead_server_once() -> None:
    """Two hundred rows over four connections."""
    with blackhole() as dead, Server() as server:
        manager = manager_of(dead, server.port, timeout=2.0)
        started_at = time.monotonic()
        deliveries = send_batch(manager, iter([letter(number) for number in range(200)]), 4)
        elapsed = time.monotonic() - started_at
    assert outcomes(deliveries) == ["accepted"] * 200
    assert peers(deliveries) == {f"127.0.0.1:{server.port}"}
    assert 2 <= elapsed < 4


# --- A batch over two servers.


def test_a_batch_returns_to_the_server_that_is_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sessions move, whether there is one or there are four, and every mail has one copy."""
    monkeypatch.setattr(failover, "DOWN_SECONDS", 0.2)
    for connections in (1, 4):
        with contextlib.ExitStack() as stack:
            closed = stack.enter_context(contextlib.closing(socket.socket()))
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
            second = stack.enter_context(Server())
            started: list[Server] = []

            def mails(stack: contextlib.ExitStack = stack, started: list[Server] = started) -> Iterator[Mail]:
                number = 0
                while not (started and len(started[0].stored) > 20):
                    if number == 40:
                        closed.close()  # noqa: B023
                        started.append(stack.enter_context(Server(port=port)))  # noqa: B023
                    yield letter(number)
                    number += 1
                    time.sleep(0.001)

            deliveries = send_batch(manager_of(port, second.port), mails(), connections)
            primary = started[0]
            assert set(outcomes(deliveries)) == {"accepted"}
            for delivery in deliveries:
                there = primary if delivery.server == f"127.0.0.1:{port}" else second
                other = second if there is primary else primary
                assert len(there.copies(delivery.message_id)) == 2
                assert other.copies(delivery.message_id) == []
            assert deliveries[-1].server == f"127.0.0.1:{port}"
            wait_until(lambda: second.commands.count("QUIT") == len(second.heard))  # noqa: B023


@pytest.mark.parametrize("per_connection", [None, 1], ids=["tried beside the fallback host", "tried for a new session"])
def test_a_server_that_is_back_and_closes_each_session_is_not_tried_again_at_once(per_connection: int | None) -> None:
    """The batch goes on with the fallback host, and tries the other one again after a minute."""
    closed: list[str] = []

    class ClosedSession(Session):
        def check_open(self) -> None:
            if self.server is not None and self.server.rank == 0:
                closed.append("421 4.3.2 going down")
                assert len(closed) < 5
                close_from_afar(started[0], self, f"{closed[-1]}\r\n".encode())
            super().check_open()

    started: list[Server] = []
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(socket.socket())
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        second = stack.enter_context(Server(per_connection=per_connection))
        manager = manager_of(port, second.port)

        def mails() -> Iterator[Mail | float]:
            yield letter(0)
            while not second.stored:
                yield math.inf
            taken.close()
            started.append(stack.enter_context(Server(port=port)))
            end_the_minute(manager)
            yield letter(1)
            while not closed:
                yield math.inf
            yield from map(letter, range(2, 9))

        servers, numbers = Failover(manager), itertools.count()
        sender = BatchSender(
            (one if isinstance(one, float) else SendRequest(next(numbers), one) for one in mails()),
            manager,
            lambda: ClosedSession(manager, failover=servers),
            retry_connect_for=60.0,
            failover=servers,
        )
        found = list(sender.deliveries())
    assert outcomes(found) == ["accepted"] * 9
    assert peers(found) == {f"127.0.0.1:{second.port}"}


def test_a_batch_goes_on_without_a_server_that_falls_silent() -> None:
    """Only what was in flight waits for it; mails without a final reply are unknown, and nowhere else."""
    with contextlib.ExitStack() as stack:

        def decide(about: str) -> str | None:
            if len(primary.stored) >= 20:
                primary.over.wait()
            return None

        primary, second = stack.enter_context(Server(decide)), stack.enter_context(Server())
        manager = manager_of(primary.port, second.port, timeout=2.0, final_reply_timeout=2.0)
        servers = Failover(manager)
        retries = RetryQueue(requests(letter(number) for number in range(100)), 60.0)
        sender = BatchSender(
            retries.admit_requests(),
            manager,
            lambda: Session(manager, failover=servers),
            connections=4,
            retry_connect_for=60.0,
            failover=servers,
        )
        deliveries = list(retries.deliveries(sender))
        peer = f"127.0.0.1:{primary.port}"
        assert set(outcomes(deliveries)) <= {"accepted", "unknown"}
        in_doubt = [delivery for delivery in deliveries if delivery.outcome == "unknown"]
        assert len(in_doubt) <= 8
        assert {delivery.server for delivery in in_doubt} <= {peer}
        for delivery in deliveries:
            if delivery.server == peer:
                assert second.copies(delivery.message_id) == []
            else:
                assert len(second.copies(delivery.message_id)) == 2
        assert len(second.stored) >= 60


def test_a_batch_that_waits_for_its_last_reply_tries_no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no mail for it, and it sleeps."""
    monkeypatch.setattr(failover, "DOWN_SECONDS", 0.01)

    def decide(about: str) -> str | None:
        if about == MESSAGE:
            time.sleep(0.5)
        return None

    with SilentListener() as silent, Server(decide) as server:
        manager = manager_of(silent.port, server.port, timeout=1.0)
        started_at = time.thread_time()
        (delivery,) = send_batch(manager, iter([letter(1)]), 1)
        assert time.thread_time() - started_at < 0.3
        assert delivery.outcome == "accepted"
        assert silent.count_connections() == 1


def test_a_server_that_limits_connections_is_not_down() -> None:
    """The batch goes on with those that it has, as without fallback hosts."""
    greeted = itertools.count(1)

    def decide(about: str) -> str | None:
        return "421 4.3.2 too many connections" if about == "CONNECT" and next(greeted) > 2 else None

    with Server(decide) as primary, Server() as second:
        manager = manager_of(primary.port, second.port)
        deliveries = send_batch(manager, iter([letter(number) for number in range(100)]), 4)
    assert outcomes(deliveries) == ["accepted"] * 100
    # The first mails may have gone through the fallback host, before it was known that others reach the server.
    assert len(primary.stored) >= 90


def test_a_server_that_limits_connections_from_a_tarpit_is_not_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """It turns further connections away late, while mail goes through those that the batch has."""
    monkeypatch.setattr(failover, "_SLOW_SECONDS", 0.0)  # whatever fails has taken long
    greeted, refused = itertools.count(1), threading.Event()

    def decide(about: str) -> str | None:
        if about != "CONNECT" or next(greeted) == 1:
            return None
        wait_until(lambda: primary.stored)
        refused.set()
        return "421 4.3.2 The maximum number of concurrent server connections has exceeded a per-source limit"

    def mails() -> Iterator[Mail]:
        yield from (letter(number) for number in range(20))
        refused.wait()
        yield from (letter(number) for number in range(20, 100))

    with Server(decide) as primary, Server() as second:
        deliveries = send_batch(manager_of(primary.port, second.port), mails(), 4)
        assert outcomes(deliveries) == ["accepted"] * 100
        assert peers(deliveries) == {f"127.0.0.1:{primary.port}"}
        assert second.stored == []


# --- Which connections share what they know of a server.


@pytest.mark.parametrize(
    ("one", "other", "is_shared"),
    [
        pytest.param({}, {"auth_mode": "windows"}, True, id="authentication"),
        pytest.param({}, {"ssl_mode": "starttls"}, True, id="TLS after EHLO"),
        pytest.param(
            {"ssl_mode": "starttls"}, {"ssl_mode": "starttls", "verify_certificate": False}, True, id="its settings"
        ),
        pytest.param({}, {"ssl_mode": "implicit"}, False, id="TLS before the greeting"),
        pytest.param(
            {"ssl_mode": "implicit"}, {"ssl_mode": "implicit", "client_certificate": "/x.pem"}, False, id="certificate"
        ),
        pytest.param({}, {"timeout": 61.0}, False, id="time to wait"),
        pytest.param({}, {"local_hostname": "worker1.corp.example"}, False, id="name in EHLO"),
    ],
)
def test_connections_share_an_outage_if_they_reach_the_server_in_the_same_way(
    one: dict[str, object], other: dict[str, object], is_shared: bool
) -> None:
    """What differs after EHLO does not matter for that."""
    Failover(manager_of(25, 26, **one)).servers[0].mark_down(failover.Outage("Down.", is_slow=False, until=math.inf))
    ranks = [server.rank for server in Failover(manager_of(25, 26, **other))._list_in_order()]
    assert ranks == ([1, 0] if is_shared else [0, 1])


def test_a_connection_that_waits_for_a_greeting_before_tls_keeps_that_to_itself() -> None:
    """The server waits for the client's TLS, which another connection begins at once."""
    with Relay(ssl_mode="implicit") as relay, Server() as second:
        wrong = manager_of(relay.port, second.port, host="localhost", timeout=2.0)
        assert sent(wrong).server == f"127.0.0.1:{second.port}"
        connection = relay.airflow_connection(fallback_hosts=wrong.fallback_hosts, timeout=wrong.timeout)
        right = SmtpConnectionManager.from_airflow(SimpleNamespace(**connection))
        assert right.host == wrong.host
        assert sent(right, 2).server == f"localhost:{relay.port}"


def test_a_server_that_one_connection_cannot_use_is_up_for_the_others() -> None:
    """The first lacks nothing but the STARTTLS on which its own settings insist."""
    with Server() as primary, Server() as second:
        manager = manager_of(primary.port, second.port, ssl_mode="starttls")
        servers = Failover(manager)
        servers.servers[0].mark_down(failover.Outage("It is down.", is_slow=False, until=0.0))
        assert not Session(manager, failover=servers).open_to(servers.servers[0])
        assert [server.rank for server in servers._list_in_order()] == [1, 0]
        other = manager_of(primary.port, second.port)
        assert sent(other).server == f"127.0.0.1:{primary.port}"


def test_what_was_learned_of_one_server_does_not_bind_another() -> None:
    """Neither its rate, nor its limits."""
    with Server() as primary, Server() as second:
        manager = manager_of(primary.port, second.port)
        servers = Failover(manager)
        sender = BatchSender(iter(()), manager, None, connections=4, failover=servers)
        sender.rate.on_throttled()
        assert sender.rate.connections == 2
        servers.servers[0].profile.recipient_limit = 100
        with Session(manager, failover=servers) as session:
            session.server = servers.servers[1]
            assert sender._use_server_of(session) is None
            assert sender.rate.connections == 4
            assert sender.rate.is_due()
            session.server = servers.servers[0]
            assert sender._use_server_of(session) is None
            assert sender.rate.connections == 2
    assert servers.servers[1].profile.recipient_limit is None


# --- Names, certificates and accounts.


def test_each_server_has_its_own_names() -> None:
    """A spelled-out SPN names one host."""
    manager = SmtpConnectionManager(
        host="relay1.corp.example.",
        auth_mode="windows",  # type: ignore[arg-type]
        spn="smtp/cluster.corp.example",
        fallback_hosts="relay2.corp.example; [2001:db8::25]:2525",
    )
    first, second, third = manager.list_servers()
    assert list_service_names(first) == ["smtp/cluster.corp.example"]
    assert list_service_names(second) == ["smtp/relay2.corp.example", "SMTPSVC/relay2.corp.example"]
    assert (third.host, third.port) == ("2001:db8::25", 2525)
    assert [one.server_name for one in (first, second)] == ["relay1.corp.example", "relay2.corp.example"]


@pytest.mark.parametrize("name", ["localhost", "relay.corp.example"])
def test_each_server_must_have_a_certificate_for_its_own_name(name: str, authority: trustme.CA) -> None:
    """The name of the first is not enough."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    with closed_port() as closed, Server(tls=context) as server:
        manager = SmtpConnectionManager(
            host="127.0.0.1",
            port=closed,
            ssl_mode="implicit",  # type: ignore[arg-type]
            ca_certificate=authority.cert_pem.bytes().decode(),
            fallback_hosts=f"localhost:{server.port}",
        )
        if name == "localhost":
            assert sent(manager).server == f"localhost:{server.port}"
        else:
            with pytest.raises(TlsError, match="not trusted"):
                Session(manager).open()


def with_wrong_password(relay: Relay, *fallback_ports: int) -> SmtpConnectionManager:
    """A connection to a relay that will refuse the account, and to fallback hosts."""
    connection = relay.airflow_connection()
    extra = {**connection["extra"], "verify_certificate": False}
    extra["fallback_hosts"] = ";".join(f"127.0.0.1:{port}" for port in fallback_ports)
    return SmtpConnectionManager.from_airflow(SimpleNamespace(**{**connection, "password": "wrong", "extra": extra}))


def test_an_account_that_one_server_refused_is_not_tried_at_another() -> None:
    """A few wrong passwords lock it."""
    with Relay(users=ALICE) as primary, Relay(users=ALICE) as second:
        manager = with_wrong_password(primary, second.port)
        servers = Failover(manager)
        with pytest.raises(AuthenticationError, match=f":{primary.port} refused"):
            Session(manager, failover=servers).open()
        port = primary.port
        servers.servers[0].mark_down(failover.Outage("It is down.", is_slow=False, until=math.inf))
        with pytest.raises(AuthenticationError, match=f":{port} refused"):
            Session(manager, failover=servers).open()
