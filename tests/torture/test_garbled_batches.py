"""A batch in which any one reply is garbled: no mail is sent twice, none is missing, and every outcome is true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp import Delivery, Outcome
from tests.torture.garbling_server import Ending, Garbage, GarblingServer, Pace, Step
from tests.torture.hooks import hook_for
from tests.torture.tally import SEED, TALLY
from tests.torture.test_garbled_replies import GARBAGE, garbled, octets
from tests.waiting import PATIENCE

TOPIC = "batches with a garbled reply"
MAILS = 12
STEPS = [Step.GREETING, Step.EHLO, Step.MAIL, Step.RCPT, Step.DATA, Step.MESSAGE, Step.FINAL_DOT, Step.QUIT]


def send(garbage: Garbage, *, connections: int, offers: tuple[str, ...]) -> tuple[list[Delivery], GarblingServer]:
    """Send a batch to a server that garbles once."""
    mails = (
        Mail(
            from_address="etl@corp.example",
            to=[f"a{number}@corp.example", f"b{number}@corp.example"],
            message_id=f"<{number}@corp.example>",
        )
        for number in range(MAILS)
    )
    with GarblingServer(garbage, offers=offers) as server:
        hook = hook_for(server.port, timeout=PATIENCE, final_reply_timeout=PATIENCE)  # it is never silent
        deliveries = list(hook.send_many(mails, connections=connections))
    return deliveries, server


def check(deliveries: Sequence[Delivery], server: GarblingServer) -> None:
    """What holds whatever was garbled."""
    assert sorted(delivery.index for delivery in deliveries) == list(range(MAILS))
    received, accepted = Counter(server.received), Counter(server.accepted)
    said = {delivery.message_id: delivery for delivery in deliveries}
    doubled = [message_id for message_id, copies in received.items() if copies > 1]
    lost = [one for one, delivery in said.items() if delivery.outcome is Outcome.ACCEPTED and not accepted[one]]
    TALLY.add(TOPIC, {"schedules run": 1, "lost": len(lost), "doubled": len(doubled)})
    assert (lost, doubled) == ([], [])
    for message_id, delivery in said.items():
        assert delivery.outcome in (Outcome.ACCEPTED, Outcome.UNKNOWN, Outcome.NOT_SENT), delivery
        if received[message_id]:
            assert delivery.outcome in (Outcome.ACCEPTED, Outcome.UNKNOWN), delivery
        if delivery.outcome is Outcome.UNKNOWN:
            assert server.garbage.step in (Step.MESSAGE, Step.FINAL_DOT), delivery


@pytest.fixture(autouse=True)
def _quick_good_bye(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a time limit of its own, which is longer than these tests want to wait."""
    monkeypatch.setattr("airflow_provider_smtpcm.smtp.session.QUIT_TIMEOUT", 1.0)


@seed(SEED)
@settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    step=st.sampled_from(STEPS),
    only=st.integers(1, MAILS + 2),
    octets=st.one_of(st.sampled_from(list(GARBAGE.values())), octets),
    ending=st.sampled_from([Ending.GO_ON, Ending.HANG_UP, Ending.HALF_CLOSE, Ending.RESET]),
    endless=st.booleans(),
    connections=st.integers(1, 3),
    offers=st.sampled_from([("8BITMIME",), ("PIPELINING", "SIZE")]),
)
def test_one_garbled_reply_costs_no_other_mail_its_truth(
    step: Step, only: int, octets: bytes, ending: Ending, endless: bool, connections: int, offers: tuple[str, ...]
) -> None:
    """One delivery for each mail; only the one with the unreadable reply is unknown."""
    pace = Pace.ENDLESS if endless and octets and len(octets) < 1000 else Pace.WHOLE
    garbage = Garbage(step=step, octets=octets, ending=ending, pace=pace, only=only)
    assume(garbled(garbage) and (pace is Pace.WHOLE or b"\n" not in octets))
    deliveries, server = send(garbage, connections=connections, offers=offers)
    check(deliveries, server)


@pytest.mark.parametrize("offers", [("PIPELINING",), ("8BITMIME",)], ids=str)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_server_that_garbles_every_reply_gets_no_mail_twice(step: Step, offers: tuple[str, ...]) -> None:
    """Nor is it retried forever."""
    garbage = Garbage(step=step, octets=b"hello\r\n", ending=Ending.GO_ON)
    deliveries, server = send(garbage, connections=2, offers=offers)
    check(deliveries, server)
    assert {delivery.outcome for delivery in deliveries} <= {
        Step.FINAL_DOT: {Outcome.UNKNOWN},
        Step.MESSAGE: {Outcome.UNKNOWN, Outcome.NOT_SENT},
        Step.QUIT: {Outcome.ACCEPTED},
    }.get(step, {Outcome.NOT_SENT})
