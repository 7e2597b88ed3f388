"""The outcome of a merge: what the server replies, what interrupts it, and what it reports to Airflow and people."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.execution_time.timeout import AirflowTaskTimeout

from airflow_provider_smtpcm.merge import result as result_module
from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException
from airflow_provider_smtpcm.testing import Relay
from demo.processes import free_port
from tests.merge.test_report import lines
from tests.operators.merges import ROWS, merge, rows_beside, subjects
from tests.operators.tasks import context, time_limit
from tests.smtp.dialogue import Dialogue

HELLO = "S: 220 mail ESMTP\nC: EHLO *\nS: 250-mail\nS: 250 8BITMIME"
TO_DATA = "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go on\nMESSAGE"
ACCEPTED = f"{TO_DATA}\nS: 250 2.0.0 queued"


# --- What the server says.


def test_a_refused_recipient_fails_the_task_and_no_other_mail(relay: Relay) -> None:
    """Without a retry, which would mail the others again."""
    surroundings = context()
    rows = rows_beside({"email": "bad@corp.example", "name": "x"})
    with pytest.raises(AirflowFailException, match=r"(?s)2 accepted, 1 refused of 3 rows.*row 2: .*550 5\.1\.1"):
        merge(rows=rows).execute(surroundings)
    (entry,) = surroundings["ti"].pushed["return_value"]["refused"]
    assert (entry["row"], entry["recipients"]) == (2, ["bad@corp.example"])
    assert "550 5.1.1 No such user" in entry["reason"]


def test_it_may_be_a_warning_as_long_as_somebody_was_accepted(relay: Relay) -> None:
    """Even if a mail has further recipients."""
    rows = rows_beside({"email": "bad@corp.example; good@corp.example", "name": "x"}, {"email": "bad@corp.example"})
    result: Any = merge(rows=rows, subject="x", on_refused="warn").execute(context())
    counts = result["counts"]
    assert (counts["accepted"], counts["partial"], counts["refused"]) == (3, 1, 1)
    with pytest.raises(AirflowFailException, match=r"1 refused of 1 row\b"):
        merge(rows=[{"email": "bad@corp.example", "name": "x"}], on_refused="warn").execute(context())


@pytest.mark.parametrize(
    ("script", "options", "retried", "said"),
    [
        ("S: 421 too busy", {}, True, "421 too busy"),
        ("S: 554 go away", {}, False, "554 go away"),
        (f"{HELLO}\nC: MAIL *\nS: 451 later\nC: QUIT\nS: 221 bye", {}, True, "1 refused"),
        (
            f"{HELLO}\n{ACCEPTED}\nC: MAIL *\nS: 451 4.1.8 later\nC: QUIT\nS: 221 bye",  # about the sender
            {},
            False,
            "1 accepted, 1 refused",
        ),
        (f"{HELLO}\n{TO_DATA}\nRESET", {}, False, "1 unknown"),
        (f"{HELLO}\n{TO_DATA}\nRESET", {"on_unknown": "retry"}, True, "each mail keeps its Message-ID"),
        (f"{HELLO}\n{ACCEPTED}\n{TO_DATA}\nRESET", {"on_unknown": "retry"}, False, "1 accepted, 1 unknown"),
    ],
)
def test_airflow_retries_only_while_nobody_has_a_mail(
    script: str, options: dict[str, Any], retried: bool, said: str, behind: Callable[..., None]
) -> None:
    """AirflowFailException is never retried."""
    with Dialogue(script) as dialogue:
        behind(dialogue)
        rows = ROWS[: 2 if "accepted" in said else 1]
        with pytest.raises(AirflowException, match=f"(?s){said}") as caught:
            merge(rows=rows, **options).execute(context())
    assert isinstance(caught.value, AirflowFailException) is not retried


def test_a_server_that_is_not_there_is_not_asked_for_each_row(
    set_connection: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor reported for each; and no one was mailed, so Airflow may retry."""
    extra = {"ssl_mode": "none", "timeout": 1}
    set_connection("smtpcm_default", {"conn_type": "smtpcm", "host": "127.0.0.1", "port": free_port(), "extra": extra})
    rows = ({"email": f"r{number}@corp.example", "name": "x"} for number in range(5000))
    with pytest.raises(AirflowException, match="5000 not_sent of 5000 rows") as caught:
        merge(rows=rows).execute(context())
    assert not isinstance(caught.value, AirflowFailException)
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Row")]
    assert len(told) == 2
    assert told[1].endswith("and 4994 more: not_sent, for the same reason as row 1.")


