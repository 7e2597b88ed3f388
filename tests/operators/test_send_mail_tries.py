"""One mail over several attempts of its task: each recipient gets it once, and what is in doubt is named."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset

from airflow_provider_smtpcm.ledger import record
from airflow_provider_smtpcm.ledger.journal import PriorDelivery
from airflow_provider_smtpcm.ledger.ledger import RESULT_RETENTION, SingleMailLedger
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.smtp import connection_pool, retry, throttling
from airflow_provider_smtpcm.smtp.outcome import Outcome
from airflow_provider_smtpcm.smtp.session import Session
from tests.ledger.stores import Memory
from tests.operators.tasks import context
from tests.smtp.server import HANG_UP, MESSAGE, STORE_AND_HANG_UP, Decide, Server
from tests.smtp.test_retried_batches import at_first

Behind = Callable[..., None]
A, B, C = "a@corp.example", "b@corp.example", "c@corp.example"


class Kept(Memory):
    """The task state store, as a task has it in its context."""

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """It is kept as long as Airflow is configured, or shorter."""
        assert retention in (None, RESULT_RETENTION)
        assert json.loads(json.dumps(value)) == value  # Airflow takes a list, and no tuple
        super().set(key, value, retention=retention)


def attempt(task: Any, store: Memory | None, **changes: Any) -> Any:
    """What an attempt of the task returns, or raises."""
    surroundings = context(**changes)
    return task.execute(surroundings if store is None else {**surroundings, "task_state_store": store})


def failure(task: Any, store: Memory | None, **changes: Any) -> AirflowException:
    """The error with which an attempt of the task fails."""
    with pytest.raises(AirflowException) as caught:
        attempt(task, store, **changes)
    return caught.value


def retried(error: AirflowException) -> bool:
    """Whether Airflow then retries the task."""
    return not isinstance(error, AirflowFailException)


def send(**fields: Any) -> SendMailOperator:
    """A task with the least that a mail needs."""
    return SendMailOperator(
        **{"task_id": "send", "from_address": "etl@corp.example", "to": [A, B], "retry_for": 0, **fields}
    )


def ids(server: Server) -> list[str]:
    """The Message-ID of everything that was stored."""
    return [stored.message_id for stored in server.stored]


def until(now: list[bool], answer: str, about: str) -> Decide:
    """Gives this reply until the list is emptied."""
    return lambda said: answer if now and said.startswith(about) else None


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_RETRY_DELAYS", (0.01,))
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(throttling, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(connection_pool, "_CANCEL_SECONDS", 30.0)  # what answers in the end is waited for


# --- Not known.


def test_what_may_have_been_delivered_is_not_sent_by_a_later_try(behind: Behind) -> None:
    """Until `on_unknown` is `retry`, as the remedy says."""
    store = Kept()
    with Server(at_first(1, STORE_AND_HANG_UP, MESSAGE)) as server:
        behind(server)
        assert not retried(failure(send(), store))
        error = failure(send(), store)  # cleared
        assert not retried(error)
        assert "It is not sent again, since it may have been delivered" in str(error)
        [first] = ids(server)
        assert f"Look for {first} in the server's log" in str(error)
        attempt(send(on_unknown="retry"), store)
        attempt(send(on_clear="send_again"), store)
        _, copy, new = ids(server)
        assert copy == first
        assert new != first  # or a server would drop it as a copy


def lose_the_answer_for_b(server: Server) -> None:
    """Accept the mail for A, refuse C for good, and store B's in a second transaction, without an answer."""
    turns = ["450 4.2.0 greylisted"]

    def decide(about: str) -> str | None:
        if about == f"RCPT TO:<{C}>":
            return "550 5.1.1 no such user"
        if about == f"RCPT TO:<{B}>" and turns:
            return turns.pop()
        return STORE_AND_HANG_UP if about == MESSAGE and server.stored else None

    server._decide = decide


