"""A task whose code executes several operators, or one of them several times, sends every mail, and each of them once.

So does one that is retried, or whose callbacks send mail too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_smtpcm.ledger import record
from airflow_provider_smtpcm.mail.headers import stable_message_id
from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException, TaskStateStore
from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.testing import Relay
from tests.ledger.stores import Memory
from tests.operators.tasks import context
from tests.operators.test_send_mail_tries import Kept
from tests.smtp.server import Server

RunDag = Callable[[DAG], Any]
Behind = Callable[..., None]
Code = Callable[[Any], Any]
RETRIED: dict[str, Any] = {"retries": 1, "retry_delay": timedelta(0)}
NORTH, SOUTH = "north@corp.example", "south@corp.example"
#: The Message-ID of the mail of a task that sends one.
OF_THE_TASK = stable_message_id("corp.example", "d", "r", "send", "-1")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_RETRY_DELAYS", (0.01,))


def send(to: str, subject: str = "Report", **fields: Any) -> SendMailOperator:
    """An operator in the code of a task."""
    fields = {"task_id": "mail", "from_address": "etl@corp.example", "retry_for": 0, **fields}
    return SendMailOperator(to=to, subject=subject, **fields)


def merge(rows: Any, **fields: Any) -> MailMergeOperator:
    """A merge in the code of a task."""
    fields = {"task_id": "merge", "from_address": "etl@corp.example", "subject": "Report", "retry_for": 0, **fields}
    return MailMergeOperator(rows=rows, to="{{ row.to }}", **fields)


def attempt(code: Code, store: Memory | None, *, operator: object = None, max_tries: int = 0) -> Any:
    """An attempt of a task with this code, or of this operator."""
    surroundings = {**context(max_tries=max_tries), "task": operator or SimpleNamespace(retries=0)}
    return code(surroundings if store is None else {**surroundings, "task_state_store": store})


def executing(operators: Iterable[SendMailOperator | MailMergeOperator]) -> Code:
    """The code of a task that executes these one after the other."""
    return lambda surroundings: [operator.execute(surroundings) for operator in operators]


def refused(code: Code, store: Memory, **options: Any) -> AirflowFailException:
    """The error of an attempt that Airflow does not retry."""
    with pytest.raises(AirflowFailException) as caught:
        attempt(code, store, **options)
    return caught.value


def sent(relay: Relay) -> list[tuple[str, str]]:
    """The recipient and the subject of each mail; no two mails have the same Message-ID."""
    ids = [received.message["Message-ID"] for received in relay.messages]
    assert len(set(ids)) == len(ids)
    return [(received.recipients[0], str(received.message["Subject"])) for received in relay.messages]


LOOPS: dict[str, list[Callable[[], SendMailOperator | MailMergeOperator]]] = {
    "other task_id": [partial(send, to, task_id=f"mail_{to[:5]}") for to in (NORTH, SOUTH)],
    "other recipients": [partial(send, to) for to in (NORTH, SOUTH)],
    "other subject": [partial(send, NORTH, subject) for subject in ("Orders", "Invoices")],
    "all the same": [partial(send, NORTH)] * 2,
    "other rows": [partial(merge, [{"to": to}]) for to in (NORTH, SOUTH)],
    "other text of a merge": [partial(merge, [{"to": NORTH}], subject=subject) for subject in ("Orders", "Invoices")],
    "a mail and a merge": [partial(send, NORTH, task_id="same"), partial(merge, [{"to": SOUTH}], task_id="same")],
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_operators_in_a_loop_send_each_mail_once_over_two_attempts(loop: Any, relay: Relay) -> None:
    """Every result is that of its own mail, in both attempts."""
    store = Kept()
    first = attempt(executing(made() for made in loop), store)
    assert len(sent(relay)) == 2
    again = attempt(executing(made() for made in loop), store)
    assert len(relay.messages) == 2
    assert again == first
    if all("message_id" in result for result in first):
        assert [result["message_id"] for result in first] == [each.message["Message-ID"] for each in relay.messages]
    attempt(executing(made() for made in loop), store, max_tries=1)  # cleared after a success
    assert len(sent(relay)) == 4


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_loop_that_changes_its_order_takes_no_mail_for_another(loop: Any, relay: Relay) -> None:
    """Each is found again, or the task fails; neither is lost in silence, nor sent twice."""
    store = Kept()
    attempt(executing(made() for made in loop[:1]), store)  # then the worker dies
    before = sent(relay)
    try:
        attempt(executing(made() for made in reversed(loop)), store)
    except AirflowFailException as error:
        assert "are not those with which an earlier attempt of the task executed it" in str(error)  # noqa: PT017
        assert "hook.send" in str(error)  # noqa: PT017
        assert sent(relay) == before
    else:
        assert len(sent(relay)) == 2


def test_a_mail_that_failed_is_sent_by_the_retry_and_no_other(relay: Relay) -> None:
    """Under its own Message-ID, whatever was executed before it."""
    store = Kept()
    code = executing([send(NORTH), send("bad@corp.example; other@corp.example", task_id="mixed"), send(SOUTH)])
    refused(code, store)
    assert [to for to, _ in sent(relay)] == [NORTH, "other@corp.example"]
    refused(code, store)
    attempt(executing([send(SOUTH)]), store)
    assert [to for to, _ in sent(relay)] == [NORTH, "other@corp.example", SOUTH]


def test_mails_that_failed_and_changed_places_are_not_sent_twice(behind: Behind) -> None:
    """The first reached nobody; the second has the same recipients."""
    store = Kept()
    failing = ["451 4.3.0 later"]

    def both(surroundings: Any, subjects: Iterable[str] = ("Orders", "Invoices")) -> None:
        errors = []
        for subject in subjects:
            try:
                send(NORTH, subject).execute(surroundings)
            except AirflowFailException:
                raise
            except AirflowException as error:
                errors.append(error)
        if errors:
            raise errors[0]

    with Server(lambda said: failing.pop() if failing and said.startswith("MAIL") else None) as server:
        behind(server)
        with pytest.raises(AirflowException):
            attempt(both, store)
        assert len(server.stored) == 1
        refused(partial(both, subjects=("Invoices", "Orders")), store)
        assert len(server.stored) == 1
        attempt(both, store)
        assert len(server.stored) == 2


def test_another_text_in_the_next_attempt_is_an_error_unless_nobody_has_the_mail(relay: Relay) -> None:
    """It could be another mail. To send all again is the author's decision."""
    store = Kept()
    attempt(executing([send(NORTH, text="12:03:11")]), store)
    error = refused(executing([send(NORTH, text="12:04:19")]), store)
    assert str(error).startswith("The arguments of 'mail' are not those")
    assert len(relay.messages) == 1
    refused(executing([send("bad@corp.example", text="12:03:11")]), store)
    assert "No such user" in str(refused(executing([send("bad@corp.example", text="12:04:19")]), store))