def test_rows_on_a_share_that_is_busy_are_asked_for_again(relay: Relay) -> None:
    """Nothing was sent yet."""

    class Busy:
        def open(self, mode: str) -> object:
            raise OSError(5, f"Input/output error ({mode})")

        def __str__(self) -> str:
            return "/mnt/share/rows.csv"

    with pytest.raises(AirflowException, match=r"/mnt/share/rows\.csv") as caught:
        merge(rows=Busy()).execute(context())
    assert not isinstance(caught.value, AirflowFailException)


def test_every_try_gives_a_row_the_same_message_id(relay: Relay) -> None:
    """By which servers can recognize a copy; another task's mails have others."""
    merge().execute(context())
    first = {str(received.message["Message-ID"]) for received in relay.clear()}
    merge().execute(context(try_number=2))
    assert {str(received.message["Message-ID"]) for received in relay.clear()} == first
    for place in ({"map_index": 0}, {"run_id": "s"}, {"dag_id": "e"}, {"task_id": "t"}):
        merge().execute(context(**place))
        assert first.isdisjoint({str(received.message["Message-ID"]) for received in relay.clear()})


# --- Interruptions.


def test_a_task_that_is_killed_begins_no_further_mail(relay: Relay, tmp_path: Path) -> None:
    """In-flight mails get their final reply, and the report names the mails that were not sent."""
    send = merge(report_file=str(tmp_path / "report.jsonl"))

    def rows() -> Iterator[dict[str, str]]:
        for number in range(100):
            if number == 3:
                send.on_kill()
            yield {"email": f"r{number}@corp.example", "name": f"{number}"}

    send.rows = rows()
    with pytest.raises(AirflowFailException, match="the task was asked to end"):
        send.execute(context())
    told = {line["row"]: line["outcome"] for line in lines(tmp_path / "report.jsonl")}
    assert subjects(relay) == [f"For {row - 1}" for row, outcome in sorted(told.items()) if outcome == "accepted"]
    assert list(told.values()).count("not_sent") >= 1
    assert max(told) < 10


def test_a_task_that_is_killed_before_it_sent_anything_may_be_tried_again(relay: Relay) -> None:
    """A worker that is shut down is not an error."""
    send = merge()
    send.on_kill()
    with pytest.raises(AirflowException, match="the task was asked to end") as caught:
        send.execute(context())
    assert not isinstance(caught.value, AirflowFailException)
    assert relay.messages == []


def test_a_time_limit_among_the_mails_is_not_retried(behind: Callable[..., None], tmp_path: Path) -> None:
    """Airflow retries a task that ran into its time limit; these mails may have been delivered."""
    surroundings = context()
    with Dialogue(f"{HELLO}\n{ACCEPTED}\n{TO_DATA}\nHANG") as dialogue:
        behind(dialogue, final_reply_timeout=3600)
        send = merge(report_file=str(tmp_path / "report.jsonl"))
        limit = time_limit(lambda: len(dialogue.messages) == 2)
        with pytest.raises(AirflowFailException, match=r"was interrupted \(AirflowTaskTimeout.*1 accepted"), limit:
            send.execute(surroundings)
    first, *others = lines(tmp_path / "report.jsonl")
    assert first["outcome"] == "accepted"
    assert [line["outcome"] for line in others] == ["unknown", "not_sent"]
    assert "no final reply came: the task was interrupted" in others[0]["error"]
    counts = surroundings["ti"].pushed["return_value"]["counts"]
    assert (counts["accepted"], counts["unknown"], counts["not_sent"]) == (1, 1, 1)