DOUBT = (
    f"It is not sent again, since it may have been delivered to {B}. It was accepted for {A}. It was refused for {C}. "
)


@pytest.mark.parametrize("is_cleared", [False, True])
@pytest.mark.parametrize("is_killed", [False, True])
def test_who_has_a_mail_that_others_may_have_is_not_forgotten(
    is_killed: bool, is_cleared: bool, behind: Behind
) -> None:
    """Its Message-ID is in the server's log because of them: whoever looks for it alone loses the others' mail."""
    store = Kept()
    with Server() as server:
        lose_the_answer_for_b(server)
        behind(server)
        failure(send(to=[A, B, C], retry_for=10), store, try_number=1, max_tries=1)
        if is_killed:
            store.values = store.before_the_end
            head = json.loads(store.values["smtpcm"])
            assert (head["rows"]["states"], head["rows"]["rest"]["0"]["accepted"]) == ("o", [A])
        for number in (2, 3):
            error = failure(send(to=[A, B, C]), store, try_number=number, max_tries=2 if is_cleared else 1)
            assert not retried(error)
            assert DOUBT in str(error)
            assert f"in the server's log. If the server accepted it for {B}, mark the task as success" in str(error)
            assert ("ended without recording its result" in str(error)) == (is_killed and number == 2)
        assert [stored.recipients for stored in server.stored] == [(A,), (B,)]
        server._decide = None
        result = attempt(send(to=[A, B], on_unknown="retry"), store)
        assert (result["outcome"], result["accepted"]) == ("accepted", [A, B])
        assert [stored.recipients for stored in server.stored] == [(A,), (B,), (B,)]


def test_the_delivery_of_a_mail_in_doubt_has_who_was_accepted_and_refused(behind: Behind) -> None:
    """A program reads them there."""
    store = Kept()
    with Server() as server:
        lose_the_answer_for_b(server)
        behind(server)
        failure(send(to=[A, B, C], retry_for=10), store)
    ledger = SingleMailLedger(store)
    mail = Mail(from_address="etl@corp.example", to=[A, B, C])
    found = PriorDelivery(ledger).find_settled(mail, retry_unknown=False)
    assert found is not None
    assert (found.outcome, found.accepted, [*found.refused]) == (Outcome.UNKNOWN, (A,), [C])
    assert found.refused[C].code == 550


def test_a_mail_is_no_longer_in_doubt_once_those_are_taken_out_who_may_have_it(behind: Behind) -> None:
    """All who are left have it."""
    store = Kept()
    with Server() as server:
        lose_the_answer_for_b(server)
        behind(server)
        failure(send(to=[A, B], retry_for=10), store)
        result = attempt(send(to=A), store)
        assert (result["outcome"], result["accepted"]) == ("accepted", [A])
        assert [stored.recipients for stored in server.stored] == [(A,), (B,)]


def test_who_has_a_mail_is_not_forgotten_where_it_can_no_longer_be_made(behind: Behind) -> None:
    """The error of the attempt says nothing of it."""
    store = Kept()
    with Server() as server:
        lose_the_answer_for_b(server)
        behind(server)
        failure(send(to=[A, B, C], retry_for=10), store, try_number=1, max_tries=1)
        broken = send(to=[A, B, C], attachments="/nowhere/r.csv", on_unknown="retry")
        error = str(failure(broken, store, try_number=2, max_tries=1))
        assert f"got no reply. It was accepted for {A}. It was refused for {C}. This attempt: " in error


def test_it_is_sent_again_under_its_message_id_where_somebody_asked_for_that(behind: Behind) -> None:
    """Servers recognize the copy by it."""
    store = Kept()
    with Server(at_first(1, STORE_AND_HANG_UP, MESSAGE)) as server:
        behind(server)
        assert retried(failure(send(on_unknown="retry"), store))
        assert attempt(send(on_unknown="retry"), store)["outcome"] == "accepted"
        assert ids(server)[0] == ids(server)[1]


