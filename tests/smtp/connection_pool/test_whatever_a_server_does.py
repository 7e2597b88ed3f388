"""Many mails: one delivery for each, and no recipient twice, whatever the server does."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.smtp import Outcome, throttling
from tests.smtp.connection_pool.batches import letter, outcomes, send
from tests.smtp.server import HANG_UP, MESSAGE, STORE_AND_HANG_UP, Habit, Limit, Server


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("pipelining", [True, False])
def test_every_mail_has_its_delivery_and_every_recipient_the_mail(connections: int, pipelining: bool) -> None:
    """Over no more sessions than allowed, and each that sent a mail sends QUIT."""
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
    """Exactly the stored recipients are accepted; if that cannot be known, the outcome is unknown."""
    left = iter(answers)

    def decide(about: str) -> str | None:
        if about.startswith(("EHLO", "RSET", "QUIT", "CONNECT")):
            return None
        answer = next(left, None)
        if about == "DATA" and answer == "354 what?":
            return "354 although nobody was accepted"
        # No client could recognize a wrong 250 to the end of a message.
        if about.startswith("BDAT") and answer == "250 hm":
            return None
        if about == MESSAGE and answer is not None:
            return STORE_AND_HANG_UP if answer.startswith(("354", "250")) else answer
        return answer

    batch = [
        letter(number, *(f"r{number}x{at}@corp.example" for at in range(count)), size=sizes[number])
        for number, count in enumerate(recipients)
    ]
    with (
        pytest.MonkeyPatch.context() as patch,
        Server(decide, offers=offers, habit=habit, per_connection=per_connection, limit=limit) as server,
    ):
        # Four times 421 are more than five seconds of pauses otherwise.
        patch.setattr(throttling, "FIRST_PAUSE", 0.01)
        patch.setattr(throttling, "LONGEST_PAUSE", 0.02)
        manager = server.manager(binary_mime=True, timeout=3600)  # no test waits for a deadline
        found = list(send(manager, iter(batch), connections=connections))
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