def test_a_time_limit_before_any_mail_is_airflow_s_own_business(relay: Relay) -> None:
    """Nothing can arrive twice, and it retries if it may."""
    asked = threading.Event()

    def rows() -> Iterator[dict[str, str]]:
        asked.set()
        time.sleep(30)
        yield ROWS[0]

    with pytest.raises(AirflowTaskTimeout), time_limit(asked.is_set):
        merge(rows=rows()).execute(context())
    assert relay.messages == []


def test_a_result_that_cannot_be_stored_does_not_make_airflow_send_all_again(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """Any other error than ours would be retried."""
    surroundings = context()

    def refuse(**_: object) -> None:
        raise RuntimeError("the API server is away")

    surroundings["ti"].xcom_push = refuse
    with pytest.raises(AirflowFailException, match="2 accepted, 1 failed"):
        merge(rows=rows_beside({"email": "x", "name": "x"})).execute(surroundings)
    assert "the API server is away" in caplog.text


def test_a_task_that_pushes_no_xcom_pushes_none_when_it_fails(relay: Relay) -> None:
    """Its author said so."""
    surroundings = context()
    with pytest.raises(AirflowFailException):
        merge(rows=rows_beside({"email": "x", "name": "x"}), do_xcom_push=False).execute(surroundings)
    assert surroundings["ti"].pushed == {}


# --- What is reported.


def test_it_logs_as_ssis_does_and_how_far_it_has_come(
    relay: Relay, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begin, progress and end."""
    caplog.set_level("INFO")
    monkeypatch.setattr(result_module, "PROGRESS_SECONDS", 0)
    merge().execute(context())
    told = [record.getMessage() for record in caplog.records if "MailMergeTask" in record.getMessage()]
    assert [line.split(":")[0] for line in told] == [
        "MailMergeTaskBegin",
        *["MailMergeTaskProgress"] * 3,
        "MailMergeTaskEnd",
    ]
    assert "1 of 3 rows done (1 accepted)" in told[1]
    assert "seconds to go" in told[1]
    assert "3 rows (3 accepted)" in told[-1]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_result_says_how_many_and_how_fast(relay: Relay, tmp_path: Path) -> None:
    """And where the full report is."""
    path = tmp_path / "report.jsonl"
    result: Any = merge(report_file=str(path)).execute(context())
    assert result["counts"] == {
        "rows": 3,
        "accepted": 3,
        "partial": 0,
        "refused": 0,
        "unknown": 0,
        "not_sent": 0,
        "failed": 0,
    }
    assert (result["refused"], result["failed"], result["report_file"]) == ([], [], str(path))
    assert result["mails_per_second"] > 0
    assert result["elapsed"] > 0


def test_the_report_has_a_line_for_each_row_of_each_try(relay: Relay, tmp_path: Path) -> None:
    """With the Message-ID that the server's log has too."""
    path = tmp_path / "reports" / "march.jsonl"
    rows = [*ROWS[:2], {"email": "bad@corp.example", "name": "x"}, {"email": "nobody", "name": "x"}]
    send = merge(rows=rows, row_key="{{ row.email }}", report_file=path, on_error="continue", on_refused="warn")
    send.execute(context())
    send.execute(context(try_number=2))
    first, second = ([line for line in lines(path) if line["try_number"] == number] for number in (1, 2))
    by_row = {line["row"]: line for line in first}
    assert {row: line["outcome"] for row, line in by_row.items()} == {
        1: "accepted",
        2: "accepted",
        3: "refused",
        4: "failed",
    }
    assert [line["key"] for line in by_row.values()] == [by_row[row]["key"] for row in by_row]
    assert by_row[1]["accepted"] == ["jane@corp.example"]
    assert by_row[1]["message_id"] in {str(received.message["Message-ID"]) for received in relay.messages}
    assert by_row[3]["refused"] == {"bad@corp.example": "550 5.1.1 No such user"}
    assert "no '@'" in by_row[4]["error"]
    assert [line["message_id"] for line in second] == [line["message_id"] for line in first]


def test_a_report_that_is_not_whole_fails_the_task_once_all_is_sent(relay: Relay) -> None:
    """Nothing else shows who has which mail."""
    with pytest.raises(AirflowFailException, match=r"(?s)3 accepted of 3 rows.*'/dev/full' cannot be written"):
        merge(report_file="/dev/full").execute(context())
    assert len(relay.messages) == 3