SAID_NO = [("550 5.1.1 no such user", "RCPT"), ("554 5.6.0 spam", MESSAGE), ("451 later", "MAIL"), (HANG_UP, "MAIL")]


@pytest.mark.parametrize("retry_for", [0, 0.3])
@pytest.mark.parametrize(("answer", "about"), SAID_NO)
def test_what_may_have_been_delivered_stays_so_whatever_the_next_tries_come_to(
    answer: str, about: str, retry_for: float, behind: Behind
) -> None:
    """A refusal of the copy does not undo the first mail; and all later attempts know that."""
    store, said = Kept(), [STORE_AND_HANG_UP]

    def decide(heard: str) -> str | None:
        if said:
            return said.pop() if heard == MESSAGE else None
        return answer if heard.startswith(about) else None

    with Server(decide) as server:
        behind(server)
        failure(send(on_unknown="retry"), store)
        for _ in range(2):
            error = failure(send(on_unknown="retry", retry_for=retry_for), store)
            assert retried(error)
            assert f"may have been delivered to {A}, {B} by an earlier attempt" in str(error)
            assert answer is HANG_UP or answer[:3] in str(error)
        error = failure(send(), store)
        assert not retried(error)
        assert "It is not sent again, since it may have been delivered" in str(error)
        assert len(server.stored) == 1


@pytest.mark.parametrize("on_refused", ["fail", "warn"])
def test_only_who_was_accepted_in_the_end_or_was_never_in_doubt_is_out_of_it(on_refused: str, behind: Behind) -> None:
    """One was refused before the doubt, one has the copy, and one was refused it, for good or for now."""
    store, said = Kept(), [STORE_AND_HANG_UP]
    refused = {f"RCPT TO:<{C}>": "550 5.1.1 no such user"}

    def decide(heard: str) -> str | None:
        return said.pop() if heard == MESSAGE and said else refused.get(heard)

    task = send(to=[A, B, C], on_unknown="retry", on_refused=on_refused)
    with Server(decide) as server:
        behind(server)
        failure(task, store)
        for answer in ("550 5.1.1 no", "451 later"):
            refused[f"RCPT TO:<{B}>"] = answer
            error = failure(task, store)
            assert retried(error)
            assert f"may have been delivered to {B} by an earlier attempt" in str(error)
        del refused[f"RCPT TO:<{B}>"]
        if on_refused == "warn":
            result = attempt(task, store)
            assert (result["outcome"], result["accepted"], list(result["refused"])) == ("partial", [A, B], [C])
        else:
            assert not retried(failure(task, store))
        assert [stored.recipients for stored in server.stored] == [(A, B), (A,), (B,)]


def test_a_mail_that_can_no_longer_be_made_may_have_been_delivered_all_the_same(behind: Behind) -> None:
    """The attachment alone might be taken for the cause."""
    store = Kept()
    with Server(at_first(1, STORE_AND_HANG_UP, MESSAGE)) as server:
        behind(server)
        failure(send(on_unknown="retry"), store)
        error = failure(send(on_unknown="retry", attachments="/nowhere/report.csv"), store)
        assert "may have been delivered by an earlier attempt" in str(error)
        assert "/nowhere/report.csv" in str(error)


def test_a_process_that_was_killed_with_the_mail_on_its_way_leaves_it_in_doubt(behind: Behind) -> None:
    """Its last word was that it is about to send."""
    store = Kept()
    with Server(at_first(1, HANG_UP, MESSAGE)) as server:
        behind(server)
        failure(send(), store)
        head = json.loads(store.values["smtpcm"])
        head |= {"standing": "open", "rows": {**head["rows"], "states": "o"}}
        store.values["smtpcm"] = json.dumps(head)
        error = failure(send(), store)
        assert not retried(error)
        assert server.stored == []
        assert attempt(send(on_unknown="retry"), store)["outcome"] == "accepted"


