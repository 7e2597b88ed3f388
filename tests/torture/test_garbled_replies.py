"""Any octets instead of any reply: a typed error or one of the five outcomes, in bounded time and memory.

Before the final dot nothing was delivered, after it the outcome is unknown; the error says so in either case.
"""

from __future__ import annotations

import itertools
import random
import re
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.errors import (
    MailError,
    OutcomeUnknownError,
    Phase,
    ProtocolError,
)
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp import Delivery, Outcome
from airflow_provider_smtpcm.smtp.session import Session
from tests.torture.garbling_server import Ending, Garbage, GarblingServer, Pace, Step, tls_of_client
from tests.torture.tally import SEED, TALLY

# A socket that was reset before TLS begins on it is left by Python's `wrap_socket` to the garbage collector.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

TOPIC = "garbled replies"
MIB = 1 << 20
TIMEOUT = 1.0
# The client's time limits, one after the other, until none strikes before the garbage has come.
TIMEOUTS = (TIMEOUT, 4.0, 16.0, 60.0)

BEFORE_THE_SESSION = (Step.GREETING, Step.EHLO, Step.STARTTLS, Step.BEFORE_TLS, Step.HANDSHAKE, Step.EHLO_IN_TLS)
WITHIN_TLS = (Step.BEFORE_TLS, Step.HANDSHAKE)
PHASES = {
    Step.GREETING: {Phase.CONNECT},
    Step.EHLO: {Phase.CONNECT},
    Step.STARTTLS: {Phase.TLS},
    Step.BEFORE_TLS: {Phase.TLS},
    Step.HANDSHAKE: {Phase.TLS},
    Step.EHLO_IN_TLS: {Phase.TLS},
    Step.MAIL: {Phase.ENVELOPE},
    Step.RCPT: {Phase.ENVELOPE},
    Step.DATA: {Phase.ENVELOPE},
    Step.MESSAGE: {Phase.DATA, Phase.FINAL_DOT},
    Step.FINAL_DOT: {Phase.FINAL_DOT},
}
# What was due at each step, by the server's account.
DUE = {
    Step.GREETING: b"220 mail\r\n",
    Step.EHLO: b"250-mail\r\n250 8BITMIME\r\n",
    Step.EHLO_IN_TLS: b"250-mail\r\n250 8BITMIME\r\n",
    Step.STARTTLS: b"220 go\r\n",
    Step.DATA: b"354 go on\r\n",
    Step.QUIT: b"221 bye\r\n",
}
# Controls, line breaks, and what has a text read in another order: a server could write its own lines into a log.
UNREADABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
GARBAGE = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "empty lines": b"\n" * 1000,
    "NULs": b"\0" * 100,
    "NULs and a line end": b"\0" * 100 + b"\r\n",
    "a NUL in front": b"\x00250 ok\r\n",
    "a NUL behind the code": b"250\0ok\r\n",
    "half a code": b"25",
    "a code without end": b"250",
    "a code and half a line end": b"250 ok\r",
    "the first line of more": b"250-and so on\r\n",
    "code 000": b"000 ok\r\n",
    "code 100": b"100 go on\r\n",
    "code 199": b"199 ok\r\n",
    "code 600": b"600 ok\r\n",
    "code 999": b"999 ok\r\n",
    "a code of four digits": b"2500 ok\r\n",
    "a negative code": b"-250 ok\r\n",
    "a blank in front": b" 250 ok\r\n",
    "a code in Arabic digits": "٢٥٠ ok\r\n".encode(),
    "a code in wide digits": "２５０ ok\r\n".encode(),
    "no blank": b"250_ok\r\n",
    "a tab": b"250\tok\r\n",
    "codes that differ": b"250-yes\r\n550 no\r\n",
    "two lines that are none": b"yes\r\n250 ok\r\n",
    "a bare CR between two replies": b"\r250 ok\r250 ok\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "POP3": b"+OK ready\r\n",
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "a TLS record without end": b"\x16\x03\x03\x40\x00" + b"\0" * 100,
    "UTF-16": "250 ok\r\n".encode("utf-16"),
    "EBCDIC": "250 ok\r\n".encode("cp500"),
    "escapes": b"\x1b[2J\x1b]0;evil\x07\r\n",
    "another direction": "250\u202e\u2066 ko\r\n".encode(),
    "a MiB of digits": b"2" * MIB,
    "a MiB of NULs": b"\0" * MIB,
    "a MiB of line ends": b"\r\n" * (MIB // 2),
    "a MiB in one line": b"250 " + b"x" * MIB + b"\r\n",
    "a MiB in many lines": b"250-x\r\n" * (MIB // 7),
    "a MiB of noise": random.Random(SEED).randbytes(MIB),  # noqa: S311 - no secret
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What an attempt to send one mail came to."""

    result: Delivery | MailError
    received: int
    said: int

    @property
    def outcome(self) -> Outcome | None:
        """None where no session was opened."""
        return self.result.outcome if isinstance(self.result, Delivery) else None

    @property
    def error(self) -> MailError | None:
        """Why it was not accepted."""
        return self.result.error if isinstance(self.result, Delivery) else self.result


def attempt(garbage: Garbage, **how: Any) -> Seen:
    """Send one mail to a server that garbles; whatever is raised that is no MailError fails the test.

    On a busy machine a short time limit can strike before the garbage has come, which says nothing about it: then it is
    tried again with a longer one.
    """
    for timeout in TIMEOUTS:
        seen, in_time = _attempt(garbage, timeout, **how)
        if in_time:
            break
    TALLY.add(TOPIC, {"inputs tried": 1})
    return seen


def _attempt(garbage: Garbage, timeout: float, **how: Any) -> tuple[Seen, bool]:
    """Try it once; also whether no time limit can have struck before the client had half of it for the garbage."""
    mail = Mail(from_address="etl@corp.example", to="a@corp.example; b@corp.example", text="All is well.\n")
    with GarblingServer(garbage, **how) as server:
        session = Session(server.manager(timeout=timeout, final_reply_timeout=timeout), context=tls_of_client())
        began_at = time.monotonic()
        result: Delivery | MailError
        try:
            with session:
                result = session.send(mail)
        except MailError as error:
            result = error
        ended_at = time.monotonic()
        assert not session.is_open
    seen = Seen(result=result, received=len(server.received), said=server.said)
    had_time = server.garbled_at is not None and ended_at - server.garbled_at > timeout / 2
    return seen, seen.error is None or ended_at - began_at < timeout or had_time


def first_reply(octets: bytes) -> int | None:
    """The code of the reply that these octets begin with, if it is one (RFC 5321 4.2), and whole."""
    code = None
    for line in octets.split(b"\n")[:-1]:
        found = re.fullmatch(rb"([2-5][0-9]{2})([ -].*)?", line.removesuffix(b"\r"), re.DOTALL)
        if found is None or code not in (None, found[1]):
            return None
        code = found[1]
        if not (found[2] or b"").startswith(b"-"):
            return int(code)
    return None


def garbled(garbage: Garbage) -> bool:
    """Whether what is sent is not a reply, even with what may follow it."""
    if garbage.step in WITHIN_TLS:
        return bool(garbage.octets) or garbage.ending is not Ending.GO_ON
    due = DUE.get(garbage.step, b"250 ok\r\n") if garbage.ending is Ending.GO_ON else b""
    return first_reply(garbage.octets + due) is None


def check(garbage: Garbage, seen: Seen) -> None:
    """What holds for any octets, and what holds beyond that for those that are no reply."""
    told = f"{garbage!r:.300}: {seen!r:.600}"
    if garbage.pace is Pace.DRIPS:
        assert seen.said < len(garbage.octets), told
    if seen.error is not None:
        assert not UNREADABLE.search(str(seen.error)), told
        assert str(seen.error).rstrip()[-1] in ".?", told
    if seen.outcome is Outcome.NOT_SENT or seen.outcome is None:
        assert seen.received == 0, told
    if not garbled(garbage):
        return
    if garbage.step is Step.QUIT:
        assert seen.outcome is Outcome.ACCEPTED, told
        return
    assert seen.error is not None, told
    assert seen.error.phase in PHASES[garbage.step], told
    if garbage.step in BEFORE_THE_SESSION:
        assert seen.outcome is None, told
    elif garbage.step is Step.FINAL_DOT:
        assert seen.outcome is Outcome.UNKNOWN, told
    elif garbage.step is Step.MESSAGE:
        # It may come when the last octet is on its way already.
        assert seen.outcome in (Outcome.NOT_SENT, Outcome.UNKNOWN), told
    else:
        assert seen.outcome is Outcome.NOT_SENT, told
    if seen.outcome is Outcome.UNKNOWN:
        assert isinstance(seen.error, OutcomeUnknownError), told
        assert not seen.error.retryable, told


@pytest.fixture(autouse=True)
def _quick_good_bye(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a time limit of its own, which is longer than these tests want to wait."""
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.session.QUIT_TIMEOUT", TIMEOUT)


@pytest.mark.parametrize("step", Step, ids=lambda step: step.name)
def test_what_is_no_reply_is_never_taken_for_one(step: Step) -> None:
    """Whatever it is, and whatever follows it: no mail is called sent, or not sent, that may be the contrary."""
    cases = [
        Garbage(step=step, octets=octets, ending=ending)
        for octets, ending in itertools.product(GARBAGE.values(), Ending)
        if octets or ending is not Ending.GO_ON
    ]
    with ThreadPoolExecutor(24) as pool:
        for garbage, seen in zip(cases, pool.map(attempt, cases), strict=True):
            check(garbage, seen)


@pytest.mark.parametrize("offers", [("PIPELINING",), ("8BITMIME",)], ids=str)
@pytest.mark.parametrize("step", Step, ids=lambda step: step.name)
def test_garbage_that_comes_octet_by_octet_is_garbage_too(step: Step, offers: tuple[str, ...]) -> None:
    """Where a reply is split does not matter."""
    cases = [
        Garbage(step=step, octets=octets, ending=ending, pace=Pace.OCTETS)
        for octets, ending in itertools.product(GARBAGE.values(), (Ending.GO_ON, Ending.HALF_CLOSE))
        if 0 < len(octets) < 300
    ]
    with ThreadPoolExecutor(24) as pool:
        for garbage, seen in zip(cases, pool.map(lambda case: attempt(case, offers=offers), cases), strict=True):
            check(garbage, seen)


@pytest.mark.parametrize(
    "slipped_in", [b"250 ok\r\n", b"250-x\r\n250 AUTH NTLM\r\n", b"220 go\r\n", b"2", b"\r\n", b"\0"]
)
def test_what_is_slipped_in_before_tls_is_not_heard_within_it(slipped_in: bytes) -> None:
    """A reply just as well (RFC 3207 6), although the handshake would go on undisturbed."""
    seen = attempt(Garbage(step=Step.BEFORE_TLS, octets=slipped_in, ending=Ending.GO_ON))
    assert isinstance(seen.error, ProtocolError)
    assert seen.error.phase is Phase.TLS
    assert "in clear text" in str(seen.error)
    assert seen.received == 0


def test_what_drips_in_is_left_at_the_deadline() -> None:
    """At every step; the deadline does not start again with each octet, not even in a handshake."""
    drops = (b"250-" + b"x" * 300, b"\x16\x03\x03\x40\x00\x02" + b"\0" * 300)
    cases = [Garbage(step=step, octets=octets, pace=Pace.DRIPS) for step, octets in itertools.product(Step, drops)]
    with ThreadPoolExecutor(len(cases)) as pool:
        for garbage, seen in zip(cases, pool.map(attempt, cases), strict=True):
            check(garbage, seen)


@pytest.mark.parametrize("words", ["\x1b[2J", "\x07", "\x85", "\u2028", "\u202e", "\u2066", "\x00", "x\rx"], ids=ascii)
@pytest.mark.parametrize("step", [Step.GREETING, Step.EHLO, Step.STARTTLS, Step.MAIL, Step.DATA, Step.FINAL_DOT])
def test_a_refusal_in_odd_characters_is_read_and_shown_without_them(step: Step, words: str) -> None:
    """It is a reply, and its code counts."""
    seen = attempt(Garbage(step=step, octets=f"554 5.7.1 n{words}o\r\n".encode(), ending=Ending.HALF_CLOSE))
    assert seen.outcome is (None if step in BEFORE_THE_SESSION else Outcome.REFUSED)
    assert seen.error is not None and seen.error.reply is not None
    assert seen.error.reply.code == 554
    assert not UNREADABLE.search(str(seen.error))


@pytest.mark.parametrize(
    "octets", [b"250-and so on\r\n", b"250 ok\r\n", b"2", b"\0", b"\r\n", b"250-\r\n", b"x y z\r\n"]
)
@pytest.mark.parametrize("step", [step for step in Step if step is not Step.HANDSHAKE], ids=lambda step: step.name)
def test_a_reply_without_end_costs_little_memory_and_no_time(step: Step, octets: bytes) -> None:
    """The server would send forever; no more is read than the longest possible reply."""
    garbage = Garbage(step=step, octets=octets, pace=Pace.ENDLESS)
    attempt(Garbage(step=Step.QUIT, octets=b""))  # what is loaded and cached at first use is not counted
    tracemalloc.start()
    try:
        seen = attempt(garbage)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MIB
    assert seen.said < 16 * MIB  # more than is read, and more than all buffers on the way hold
    assert seen.error is None or len(str(seen.error)) < 1000
    if octets != b"250 ok\r\n":
        check(garbage, seen)


octets = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.sampled_from(
            [
                b"2",
                b"50",
                b"250",
                b"250 ",
                b"250-",
                b"550 5.1.1",
                b"354",
                b"421 ",
                b"\r",
                b"\n",
                b"\r\n",
                b"\0",
                b"\xff",
            ]
        ),
        max_size=12,
    ).map(b"".join),
    st.builds(lambda piece, times: piece * times, st.binary(min_size=1, max_size=8), st.integers(1, 20_000)),
)


@seed(SEED)
@settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    step=st.sampled_from(Step),
    octets=octets,
    ending=st.sampled_from([Ending.GO_ON, Ending.HANG_UP, Ending.HALF_CLOSE, Ending.RESET]),
    offers=st.sampled_from([("8BITMIME",), ("PIPELINING", "SIZE")]),
)
@example(step=Step.FINAL_DOT, octets=b"354 go on\r\n", ending=Ending.GO_ON, offers=("8BITMIME",))
@example(step=Step.EHLO, octets=b"250-", ending=Ending.GO_ON, offers=("8BITMIME",))
def test_any_octets_end_in_a_typed_error_or_an_outcome(
    step: Step, octets: bytes, ending: Ending, offers: tuple[str, ...]
) -> None:
    """And those that are a reply by chance may be taken for one."""
    garbage = Garbage(step=step, octets=octets, ending=ending)
    check(garbage, attempt(garbage, offers=offers))