def test_another_connection_sends_only_what_is_left(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of the task executes the operator again after it failed."""
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", '{"conn_type": "smtpcm", "host": "127.0.0.1", "port": 1}')

    def code(surroundings: Any) -> Any:
        with pytest.raises(AirflowException):
            send(NORTH, smtpcm_conn_id="away").execute(surroundings)
        return send(NORTH).execute(surroundings)

    store = Kept()
    with Server() as server:
        behind(server)
        result = attempt(code, store)
        assert [stored.message_id for stored in server.stored] == [result["message_id"]]
        assert len({key.split("/")[1] for key in store.values}) == 1  # one ledger


def test_rows_that_can_be_read_only_once_are_not_taken_for_others(relay: Relay) -> None:
    """Nobody knows what a generator would have given."""

    def rows() -> Iterator[dict[str, str]]:
        yield {"to": NORTH}

    store = Kept()
    attempt(lambda surroundings: merge(rows()).execute(surroundings), store)
    refused(lambda surroundings: merge(rows()).execute(surroundings), store)
    assert len(relay.messages) == 1


# --- The task's own operator


class PerRegion(SendMailOperator):
    """Executes itself for each recipient."""

    regions: tuple[str, ...] = (NORTH, SOUTH)
    texts: tuple[str, ...] = ("x", "x")

    def execute(self, context: Any) -> Any:
        """Return the last result."""
        result = None
        for to, text in zip(self.regions, self.texts, strict=True):
            self.to, self.text = to, text
            result = super().execute(context)
        return result


def per_region(*regions: str, texts: tuple[str, ...] | None = None) -> PerRegion:
    """The operator of a task."""
    operator = PerRegion(task_id="send", from_address="etl@corp.example", to="x@corp.example", retry_for=0)
    operator.regions, operator.texts = regions, texts or ("x",) * len(regions)
    return operator


def of_task(operator: Any, store: Memory | None, **options: Any) -> Any:
    """An attempt of a task that is this operator."""
    return attempt(operator.execute, store, operator=operator, **options)


def test_a_subclass_that_executes_itself_for_each_recipient_reaches_all_of_them(relay: Relay) -> None:
    """The first mail keeps the ledger and the Message-ID of the task."""
    store = Kept()
    of_task(per_region(NORTH, SOUTH), store)
    assert [to for to, _ in sent(relay)] == [NORTH, SOUTH]
    assert relay.messages[0].message["Message-ID"] == OF_THE_TASK
    assert {"smtpcm", "smtpcm/0/result"} < set(store.values)
    of_task(per_region(NORTH, SOUTH), store)
    assert len(relay.messages) == 2


@pytest.mark.parametrize(
    ("regions", "texts"), [((SOUTH, NORTH), ("x", "x")), ((SOUTH, NORTH), ("x", "y")), ((NORTH, NORTH), ("x", "y"))]
)
def test_a_subclass_that_changes_the_order_takes_no_mail_for_another(
    regions: tuple[str, str], texts: tuple[str, str], relay: Relay
) -> None:
    """It fails before it sends anything."""
    store = Kept()
    of_task(per_region(*reversed(regions), texts=texts[::-1]), store)
    error = refused(partial(of_task_in, per_region(*regions, texts=texts)), store)
    assert "are not those with which" in str(error)
    assert len(relay.messages) == 2


def of_task_in(operator: Any, surroundings: Any) -> Any:
    """Execute the operator of the task."""
    return operator.execute({**surroundings, "task": operator})


def test_a_subclass_that_died_after_the_first_of_its_mails_takes_no_mail_for_another(relay: Relay) -> None:
    """It may have been the only one: this shows when there is a second."""
    store = Kept()
    of_task(per_region(NORTH), store)
    refused(partial(of_task_in, per_region(SOUTH, NORTH)), store)
    assert [to for to, _ in sent(relay)] == [NORTH]
    of_task(per_region(NORTH, SOUTH), store)
    assert [to for to, _ in sent(relay)] == [NORTH, SOUTH]


def test_a_subclass_with_one_mail_may_change_its_text(relay: Relay) -> None:
    """As the operator itself may: the mail is that of the task."""
    store = Kept()
    first = of_task(per_region(NORTH, texts=("12:03",)), store)
    assert of_task(per_region(NORTH, texts=("12:04",)), store) == first
    assert len(relay.messages) == 1


def test_an_operator_as_it_is_keeps_only_the_records_of_the_task(relay: Relay) -> None:
    """No digest of its arguments is made."""
    store = Kept()
    of_task(send(NORTH, task_id="send"), store)
    assert sorted(store.values) == ["smtpcm", "smtpcm/0/result"]
    assert relay.messages[0].message["Message-ID"] == OF_THE_TASK


# --- Airflow's own runner


def nested(subjects: Iterable[str]) -> Any:
    """A task that sends mails, and then fails at its first attempt."""

    @task(**RETRIED)
    def reports(**context: Any) -> list[str]:
        ids = [str(send(NORTH, subject).execute(context)["message_id"]) for subject in subjects]
        if context["ti"].try_number == 1:
            raise ValueError("a later step")
        return ids

    return reports()


def test_a_task_that_is_retried_sends_its_mails_once(relay: Relay, run_dag: RunDag) -> None:
    """Before Airflow 3.3, it is not retried."""
    with DAG("nested", schedule=None) as dag:
        nested(["Orders", "Invoices"])
    run = run_dag(dag)
    has_store = hasattr(pytest.importorskip("airflow.sdk.execution_time.context"), "TaskStateStoreAccessor")
    assert str(run.state) == ("success" if has_store else "failed")
    assert [subject for _, subject in sent(relay)] == ["Orders", "Invoices"]


def test_before_airflow_3_3_each_mail_has_a_message_id_of_its_own(
    relay: Relay, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the task is not retried."""
    monkeypatch.setattr(TaskStateStore, "of", lambda _: None)
    with DAG("nested_before", schedule=None) as dag:
        nested(["Orders", "Invoices"])
    assert str(run_dag(dag).state) == "failed"
    assert [subject for _, subject in sent(relay)] == ["Orders", "Invoices"]


@pytest.mark.parametrize("kind", ["report", "load"])
def test_an_operator_in_a_callback_reports_every_event(kind: str, relay: Relay, run_dag: RunDag) -> None:
    """Also of a task that sends mail itself; no try's event is taken for that of another."""

    def tell(what: str, context: Any) -> None:
        send("ops@corp.example", what, task_id="alert").execute(context)

    callbacks: dict[str, Any] = {f"on_{what}_callback": partial(tell, what) for what in ("execute", "retry", "success")}

    class FailsOnce(SendMailOperator):
        def execute(self, context: Any) -> Any:
            if context["ti"].try_number == 1:
                raise ValueError("it broke")
            return super().execute(context)

    with DAG(f"callbacks_{kind}", schedule=None) as dag:
        if kind == "report":
            fields: dict[str, Any] = {"task_id": "report", "from_address": "etl@corp.example", "to": NORTH}
            FailsOnce(subject="own", **fields, **RETRIED, **callbacks)
        else:

            @task(**RETRIED, **callbacks)
            def load(**context: Any) -> None:
                if context["ti"].try_number == 1:
                    raise ValueError("it broke")

            load()
    assert str(run_dag(dag).state) == "success"
    own = ["own"] if kind == "report" else []
    assert [subject for _, subject in sent(relay)] == ["execute", "retry", "execute", *own, "success"]