def test_a_process_that_was_killed_between_the_answer_and_its_result_sends_nothing_twice(behind: Behind) -> None:
    """Nothing was written after the mail."""
    store = Kept()
    with Server() as server:
        behind(server)
        attempt(send(), store)
        store.values = store.before_the_end
        del store.values["smtpcm/0/result"]
        error = failure(send(), store)
        assert not retried(error)
        assert "when an earlier attempt ended without recording its result" in str(error)
        assert len(server.stored) == 1


def test_a_process_that_was_killed_after_its_result_was_stored_has_sent_the_mail(behind: Behind) -> None:
    """The result is stored before the end of the task, and says that every recipient has the mail."""
    store = Kept()
    with Server() as server:
        behind(server)
        sent = attempt(send(), store)
        store.values = store.before_the_end
        assert json.loads(store.values["smtpcm"])["rows"]["states"] == "o"
        assert attempt(send(), store) == sent
        assert len(server.stored) == 1


def test_a_ledger_of_an_earlier_release_is_continued(behind: Behind) -> None:
    """It had the row of a single mail under a key of its own."""
    store = Kept()
    with Server(at_first(1, "450 4.2.0 later", f"RCPT TO:<{B}>")) as server:
        behind(server)
        assert retried(failure(send(), store))
        head = json.loads(store.values["smtpcm"])
        store.values["smtpcm/0/0"] = json.dumps(head.pop("rows"))
        store.values["smtpcm"] = json.dumps({**head, "format": 2, "blocks": 1})
        assert attempt(send(), store)["accepted"] == [A, B]
        assert [stored.recipients for stored in server.stored] == [(A,), (B,)]
        assert sorted(store.values) == ["smtpcm", "smtpcm/0/result"]


def test_one_mail_takes_four_requests_to_the_state_store(behind: Behind) -> None:
    """What was known; that it is about to be sent; its result; the end."""
    requests = []

    class Counting(Kept):
        def get(self, key: str) -> Any:
            requests.append(f"get {key}")
            return super().get(key)

        def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
            requests.append(f"set {key}")
            super().set(key, value, retention=retention)

        def delete(self, key: str) -> None:
            requests.append(f"delete {key}")
            super().delete(key)

    with Server() as server:
        behind(server)
        attempt(send(), Counting())
    assert requests == ["get smtpcm", "set smtpcm", "set smtpcm/0/result", "set smtpcm"]


def test_a_store_that_is_away_keeps_the_mail_from_being_sent(behind: Behind) -> None:
    """Airflow retries."""
    store = Kept(failures=99)
    with Server() as server:
        behind(server)
        error = failure(send(), store)
        assert retried(error)
        assert "Mail that cannot be recorded is not sent" in str(error)
        assert server.stored == []
        store.failures = 0
        attempt(send(), store)
        assert len(server.stored) == 1


def test_a_store_that_goes_away_after_the_mail_was_sent_leaves_it_in_doubt(behind: Behind) -> None:
    """It was not written down that it was accepted."""
    store = Kept()

    def go_away(about: str) -> str | None:
        store.failures = 99 if about == MESSAGE else store.failures
        return None

    with Server(go_away) as server:
        behind(server)
        assert retried(failure(send(), store))
        store.failures = 0
        assert "may have been delivered" in str(failure(send(), store))
        assert len(server.stored) == 1


# --- Refused.


def test_who_was_refused_for_now_is_asked_alone_by_the_next_try(behind: Behind) -> None:
    """The mail is the same, and so is its Message-ID; its header names everyone."""
    store, busy = Kept(), [True]
    with Server(until(busy, "450 4.2.0 greylisted", f"RCPT TO:<{B}>")) as server:
        behind(server)
        error = failure(send(), store)
        assert retried(error)
        busy.clear()
        result = attempt(send(), store)
        assert (result["outcome"], result["accepted"], result["refused"]) == ("accepted", [A, B], {})
        assert [stored.recipients for stored in server.stored] == [(A,), (B,)]
        assert len(set(ids(server))) == 1
        assert all(f"To: {A}, {B}".encode() in stored.message for stored in server.stored)


def test_without_a_ledger_a_mail_that_some_have_is_not_tried_again(behind: Behind) -> None:
    """Airflow before 3.3: another attempt would send it to all."""
    with Server(at_first(1, "450 4.2.0 greylisted", f"RCPT TO:<{B}>")) as server:
        behind(server)
        assert not retried(failure(send(), None))


def test_once_a_mailbox_was_mended_the_cleared_task_sends_to_it(behind: Behind) -> None:
    """And succeeds."""
    store, broken = Kept(), [True]
    with Server(until(broken, "550 5.1.1 no such user", "RCPT")) as server:
        behind(server)
        assert not retried(failure(send(), store))
        broken.clear()
        result = attempt(send(), store)
        assert (result["outcome"], result["refused"]) == ("accepted", {})


def test_once_an_address_was_mended_the_cleared_task_sends_to_that_alone(behind: Behind) -> None:
    """The others have it."""
    store = Kept()
    with Server(at_first(1, "550 5.1.1 no such user", f"RCPT TO:<{B}>")) as server:
        behind(server)
        assert not retried(failure(send(), store))
        result = attempt(send(to=[A, C]), store)
        assert (result["outcome"], result["accepted"]) == ("accepted", [A, C])
        assert [stored.recipients for stored in server.stored] == [(A,), (C,)]


def test_once_an_address_was_taken_out_the_cleared_task_is_done(behind: Behind) -> None:
    """Everybody who is left has it; it is not sent to all again."""
    store = Kept()
    with Server(at_first(1, "550 5.1.1 no such user", f"RCPT TO:<{B}>")) as server:
        behind(server)
        failure(send(), store)
        result = attempt(send(to=A), store)
        assert (result["outcome"], result["accepted"]) == ("accepted", [A])
        assert len(server.stored) == 1


def test_on_clear_send_again_sends_to_everybody_after_a_failure_for_good(behind: Behind) -> None:
    """Under another Message-ID."""
    store = Kept()
    with Server(at_first(1, "550 5.1.1 no such user", f"RCPT TO:<{B}>")) as server:
        behind(server)
        failure(send(on_clear="send_again"), store)
        attempt(send(on_clear="send_again"), store)
        assert [stored.recipients for stored in server.stored] == [(A,), (A, B)]
        assert len(set(ids(server))) == 2


@pytest.mark.parametrize(
    ("retries", "is_cleared", "recipients"),
    [(1, False, (B,)), (0, True, (A, B)), (1, True, (A, B))],
    ids=["retried", "cleared after its last attempt", "cleared before its retry"],
)
def test_on_clear_decides_whenever_the_task_was_cleared(
    retries: int, is_cleared: bool, recipients: tuple[str, ...], behind: Behind
) -> None:
    """Clearing raises `max_tries` to `try_number` + `retries`; Airflow's own retry leaves it."""
    store, busy = Kept(), [True]
    task = send(on_clear="send_again")
    with Server(until(busy, "450 4.2.0 greylisted", f"RCPT TO:<{B}>")) as server:
        behind(server)
        assert retried(failure(task, store, try_number=1, max_tries=retries))
        busy.clear()
        attempt(task, store, try_number=2, max_tries=1 + retries if is_cleared else retries)
        assert server.stored[-1].recipients == recipients


@pytest.mark.parametrize("is_cleared", [False, True])
def test_a_task_that_was_killed_and_then_cleared_sends_what_on_clear_says(is_cleared: bool, behind: Behind) -> None:
    """Until then, what may have been delivered is not sent again."""
    store, task = Kept(), send(on_clear="send_again")
    with Server() as server:
        behind(server)
        attempt(task, store, try_number=1, max_tries=1)
        store.values = store.before_the_end
        del store.values["smtpcm/0/result"]
        if is_cleared:
            attempt(task, store, try_number=2, max_tries=2)
            assert len(set(ids(server))) == 2
        else:
            assert "may have been delivered" in str(failure(task, store, try_number=2, max_tries=1))
            assert len(server.stored) == 1


def test_a_mail_that_can_no_longer_be_made_fails_for_good(behind: Behind) -> None:
    """What earlier attempts sent is not forgotten; `on_clear` decides what happens."""
    store = Kept()
    with Server(at_first(1, "450 4.2.0 greylisted", f"RCPT TO:<{B}>")) as server:
        behind(server)
        assert retried(failure(send(), store))
        assert not retried(failure(send(attachments="/nowhere/report.csv"), store))
        attempt(send(on_clear="send_again"), store)
        assert [stored.recipients for stored in server.stored] == [(A,), (A, B)]


@pytest.mark.parametrize("on_refused", ["fail", "warn"])
def test_who_was_not_asked_was_not_refused_and_is_asked_by_the_next_try(on_refused: str, behind: Behind) -> None:
    """The connection broke before that; a warning would be the only trace of it."""
    store, said = Kept(), ["450 4.2.0 greylisted", *[HANG_UP] * 9]
    with Server(lambda about: said.pop(0) if said and about == f"RCPT TO:<{B}>" else None) as server:
        behind(server)
        assert retried(failure(send(), store))
        error = failure(send(on_refused=on_refused), store)
        assert retried(error)
        assert f"was accepted for {A}, who will receive it, and not sent to {B}" in str(error)
        said.clear()
        assert attempt(send(on_refused=on_refused), store)["accepted"] == [A, B]
        assert [stored.recipients for stored in server.stored] == [(A,), (B,)]


@pytest.mark.parametrize("on_refused", ["fail", "warn"])
def test_a_task_that_is_killed_before_it_asks_the_others_says_who_has_the_mail(on_refused: str, behind: Behind) -> None:
    """That does not make it unsent, nor finished."""
    store = Kept()
    with Server(at_first(1, "450 4.2.0 greylisted", f"RCPT TO:<{B}>")) as server:
        behind(server)
        assert retried(failure(send(), store))
        killed = send(on_refused=on_refused)
        killed.on_kill()
        error = failure(killed, store)
        assert retried(error)
        assert f"was accepted for {A}, who will receive it, and not sent to {B}: It was not sent: the task was" in str(
            error
        )
        assert attempt(send(), store)["accepted"] == [A, B]
        assert [stored.recipients for stored in server.stored] == [(A,), (B,)]


# --- Done.


def test_a_task_that_was_done_sends_all_anew_when_it_is_cleared(behind: Behind) -> None:
    """Each time with a Message-ID of its own, unless the author has set one."""
    store = Kept()
    with Server() as server:
        behind(server)
        for _ in range(3):
            attempt(send(), store)
        assert len(set(ids(server))) == 3
        for _ in range(2):
            attempt(send(message_id="<mine@corp.example>"), store)
        assert ids(server)[3:] == ["<mine@corp.example>"] * 2


def test_a_task_that_is_cleared_sends_all_anew_although_airflow_has_removed_its_ledger(behind: Behind) -> None:
    """`[state_store] clear_on_success` does: a server would drop mail with the old Message-ID."""

    def cleared(times: int) -> None:
        surroundings = {**context(max_tries=2 + times), "task": SimpleNamespace(retries=2)}
        send().execute({**surroundings, "task_state_store": Kept()})

    with Server() as server:
        behind(server)
        for times in (0, 0, 1, 2):
            cleared(times)
        first, same, second, third = ids(server)
        assert first == same
        assert len({first, second, third}) == 3


def test_what_is_waited_for_within_a_try_is_no_matter_of_airflow_s(behind: Behind) -> None:
    """A server that was restarted, for instance."""
    with Server(at_first(3, "451 4.3.0 later", MESSAGE)) as server:
        behind(server)
        assert attempt(send(retry_for=10), Kept())["outcome"] == "accepted"
        assert len(server.stored) == 1


# --- Canceled.


@pytest.mark.parametrize("kept", [True, False])
def test_a_task_that_is_killed_before_it_began_is_tried_again(kept: bool, behind: Behind) -> None:
    """Nothing was sent, and the next attempt knows that."""
    store = Kept() if kept else None
    with Server() as server:
        behind(server)
        killed = send()
        killed.on_kill()
        error = failure(killed, store)
        assert retried(error)
        assert "It was not sent: the task was asked to end." in str(error)
        assert server.heard == []
        assert attempt(send(), store)["outcome"] == "accepted"


def test_a_task_that_is_killed_while_it_writes_that_it_is_about_to_send_is_tried_again(behind: Behind) -> None:
    """It was about to send, and did not."""
    killed = send()

    class Interrupting(Kept):
        def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
            if key == "smtpcm" and not self.writes.count(key):
                killed.on_kill()
                time.sleep(0.1)
            super().set(key, value, retention=retention)

    store = Interrupting()
    with Server() as server:
        behind(server)
        assert retried(failure(killed, store))
        assert attempt(send(), store)["outcome"] == "accepted"
        assert len(server.stored) == 1


def test_a_task_that_waits_for_another_turn_ends_before_its_time_limit(behind: Behind) -> None:
    """And not in the middle of something; half of the time is for further turns at the most."""
    store = Kept()
    began = time.monotonic()
    with Server(at_first(9999, "450 4.2.0 later", f"RCPT TO:<{B}>")) as server:
        behind(server)
        error = failure(send(retry_for=60, execution_timeout=timedelta(seconds=8)), store)
        assert time.monotonic() - began < 8
        assert retried(error)
        assert [stored.recipients for stored in server.stored] == [(A,)]


def test_a_server_that_does_not_answer_is_left_before_the_time_limit(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt knows that no one has the mail."""
    monkeypatch.setattr(connection_pool, "_CANCEL_SECONDS", 0.3)
    store, silent = Kept(), [True]

    def say_nothing(about: str) -> str | None:
        if silent and about.startswith("MAIL"):
            server.over.wait()
        return None

    with Server(say_nothing) as server:
        behind(server, timeout=3600)
        error = failure(send(execution_timeout=timedelta(seconds=0.5)), store)
        assert retried(error)
        assert "its execution_timeout is nearly over" in str(error)
        silent.clear()
        assert attempt(send(), store)["outcome"] == "accepted"


# --- Interrupted.


def _no_thread(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """From the given session on none can be opened, since the system starts no thread for the name service."""
    open_session, opened = Session.open, []

    def start(session: Session, **options: Any) -> Session:
        opened.append(session)
        if len(opened) > after:
            raise RuntimeError("can't start new thread")
        return open_session(session, **options)

    monkeypatch.setattr(Session, "open", start)


@pytest.mark.parametrize("on_refused", ["fail", "warn"])
def test_an_error_after_one_recipient_was_accepted_is_not_retried_without_a_ledger(
    on_refused: str, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one was to be asked again, and no thread could be started for that."""
    _no_thread(monkeypatch, after=1)
    with Server(at_first(1, "450 4.2.0 greylisted", f"RCPT TO:<{B}>"), per_connection=1) as server:
        behind(server)
        error = failure(send(retry_for=30, on_refused=on_refused), None)
        assert not retried(error)
        assert f"for {A}, who will receive it" in str(error)
        assert "the task was interrupted (RuntimeError: can't start new thread)" in str(error)
        assert [stored.recipients for stored in server.stored] == [(A,)]


def test_with_a_ledger_only_the_other_recipient_is_asked_by_the_next_try(
    behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was accepted is written down."""
    store = Kept()
    with Server(at_first(1, "450 4.2.0 greylisted", f"RCPT TO:<{B}>"), per_connection=1) as server:
        behind(server)
        with monkeypatch.context() as patched:
            _no_thread(patched, after=1)
            assert retried(failure(send(retry_for=30), store))
        assert attempt(send(), store)["accepted"] == [A, B]
        assert [stored.recipients for stored in server.stored] == [(A,), (B,)]


@pytest.mark.parametrize("kept", [True, False])
def test_an_error_before_anybody_was_accepted_is_airflow_s_own_business(
    kept: bool, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It retries if allowed, and the next attempt sends the mail."""
    store = Kept() if kept else None
    with Server() as server:
        behind(server)
        with monkeypatch.context() as patched:
            _no_thread(patched, after=0)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                attempt(send(), store)
        assert attempt(send(), store)["accepted"] == [A, B]
        assert len(server.stored) == 1


class Broken(BaseException):
    """An unexpected error."""


@pytest.mark.parametrize("kind", [Broken, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("where", ["lineage", "log", "outlets", "journal"])
def test_whatever_is_raised_once_the_mail_was_accepted_is_not_retried_without_a_ledger(
    where: str, kind: type[BaseException], behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow retries after every exception but its own for good."""
    task = send(attachments=[Attachment(content=b"x", name="report.csv")], outlets=[Asset("sent")])

    def break_in(*_: object, **__: object) -> None:
        raise kind

    def break_in_at_the_end(said: str, *_: object) -> None:
        if said.startswith("SendMailTaskEnd"):
            raise kind

    if where == "log":
        monkeypatch.setattr("airflow_provider_smtpcm.operators.send_mail.log.info", break_in_at_the_end)
    elif where == "journal":
        monkeypatch.setattr("airflow_provider_smtpcm.ledger.journal.PriorDelivery.store", break_in)
    elif where == "lineage":
        monkeypatch.setattr("airflow_provider_smtpcm.operators._lineage.Lineage.add_mail", break_in)
    else:
        monkeypatch.setattr("airflow_provider_smtpcm.operators._lineage.annotate_outlet_events", break_in)
    with Server() as server:
        behind(server)
        error = failure(task, None)
        assert not retried(error)
        assert "after mail was, or may have been, accepted" in str(error)
        assert len(server.stored) == 1


@pytest.mark.parametrize(
    "change", [Path.unlink, lambda file: file.write_bytes(b"NEW!")], ids=["deleted", "overwritten"]
)
def test_a_retry_within_an_attempt_sends_the_same_file(
    change: Callable[[Path], object], behind: Behind, tmp_path: Path
) -> None:
    """Recipients of one mail do not get different files under one Message-ID."""
    file = tmp_path / "report.csv"
    file.write_bytes(b"OLD!")

    def decide(said: str) -> str | None:
        if said.startswith(f"RCPT TO:<{B}>") and not server.stored and file.exists() and file.read_bytes() == b"OLD!":
            return "451 4.7.1 greylisted"
        if said == MESSAGE and not server.stored:
            change(file)
        return None

    with Server(decide) as server:
        behind(server)
        attempt(send(attachments=[str(file)], retry_for=30), Memory())
    assert sorted(address for stored in server.stored for address in stored.recipients) == [A, B]
    assert [b64encode(b"OLD!") in stored.message for stored in server.stored] == [True, True]


def test_a_file_is_measured_when_its_mail_has_its_turn(behind: Behind, tmp_path: Path) -> None:
    """It may change while the ledger is written, after it was checked that it can be read."""
    file = tmp_path / "report.csv"
    file.write_bytes(b"OLD!")

    class Slow(Memory):
        def set(self, key: str, value: Any, **options: Any) -> None:
            file.write_bytes(b"longer than before")
            super().set(key, value, **options)

    with Server() as server:
        behind(server)
        attempt(send(attachments=[str(file)]), Slow())
    assert b64encode(b"longer than before") in server.stored[0].message
