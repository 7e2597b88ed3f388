"""A merge over several attempts: each row is sent once, only pending rows are sent, every row in doubt is named."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.execution_time import context as execution_context
from airflow.sdk.execution_time.timeout import timeout

from airflow_provider_smtpcm.ledger import record
from airflow_provider_smtpcm.ledger.merge import DigestSet
from airflow_provider_smtpcm.ledger.record import FINGERPRINT_OCTETS
from airflow_provider_smtpcm.merge.messages import compute_digest
from airflow_provider_smtpcm.operators._task import AirflowException
from airflow_provider_smtpcm.smtp import connection_pool, retry, throttling
from tests.merge.test_report import lines
from tests.operators.merges import ROWS, merge
from tests.operators.test_send_mail_tries import Kept, attempt, failure, ids, retried, until
from tests.smtp.server import MESSAGE, STORE_AND_HANG_UP, Server
from tests.smtp.test_retried_batches import at_first

Behind = Callable[..., None]
AIRFLOW_VERSION = tuple(map(int, version("apache-airflow-core").split(".")[:2]))
JANE, JIM, JOAN = (row["email"] for row in ROWS)


def people(number: int) -> list[dict[str, str]]:
    """So many rows."""
    return [{"email": f"r{at}@corp.example", "name": f"{at}"} for at in range(number)]


def copies(server: Server) -> Counter[str]:
    """How many mails each recipient has."""
    return Counter(one for stored in server.stored for one in stored.recipients)


def killed(store: Kept) -> None:
    """Make the store look as if the process had been killed before it could write how the task ended."""
    store.values = store.before_the_end


def interrupted(store: Kept, states: str) -> None:
    """Make the store look as if the process had been killed when this was known of the rows."""
    killed(store)
    block = json.loads(store.values["smtpcm/0/0"])
    store.values["smtpcm/0/0"] = json.dumps({**block, "states": states})


def of_an_older_release(store: Kept) -> None:
    """Make the store look as if a release had written it that kept three octets of each fingerprint."""
    block = json.loads(store.values["smtpcm/0/0"])
    marks = b64decode(block["marks"])
    cut = b"".join(marks[at : at + 3] for at in range(0, len(marks), FINGERPRINT_OCTETS))
    store.values["smtpcm/0/0"] = json.dumps({**block, "marks": b64encode(cut).decode()})
    store.values["smtpcm"] = json.dumps({**json.loads(store.values["smtpcm"]), "format": 1})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_RETRY_DELAYS", (0.01,))
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(throttling, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(connection_pool, "_CANCEL_SECONDS", 30.0)  # what answers in the end is waited for


# --- A worker without space.


@pytest.mark.parametrize("durable", [True, False])
def test_a_temporary_folder_without_space_ends_the_attempt_and_loses_nothing(
    durable: bool, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows read so far are sent, and the error names the folder; once there is space, the rest follows."""
    store, task = Kept() if durable else None, merge(rows=people(1500), row_key="{{ row.name }}")
    with Server() as server:
        behind(server)
        with monkeypatch.context() as patch:
            begin = DigestSet.__init__

            def begin_small(known: DigestSet) -> None:
                begin(known)
                known._execute("PRAGMA max_page_count = 8")

            patch.setattr(DigestSet, "__init__", begin_small)
            error = failure(task, store)
        assert retried(error) is durable
        assert re.search(
            r"in the folder '/.*' of the worker, cannot be written \(database or disk is full\)", str(error)
        )
        assert "set TMPDIR on the worker" in str(error)
        sent = len(server.stored)
        assert 0 < sent < 1500
        assert f"{sent} accepted of {sent} rows" in str(error)
        if durable:
            assert attempt(task, store)["counts"]["accepted"] == 1500
            assert set(copies(server).values()) == {1}


# --- Rows that are not what they were.


def test_rows_in_another_order_are_an_error_before_anybody_gets_a_second_mail(behind: Behind) -> None:
    """A query without ORDER BY."""
    store, busy = Kept(), [True]
    with Server(until(busy, "450 4.2.0 later", f"RCPT TO:<{JOAN}>")) as server:
        behind(server)
        assert retried(failure(merge(), store))
        busy.clear()
        error = failure(merge(rows=ROWS[::-1]), store)
        assert not retried(error)
        assert re.search(r"The rows have changed since the previous attempt: row 1 is a different one", str(error))
        assert copies(server) == {JANE: 1, JIM: 1}
        attempt(merge(), store)
        assert copies(server) == {JANE: 1, JIM: 1, JOAN: 1}


def test_a_try_says_how_many_rows_the_one_before_has_left(behind: Behind, caplog: pytest.LogCaptureFixture) -> None:
    """The log tells how much is pending."""
    caplog.set_level("INFO")
    store = Kept()
    with Server(at_first(1, "450 4.2.0 later", f"RCPT TO:<{JOAN}>")) as server:
        behind(server)
        failure(merge(), store)
        assert "Resuming:" not in caplog.text
        attempt(merge(), store)
    assert "Resuming: 3 rows seen, 1 pending, 0 unknown." in caplog.text


@pytest.mark.parametrize("key", [None, "{{ row.email }}"])
def test_a_merge_goes_on_where_an_older_release_left_it(key: str | None, behind: Behind) -> None:
    """The package was upgraded between two attempts; the ledger has three octets of each fingerprint."""
    store = Kept()
    with Server(at_first(1, "450 4.2.0 later", f"RCPT TO:<{JOAN}>")) as server:
        behind(server)
        failure(merge(row_key=key), store)
        of_an_older_release(store)
        assert "row 1 is a different one" in str(failure(merge(rows=ROWS[::-1], row_key=key), store))
        assert attempt(merge(row_key=key), store)["settled_earlier"] == 2
        assert copies(server) == {JANE: 1, JIM: 1, JOAN: 1}


@pytest.mark.parametrize("on_unknown", ["fail", "retry"])
@pytest.mark.parametrize("key", [None, "{{ row.email }}"])
def test_what_is_in_doubt_is_named_also_where_the_rows_have_changed(
    key: str | None, on_unknown: str, behind: Behind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the numbers that the rows had, and, of those that are still there, by their keys and Message-IDs."""
    store, report = Kept(), tmp_path / "report.jsonl"
    task: dict[str, Any] = {"row_key": key, "on_unknown": on_unknown, "report_file": str(report)}
    with Server() as server:
        behind(server)
        attempt(merge(row_key=key), store)
        jane_id, jim_id, _ = ids(server)
        interrupted(store, "uo2")
        for _ in range(2):  # it stays so
            report.unlink(missing_ok=True)
            caplog.clear()
            error = failure(merge(rows=ROWS[1::-1], **task), store)
            assert not retried(error)
            assert "3 unknown of 3 rows" in str(error)
            assert f"the first is row 1: The mail {jane_id} of the row " in str(error)
            assert "row 1 is a different one" in str(error)
            told = lines(report)
            assert [(line["row"], line["outcome"], line["message_id"]) for line in told] == [
                (1, "unknown", jane_id),
                (2, "unknown", jim_id),
                (3, "unknown", None),
            ]
            assert told[2]["key"] is None
            if key is not None:
                assert [line["key"] for line in told[:2]] == [JANE, JIM]
            logged = [record.message for record in caplog.records if record.message.startswith("Row ")]
            assert [jane_id in logged[0], jim_id in logged[1], "Row 3: unknown" in logged[2]] == [True] * 3
        assert copies(server) == {JANE: 1, JIM: 1, JOAN: 1}


def test_what_is_in_doubt_is_named_where_there_are_fewer_rows_than_before(behind: Behind, tmp_path: Path) -> None:
    """Those that are still in their place, and those that no longer exist."""
    store, report = Kept(), tmp_path / "report.jsonl"
    with Server() as server:
        behind(server)
        attempt(merge(), store)
        interrupted(store, "ao2")
        error = failure(merge(rows=ROWS[:2], report_file=str(report)), store)
        assert "there were at least 3, and now there are 2" in str(error)
        named = [(line["row"], line["outcome"], line["message_id"]) for line in lines(report)]
        assert named == [(2, "unknown", ids(server)[1]), (3, "unknown", None)]


def test_what_is_in_doubt_is_named_by_its_number_where_a_try_does_not_come_to_it(
    behind: Behind, tmp_path: Path
) -> None:
    """A busy share; the attempt that reaches the row names it in full."""
    store, report = Kept(), tmp_path / "report.jsonl"

    def rows(*, broken: bool) -> Iterator[dict[str, str]]:
        for row in people(12):
            if broken and row["name"] == "6":
                raise OSError("the share is busy")
            yield row

    with Server() as server:
        behind(server)
        attempt(merge(rows=people(10)), store)
        interrupted(store, "a4oa3uo")
        error = failure(merge(rows=rows(broken=True), report_file=str(report)), store)
        assert retried(error)
        assert "5 accepted, 2 unknown of 7 rows" in str(error)
        assert not retried(failure(merge(rows=rows(broken=False), report_file=str(report)), store))
        fifth, ninth, tenth = ids(server)[4], ids(server)[8], ids(server)[9]
    named = [(line["row"], line["message_id"]) for line in lines(report) if line["outcome"] == "unknown"]
    # The ninth was settled earlier, and had no line.
    assert named == [(5, fifth), (10, None), (9, ninth), (10, tenth)]


def test_rows_that_an_older_release_left_in_doubt_are_named_by_their_numbers(behind: Behind, tmp_path: Path) -> None:
    """Three octets of a fingerprint say too little of where they are now."""
    store, report = Kept(), tmp_path / "report.jsonl"
    with Server() as server:
        behind(server)
        attempt(merge(), store)
        interrupted(store, "ao2")
        of_an_older_release(store)
        failure(merge(rows=ROWS[::-1], report_file=str(report)), store)
    assert [(line["row"], line["key"], line["message_id"]) for line in lines(report)] == [
        (2, None, None),
        (3, None, None),
    ]


def test_rows_that_are_fewer_are_an_error(behind: Behind) -> None:
    """A pending row is no longer among the rows."""
    store = Kept()
    with Server(at_first(1, "450 4.2.0 later", f"RCPT TO:<{JOAN}>")) as server:
        behind(server)
        failure(merge(), store)
        assert "there were at least 3, and now there are 2" in str(failure(merge(rows=ROWS[:2]), store))
        assert copies(server) == {JANE: 1, JIM: 1}


def test_other_rows_are_sent_where_on_clear_says_send_again(behind: Behind) -> None:
    """The remedy that the error names."""
    store, other = Kept(), [*ROWS[:2], {"email": "new@corp.example", "name": "New"}]
    with Server(at_first(1, "450 4.2.0 later", f"RCPT TO:<{JOAN}>")) as server:
        behind(server)
        failure(merge(on_clear="send_again"), store)
        assert not retried(failure(merge(rows=other, on_clear="send_again"), store))
        attempt(merge(rows=other, on_clear="send_again"), store)
        assert copies(server) == {JANE: 2, JIM: 2, "new@corp.example": 1}
        assert len(set(ids(server))) == 5


def test_other_rows_are_sent_also_after_a_kill_where_on_clear_says_send_again(behind: Behind) -> None:
    """The remedy holds for every end of an attempt."""
    store, other = Kept(), [*ROWS[:2], {"email": "new@corp.example", "name": "New"}]
    with Server() as server:
        behind(server)
        attempt(merge(), store, try_number=1, max_tries=0)
        interrupted(store, "a2o")
        attempt(merge(rows=other, on_clear="send_again"), store, try_number=2, max_tries=1)
        assert copies(server) == {JANE: 2, JIM: 2, JOAN: 1, "new@corp.example": 1}


@pytest.mark.parametrize("on_clear", ["resume_unfinished", "send_again"])
def test_a_merge_that_was_killed_and_then_cleared_sends_what_on_clear_says(on_clear: str, behind: Behind) -> None:
    """What the server refused before is sent in both cases, and the row in doubt only if all are sent again."""
    store, broken = Kept(), [True]
    with Server(until(broken, "550 5.1.1 no such user", f"RCPT TO:<{JIM}>")) as server:
        behind(server)
        failure(merge(on_clear=on_clear), store, try_number=1, max_tries=0)
        interrupted(store, "aro")
        broken.clear()
        if on_clear == "send_again":
            attempt(merge(on_clear=on_clear), store, try_number=2, max_tries=1)
            assert copies(server) == {JANE: 2, JIM: 1, JOAN: 2}
        else:
            error = failure(merge(on_clear=on_clear), store, try_number=2, max_tries=1)
            assert "2 accepted, 1 unknown of 3 rows" in str(error)
            assert copies(server) == {JANE: 1, JIM: 1, JOAN: 1}


@pytest.mark.parametrize("on_clear", ["resume_unfinished", "send_again"])
def test_a_merge_that_is_killed_and_retried_by_airflow_resumes_whatever_on_clear_says(
    on_clear: str, behind: Behind
) -> None:
    """Nobody has asked for a second mail, nor to ask again who was refused."""
    store = Kept()
    with Server(at_first(1, "550 5.1.1 no such user", f"RCPT TO:<{JIM}>")) as server:
        behind(server)
        failure(merge(on_clear=on_clear), store, try_number=1, max_tries=1)
        interrupted(store, "aro")
        error = failure(merge(on_clear=on_clear), store, try_number=2, max_tries=1)
        assert "1 accepted, 1 refused, 1 unknown of 3 rows" in str(error)
        assert copies(server) == {JANE: 1, JOAN: 1}


@pytest.mark.parametrize(("on_clear", "times"), [("resume_unfinished", 1), ("send_again", 2)])
def test_a_merge_that_was_marked_as_failed_while_it_ran_and_cleared_sends_what_on_clear_says(
    on_clear: str, times: int, behind: Behind
) -> None:
    """Airflow ends the process by SIGTERM, so the attempt ends as if it were to be retried."""
    store, rows = Kept(), people(6)
    killed = merge(rows=rows, on_clear=on_clear, ledger_window=1)

    def end(about: str) -> str | None:
        if about.startswith("MAIL") and len(server.stored) == 3:
            killed.on_kill()
        return None

    with Server(end) as server:
        behind(server)
        assert retried(failure(killed, store, try_number=1, max_tries=2))
        sent = len(server.stored)
        assert 3 <= sent < 6
        server._decide = None
        attempt(merge(rows=rows, on_clear=on_clear), store, try_number=2, max_tries=3)
        assert copies(server) == {row["email"]: times if at < sent else 1 for at, row in enumerate(rows)}


def test_a_row_of_which_no_mail_could_be_made_may_be_mended(behind: Behind) -> None:
    """No one has it, and the others are not sent again."""
    store, rows = Kept(), [ROWS[0], {"email": "nobody", "name": "Jim"}, ROWS[2]]
    with Server() as server:
        behind(server)
        assert not retried(failure(merge(rows=rows), store))
        result = attempt(merge(), store)
        assert copies(server) == {JANE: 1, JIM: 1, JOAN: 1}
        assert (result["counts"]["accepted"], result["settled_earlier"]) == (3, 2)


def test_rows_that_have_no_name_for_the_same_reason_are_not_taken_for_one_another(behind: Behind) -> None:
    """A row's error does not identify it."""
    store, rows = Kept(), [{**ROWS[0], "id": "1"}, {**ROWS[1], "id": " "}, ROWS[2]]
    with Server() as server:
        behind(server)
        assert "2 failed of 3 rows" in str(failure(merge(rows=rows, row_key="{{ row.id }}"), store))
        error = failure(merge(rows=[*rows[:2], {**ROWS[2], "id": ""}], row_key="{{ row.id }}"), store)
        assert "1 accepted, 2 failed of 3 rows" in str(error)
        assert "have changed" not in str(error)
        assert copies(server) == {JANE: 1}


def test_a_row_that_was_fixed_is_not_taken_for_another_whose_fingerprint_begins_alike(behind: Behind) -> None:
    """By three octets alone nearly every second merge of 100,000 rows was stopped, in which 100 had been fixed."""
    store, met = Kept(), dict[bytes, str]()
    for number in itertools.count():
        other = met.setdefault(compute_digest(f"{number}")[:3], f"{number}")
        if other != f"{number}":
            break
    rows = [{**ROWS[0], "id": other}, {"email": "nobody", "name": "Jim", "id": "x"}]
    fixed = [rows[0], {**ROWS[1], "id": f"{number}"}]
    with Server() as server:
        behind(server)
        failure(merge(rows=rows, row_key="{{ row.id }}"), store)
        assert attempt(merge(rows=fixed, row_key="{{ row.id }}"), store)["counts"]["accepted"] == 2
        assert copies(server) == {JANE: 1, JIM: 1}


@pytest.mark.parametrize("named", [True, False])
def test_a_row_that_was_refused_for_good_may_be_mended(named: bool, behind: Behind) -> None:
    """Once the task was cleared; on Airflow's own retry it is not asked for again."""
    store = Kept()
    rows = [{**row, "id": f"{at}"} for at, row in enumerate(ROWS)]
    mended = [*rows[:2], {**rows[2], "email": "joan2@corp.example"}]
    key = {"row_key": "{{ row.id }}"} if named else {}
    with Server(at_first(1, "550 5.1.1 no", f"RCPT TO:<{JOAN}>")) as server:
        behind(server)
        assert not retried(failure(merge(rows=rows, **key), store))
        killed(store)
        assert "1 refused" in str(failure(merge(rows=rows, **key), store))
        assert copies(server) == {JANE: 1, JIM: 1}
        attempt(merge(rows=mended, **key), store)
        assert copies(server) == {JANE: 1, JIM: 1, "joan2@corp.example": 1}


def test_a_row_in_the_place_of_a_failed_one_is_not_mended_if_it_is_one_of_the_others(behind: Behind) -> None:
    """It would get its mail a second time."""
    store, rows = Kept(), [{"email": "nobody", "name": "x"}, *ROWS]
    with Server() as server:
        behind(server)
        failure(merge(rows=rows), store)
        assert "row 1 is a different one" in str(failure(merge(rows=[ROWS[2], *ROWS[:2], rows[0]]), store))
        assert copies(server) == {JANE: 1, JIM: 1, JOAN: 1}


# --- What is not known.


def test_rows_without_an_answer_are_named_on_every_try_and_not_sent_again(behind: Behind, tmp_path: Path) -> None:
    """Until `on_unknown` is `retry`."""
    store, report = Kept(), str(tmp_path / "report.jsonl")
    with Server(at_first(1, STORE_AND_HANG_UP, MESSAGE)) as server:
        behind(server)
        assert not retried(failure(merge(report_file=report), store))
        error = failure(merge(report_file=report), store)
        assert not retried(error)
        assert "2 accepted, 1 unknown of 3 rows" in str(error)
        assert "row 1" in str(error)
        assert copies(server) == {JANE: 1, JIM: 1, JOAN: 1}
        attempt(merge(on_unknown="retry"), store)
        assert copies(server) == {JANE: 2, JIM: 1, JOAN: 1}
        assert len(set(ids(server))) == 3  # the copy has the same Message-ID
    assert [line["outcome"] for line in lines(tmp_path / "report.jsonl")].count("unknown") == 1


@pytest.mark.parametrize(
    ("answer", "fields", "said_too"),
    [
        ("550 5.1.1 no such user", {}, "550"),
        ("451 later", {}, "451"),
        ("", {"attachments": "/nowhere/{{ row.name }}.csv"}, "/nowhere/Jane.csv"),
        ("", {"subject": "{{ row.nothing }}"}, "no column 'nothing'"),
    ],
)
def test_a_row_that_may_have_arrived_is_never_said_to_be_refused_or_not_made(
    answer: str, fields: dict[str, str], said_too: str, behind: Behind, tmp_path: Path
) -> None:
    """Although the requested copy was."""
    store, report, said = Kept(), str(tmp_path / "report.jsonl"), [STORE_AND_HANG_UP]

    def decide(heard: str) -> str | None:
        if said:
            return said.pop() if heard == MESSAGE else None
        return (answer or None) if heard == f"RCPT TO:<{JANE}>" else None

    with Server(decide) as server:
        behind(server)
        failure(merge(on_unknown="retry"), store)
        error = failure(merge(on_unknown="retry", report_file=report, retry_for=0.2, **fields), store)
        assert retried(error)
        assert "1 unknown of 3 rows" in str(error)
        assert copies(server) == {JANE: 1, JIM: 1, JOAN: 1}
    (line,) = (line for line in lines(tmp_path / "report.jsonl") if line["row"] == 1)
    assert line["outcome"] == "unknown"
    assert "by an earlier attempt" in line["error"]
    assert said_too in line["error"]


def test_after_a_kill_the_rows_of_the_window_are_in_doubt_and_the_others_are_sent(
    behind: Behind, tmp_path: Path
) -> None:
    """Each is named, once."""
    store, rows = Kept(), people(20)
    with Server() as server:
        behind(server)
        attempt(merge(rows=rows[:10]), store)
        interrupted(store, "a7o3")
        report = str(tmp_path / "report.jsonl")
        error = failure(merge(rows=rows, report_file=report), store)
        assert not retried(error)
        assert "17 accepted, 3 unknown of 20 rows" in str(error)
        assert "17 accepted, 3 unknown of 20 rows" in str(failure(merge(rows=rows, report_file=report), store))
        assert set(copies(server).values()) == {1}
        in_doubt = [line for line in lines(tmp_path / "report.jsonl") if line["outcome"] == "unknown"]
        assert [line["message_id"] for line in in_doubt] == ids(server)[7:10]
    told = Counter((line["row"], line["outcome"]) for line in lines(tmp_path / "report.jsonl"))
    assert [row for row, outcome in told if outcome == "unknown"] == [8, 9, 10]
    assert set(told.values()) == {1}


@pytest.mark.parametrize("state", ["o", "u"])
@pytest.mark.parametrize("max_tries", [1, 2], ids=["retried", "cleared"])
def test_who_has_the_mail_of_a_row_in_doubt_is_named_in_every_try_and_in_the_report(
    state: str, max_tries: int, behind: Behind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its Message-ID is in the server's log because of Jane, so that it has to be looked for by Jim's name."""
    store, report = Kept(), tmp_path / "report.jsonl"
    rows = [{"email": f"{JANE}; {JIM}; {JOAN}", "name": "all"}]
    with Server(until([True], "550 5.1.1 no", f"RCPT TO:<{JOAN}>")) as server:
        behind(server)
        failure(merge(rows=rows), store, try_number=1, max_tries=1)
        interrupted(store, state)
        block = json.loads(store.values["smtpcm/0/0"])
        block["rest"]["0"]["accepted"] = [JANE]
        store.values["smtpcm/0/0"] = json.dumps(block)
        report.write_text('{"row": 9}\n')  # else each attempt has a file of its own
        error = str(failure(merge(rows=rows, report_file=str(report)), store, try_number=2, max_tries=max_tries))
        assert f"It was accepted for {JANE}. It was refused for {JOAN}. Look for its delivery to " in error
        assert ("ended without recording its result" in error) == (state == "o")
        again = str(failure(merge(rows=rows, report_file=str(report)), store, try_number=3, max_tries=max_tries))
        assert "got no final reply in an earlier attempt. It is not sent again, since it may have been " in again
        assert f"delivered to the other recipients. It was accepted for {JANE}. " in again
        assert copies(server) == {JANE: 1, JIM: 1}
    _, line = lines(report)
    assert (line["outcome"], line["accepted"], [*line["refused"]]) == ("unknown", [JANE], [JOAN])
    assert f"may have been delivered to {JIM}. It was accepted for {JANE}. It was refused for {JOAN}." in line["error"]
    assert f"Look for its delivery to {JIM} in the server's log" in line["error"]
    if state == "o":
        (logged,) = (record.message for record in caplog.records if record.message.startswith("Row 1: unknown"))
        assert line["error"] in logged


def test_who_has_the_mail_of_a_row_in_doubt_is_named_also_where_the_rows_have_changed(
    behind: Behind, tmp_path: Path
) -> None:
    """By the ledger, since the row is elsewhere now."""
    store, report = Kept(), tmp_path / "report.jsonl"
    rows = [{"email": f"{JANE}; {JIM}", "name": "both"}, ROWS[2]]
    with Server(until([True], "550 5.1.1 no", f"RCPT TO:<{JIM}>")) as server:
        behind(server)
        failure(merge(rows=rows), store)
        interrupted(store, "oa")
        block = json.loads(store.values["smtpcm/0/0"])
        block["rest"] = {"0": {"accepted": [JANE], "lost": {}}}
        store.values["smtpcm/0/0"] = json.dumps(block)
        assert "have changed" in str(failure(merge(rows=rows[::-1], report_file=str(report)), store))
    (line,) = (line for line in lines(report) if line["outcome"] == "unknown")
    assert (line["row"], line["accepted"]) == (1, [JANE])
    assert f"may have been delivered to {JIM}. It was accepted for {JANE}." in line["error"]


def test_who_has_the_mail_of_a_row_in_doubt_is_named_where_it_can_no_longer_be_made(
    behind: Behind, tmp_path: Path
) -> None:
    """A file is missing when its copy is requested."""
    store, report = Kept(), tmp_path / "report.jsonl"
    rows = [{"email": f"{JANE}; {JIM}", "name": "both"}]
    with Server(until([True], "550 5.1.1 no", f"RCPT TO:<{JIM}>")) as server:
        behind(server)
        failure(merge(rows=rows), store, try_number=1, max_tries=1)
        interrupted(store, "u")
        task = merge(rows=rows, on_unknown="retry", subject="{{ row.nothing }}", report_file=str(report))
        failure(task, store, try_number=2, max_tries=1)
    (line,) = lines(report)
    assert (line["outcome"], line["accepted"], [*line["refused"]]) == ("unknown", [JANE], [JIM])
    assert f"It was accepted for {JANE}. It was refused for {JIM}. This attempt: " in line["error"]


# --- What is left.


def test_of_a_row_that_some_have_the_others_get_the_same_mail(behind: Behind) -> None:
    """Under its Message-ID; the other rows are left alone."""
    store, busy = Kept(), [True]
    rows = [{"email": f"{JANE}; {JIM}", "name": "both"}, {"email": JOAN, "name": "Joan"}]
    with Server(until(busy, "450 4.2.0 later", f"RCPT TO:<{JIM}>")) as server:
        behind(server)
        assert retried(failure(merge(rows=rows), store))
        busy.clear()
        result = attempt(merge(rows=rows), store)
        assert result["counts"]["accepted"] == 2
        assert copies(server) == {JANE: 1, JIM: 1, JOAN: 1}
        assert len(set(ids(server))) == 2


def test_once_the_lost_recipient_of_a_row_was_mended_the_cleared_task_sends_to_it_alone(behind: Behind) -> None:
    """Its key identifies the row."""
    store, key = Kept(), {"row_key": "{{ row.name }}"}
    with Server(at_first(1, "550 5.1.1 no", f"RCPT TO:<{JIM}>")) as server:
        behind(server)
        failure(merge(rows=[{"email": f"{JANE}; {JIM}", "name": "both"}], **key), store)
        result = attempt(merge(rows=[{"email": f"{JANE}; {JOAN}", "name": "both"}], **key), store)
        assert result["counts"]["accepted"] == 1
        assert copies(server) == {JANE: 1, JOAN: 1}


def test_once_the_lost_recipient_of_a_row_was_taken_out_nobody_is_mailed_again(behind: Behind) -> None:
    """All who are left have it."""
    store, key = Kept(), {"row_key": "{{ row.name }}"}
    with Server(at_first(1, "550 5.1.1 no", f"RCPT TO:<{JIM}>")) as server:
        behind(server)
        failure(merge(rows=[{"email": f"{JANE}; {JIM}", "name": "both"}], **key), store)
        result = attempt(merge(rows=[{"email": JANE, "name": "both"}], **key), store)
        assert (result["counts"]["accepted"], result["settled_earlier"]) == (1, 1)
        assert copies(server) == {JANE: 1}


def test_a_merge_that_was_done_sends_all_anew_when_it_is_cleared(behind: Behind) -> None:
    """Under new Message-IDs, whatever it is retried with then."""
    store, busy = Kept(), []
    with Server(until(busy, "450 4.2.0 later", f"RCPT TO:<{JOAN}>")) as server:
        behind(server)
        attempt(merge(), store)
        busy.append(True)
        assert retried(failure(merge(), store))
        busy.clear()
        attempt(merge(), store)
        assert copies(server) == {JANE: 2, JIM: 2, JOAN: 2}
        assert len(set(ids(server))) == 6


@pytest.mark.parametrize("window", [1, None])
def test_what_passes_within_a_try_needs_no_other(window: int | None, behind: Behind) -> None:
    """Refusals, and lost connections."""
    with Server(at_first(5, "451 4.3.0 later", MESSAGE)) as server:
        behind(server)
        result = attempt(merge(rows=people(30), retry_for=10, ledger_window=window, connections=2), Kept())
        assert result["counts"]["accepted"] == 30
        assert set(copies(server).values()) == {1}
        assert len(copies(server)) == 30


# --- Failures before sending begins.


class Failing(Kept):
    """A store that accepts a number of writes, and then none until it is repaired."""

    takes: int | None = None

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        """As long as it does."""
        if self.takes == 0:
            raise ConnectionError("the API server is away")
        self.takes = None if self.takes is None else self.takes - 1
        super().set(key, value, retention=retention)


@pytest.mark.parametrize("takes", [0, 1, 2], ids=["at its ledger", "at its head", "at its first row"])
def test_a_cleared_try_that_breaks_down_leaves_the_other_chance_to_the_next_one(
    takes: int, behind: Behind, tmp_path: Path
) -> None:
    """The mailboxes are fixed once; and no report ever says of a mail that someone has that no one does."""
    store, broken, report = Failing(), [True], str(tmp_path / "report.jsonl")
    rows = [{"email": f"{JANE}; {JIM}", "name": "both"}, {"email": JOAN, "name": "Joan"}]
    with Server(until(broken, "550 5.1.1 no such user", f"RCPT TO:<{JIM}>")) as server:
        behind(server)
        assert not retried(failure(merge(rows=rows, report_file=report), store, try_number=1, max_tries=0))
        broken.clear()
        store.takes = takes
        assert retried(failure(merge(rows=rows, report_file=report), store, try_number=2, max_tries=2))
        told = {line["row"]: (line["outcome"], line["accepted"]) for line in lines(tmp_path / "report.jsonl")}
        assert told[1] == ("partial", [JANE])
        store.takes = None
        result = attempt(merge(rows=rows, report_file=report), store, try_number=3, max_tries=2)
        assert result["counts"]["accepted"] == 2
        assert copies(server) == {JANE: 1, JIM: 1, JOAN: 1}
    last = {line["row"]: (line["outcome"], line["accepted"]) for line in lines(tmp_path / "report.jsonl")}
    assert last == {1: ("accepted", [JANE, JIM]), 2: ("accepted", [JOAN])}


def test_a_row_that_was_mended_is_still_sent_by_the_try_after_a_cleared_one_that_broke_down(behind: Behind) -> None:
    """The row has changed, and no one has its mail."""
    store, mended = Failing(), [*ROWS[:2], {**ROWS[2], "email": "joan2@corp.example"}]
    with Server(at_first(1, "550 5.1.1 no", f"RCPT TO:<{JOAN}>")) as server:
        behind(server)
        assert not retried(failure(merge(), store, try_number=1, max_tries=0))
        store.takes = 2
        assert retried(failure(merge(rows=mended), store, try_number=2, max_tries=2))
        store.takes = None
        attempt(merge(rows=mended), store, try_number=3, max_tries=2)
        assert copies(server) == {JANE: 1, JIM: 1, "joan2@corp.example": 1}


def test_who_has_a_row_s_mail_is_told_although_the_others_cannot_be_asked_again(behind: Behind, tmp_path: Path) -> None:
    """They were about to be sent, and the store did not record it."""
    store, rows = Kept(), [{"email": f"{JANE}; {JIM}", "name": "both"}]

    def refuse(about: str) -> str | None:
        if about != f"RCPT TO:<{JIM}>":
            return None
        store.failures = 99
        return "450 4.2.0 later"

    with Server(refuse) as server:
        behind(server)
        assert retried(failure(merge(rows=rows, retry_for=10, report_file=str(tmp_path / "report.jsonl")), store))
        assert copies(server) == {JANE: 1}
    (line,) = lines(tmp_path / "report.jsonl")
    assert (line["outcome"], line["accepted"]) == ("partial", [JANE])
    assert list(line["refused"]) == [JIM]


@pytest.mark.parametrize("on_refused", ["fail", "warn"])
def test_a_task_that_is_told_to_end_before_it_asks_the_others_is_not_done(
    on_refused: str, behind: Behind, tmp_path: Path
) -> None:
    """They were not refused, so that no warning is enough."""
    rows = [{"email": f"{JANE}; {JIM}", "name": "both"}]
    killed = merge(rows=rows, on_refused=on_refused, report_file=str(tmp_path / "report.jsonl"))

    class Interrupting(Kept):
        asks = False

        def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
            if self.asks and key == "smtpcm/0/0" and value["states"] == "o":
                killed.on_kill()
                time.sleep(0.1)
            super().set(key, value, retention=retention)

    store = Interrupting()
    with Server(at_first(1, "450 4.2.0 later", f"RCPT TO:<{JIM}>")) as server:
        behind(server)
        assert retried(failure(merge(rows=rows), store))
        store.asks = True
        error = failure(killed, store)
        assert retried(error), error
        store.asks = False
        (line,) = lines(tmp_path / "report.jsonl")
        assert (line["outcome"], line["accepted"]) == ("partial", [JANE])
        assert f"was accepted for {JANE}, who will receive it, and not sent to {JIM}" in line["error"]
        assert attempt(merge(rows=rows), store)["counts"]["accepted"] == 1
        assert copies(server) == {JANE: 1, JIM: 1}


def test_what_may_have_been_delivered_is_not_called_unsent_because_it_is_not_sent_again(
    behind: Behind, tmp_path: Path
) -> None:
    """It was to be, and the store went away before."""
    store, report = Failing(), str(tmp_path / "report.jsonl")
    task: dict[str, Any] = {"rows": ROWS[:1], "on_unknown": "retry", "report_file": report}
    with Server(at_first(1, STORE_AND_HANG_UP, MESSAGE)) as server:
        behind(server)
        assert retried(failure(merge(**task), store))
        store.takes = 1  # the head
        assert retried(failure(merge(**task), store))
        assert [line["outcome"] for line in lines(tmp_path / "report.jsonl")] == ["unknown", "unknown"]
        assert copies(server) == {JANE: 1}


def test_a_row_that_some_have_is_not_sent_to_them_again_because_one_try_could_not_make_its_mail(
    behind: Behind, tmp_path: Path
) -> None:
    """A share was unavailable: the row is not forgotten."""
    store, text, report = Kept(), tmp_path / "text.txt", tmp_path / "report.jsonl"
    rows = [{"email": f"{JANE}; {JIM}", "name": "both", "file": str(text)}]
    task: dict[str, Any] = {"rows": rows, "text_file": "{{ row.file }}", "report_file": str(report)}
    text.write_text("Well.")
    with Server(at_first(1, "450 4.2.0 later", f"RCPT TO:<{JIM}>")) as server:
        behind(server)
        assert retried(failure(merge(**task), store))
        text.unlink()
        failure(merge(**task), store)
        told = lines(report)[-1]
        assert (told["outcome"], told["accepted"]) == ("failed", [JANE])
        text.write_text("Well.")
        assert attempt(merge(**task), store)["counts"]["accepted"] == 1
        assert copies(server) == {JANE: 1, JIM: 1}


# --- What breaks in.


def signaling(signal_number: signal.Signals, *at: int) -> Server:
    """A server that sends this process a signal in the middle of a mail, each time it has stored a number of mails."""
    moments = list(at)

    def decide(about: str) -> str | None:
        if about == MESSAGE and moments and len(server.stored) >= moments[0]:
            moments.pop(0)
            os.kill(os.getpid(), signal_number)
        return None

    server = Server(decide)
    return server


@pytest.mark.parametrize("connections", [1, 3])
def test_a_task_that_is_told_to_end_by_a_signal_leaves_nothing_in_doubt(connections: int, behind: Behind) -> None:
    """Again and again in the middle of its rows, with a store that takes its time: in the end each was sent once."""
    store, rows = Kept(seconds=0.01), people(800)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with signaling(signal.SIGTERM, 50, 120, 200, 333, 600) as server:
            behind(server)
            for _ in range(5):
                task = merge(rows=rows, connections=connections)
                signal.signal(signal.SIGTERM, lambda _number, _frame, task=task: task.on_kill())
                error = failure(task, store)
                assert retried(error), error
                assert "the task was asked to end" in str(error)
                assert "unknown" not in str(error)
            result = attempt(merge(rows=rows, connections=connections), store)
            assert (result["counts"]["accepted"], result["counts"]["unknown"]) == (800, 0)
            assert result["settled_earlier"] >= 600
            assert copies(server) == Counter({row["email"]: 1 for row in rows})
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_time_limit_in_the_middle_doubts_few_and_doubles_nobody(behind: Behind, tmp_path: Path) -> None:
    """Airflow's own, at any moment; the next attempt sends the others."""
    store, rows, report = Kept(), people(400), str(tmp_path / "report.jsonl")
    with signaling(signal.SIGALRM, 150) as server:
        behind(server)
        with pytest.raises(AirflowException, match="AirflowTaskTimeout") as caught, timeout(60):
            attempt(merge(rows=rows, report_file=report), store)
        assert retried(caught.value)
        error = failure(merge(rows=rows, report_file=report), store)
        assert not retried(error)
        assert max(copies(server).values()) == 1
        told = {line["row"]: line["outcome"] for line in lines(tmp_path / "report.jsonl")}
        doubted = [row for row, outcome in told.items() if outcome == "unknown"]
        assert 1 <= len(doubted) <= 4
        assert {row["email"] for number, row in enumerate(rows, 1) if number not in doubted} <= copies(server).keys()


def test_a_merge_ends_before_its_time_limit_and_goes_on_in_the_next_try(behind: Behind) -> None:
    """So that nothing is in doubt."""
    store = Kept()

    def rows() -> Iterator[dict[str, str]]:
        for row in people(60):
            time.sleep(0.02)
            yield row

    with Server() as server:
        behind(server)
        error = failure(merge(rows=rows(), execution_timeout=timedelta(seconds=0.7)), store)
        assert retried(error)
        assert "its execution_timeout is nearly over" in str(error)
        assert attempt(merge(rows=people(60)), store)["counts"]["accepted"] == 60
        assert set(copies(server).values()) == {1}
        assert len(server.stored) == 60


def test_a_store_that_goes_away_in_the_middle_ends_the_sending(behind: Behind) -> None:
    """What was sent and not recorded is in doubt, at most the window; no one gets it twice."""
    store, rows = Kept(), people(400)
    with Server() as server:

        def go_away(about: str) -> str | None:
            store.failures = 99 if about == MESSAGE and len(server.stored) == 100 else store.failures
            return None

        server._decide = go_away
        behind(server)
        error = failure(merge(rows=rows, ledger_window=20), store)
        assert retried(error)
        assert "does not answer" in str(error)
        assert len(server.stored) <= 120
        store.failures = 0
        server._decide = None
        error = failure(merge(rows=rows, ledger_window=20), store)
        found = re.search(r"(\d+) accepted, (\d+) unknown of 400 rows", str(error))
        assert found is not None
        assert int(found[2]) <= 20
        assert set(copies(server).values()) == {1}
        assert len(server.stored) >= 380


def test_rows_that_break_are_retried_from_where_they_broke(behind: Behind) -> None:
    """A share that was busy."""
    store = Kept()

    def rows(*, broken: bool) -> Iterator[dict[str, str]]:
        for at, row in enumerate(people(30)):
            if broken and at == 20:
                raise OSError("the share is busy")
            yield row

    with Server() as server:
        behind(server)
        error = failure(merge(rows=rows(broken=True)), store)
        assert retried(error)
        assert "20 accepted of 20 rows" in str(error)
        result: Any = attempt(merge(rows=rows(broken=False)), store)
        assert (result["counts"]["accepted"], result["settled_earlier"]) == (30, 20)
        assert set(copies(server).values()) == {1}


# --- With Airflow's own store.


def test_airflow_s_own_store_keeps_the_ledger_from_try_to_try(behind: Behind, run_dag: Callable[[DAG], Any]) -> None:
    """The second attempt sends only the rest; if the task is cleared after that, everything is sent again."""
    with Server(at_first(1, "450 4.2.0 later", f"RCPT TO:<{JOAN}>")) as server:
        behind(server)
        with DAG("merge_tries", schedule=None) as dag:
            merge(retries=1, retry_delay=timedelta(0))
        run = run_dag(dag)
        instance = run.get_task_instance("send")
        if not hasattr(execution_context, "TaskStateStoreAccessor"):  # Airflow 3.1, 3.2
            assert (str(instance.state), instance.try_number) == ("failed", 1)
            assert copies(server) == {JANE: 1, JIM: 1}
            return
        assert (str(instance.state), instance.try_number) == ("success", 2)
        assert instance.max_tries == 1  # what a retry leaves, and a clear changes
        assert copies(server) == {JANE: 1, JIM: 1, JOAN: 1}
        assert [stored.recipients for stored in server.stored] == [(JANE,), (JIM,), (JOAN,)]

        assert cleared_and_run(instance, dag) == 2 + 1
        assert copies(server) == {JANE: 2, JIM: 2, JOAN: 2}
        assert len(set(ids(server))) == 6


def test_airflow_s_own_store_is_resumed_when_a_task_is_cleared_that_failed(
    behind: Behind, run_dag: Callable[[DAG], Any]
) -> None:
    """The cause of the permanent refusals was fixed."""
    with Server(at_first(1, "550 5.1.1 no", f"RCPT TO:<{JOAN}>")) as server:
        behind(server)
        with DAG("merge_cleared", schedule=None) as dag:
            merge(retries=3, retry_delay=timedelta(0))
        instance = run_dag(dag).get_task_instance("send")
        assert (str(instance.state), instance.try_number) == ("failed", 1)
        cleared_and_run(instance, dag)
        had = 1 if hasattr(execution_context, "TaskStateStoreAccessor") else 2  # Airflow 3.1 and 3.2 keep nothing
        assert copies(server) == {JANE: had, JIM: had, JOAN: 1}


def test_airflow_changes_max_tries_where_a_task_is_cleared_and_nowhere_else(
    behind: Behind, run_dag: Callable[[DAG], Any]
) -> None:
    """The ledger tells a clear from a retry by it."""
    from airflow.models.taskinstance import clear_task_instances
    from airflow.utils.session import create_session

    with Server(until([True], "550 5.1.1 no", "RCPT")) as server:
        behind(server)
        with DAG("merge_max_tries", schedule=None) as dag:
            merge(retries=2, retry_delay=timedelta(0))
        instance = run_dag(dag).get_task_instance("send")
    with create_session() as session:
        instance = session.merge(instance)
        instance.task = dag.get_task("send")
        seen = [(str(instance.state), instance.max_tries)]

        def do(change: Callable[[], object], state: str) -> None:
            instance.state = state
            session.flush()
            change()
            seen.append((str(instance.state), instance.max_tries))

        def fail() -> None:  # what the scheduler does if an executor reports it, or no heartbeat has come
            instance.handle_failure("no heartbeat", session=session)

        do(fail, "running")
        do(lambda: clear_task_instances([instance], session), "running")
        do(fail, "restarting")
        do(lambda: instance.set_state("failed", session=session), "running")
        do(lambda: clear_task_instances([instance], session), "failed")
    assert seen == [
        ("failed", 2),
        ("up_for_retry", 2),
        ("restarting", 2),
        ("up_for_retry", 2),
        ("failed", 2),
        ("None", 1 + 2),
    ]


def test_airflow_has_a_store_from_3_3_on_that_takes_what_never_expires() -> None:
    """It looks at the very object; an Airflow that has no store has no such name either."""
    has_store = hasattr(execution_context, "TaskStateStoreAccessor")
    assert has_store == (AIRFLOW_VERSION >= (3, 3))
    assert getattr(execution_context, "NEVER_EXPIRE", None) is (timedelta.max if has_store else None)


def cleared_and_run(instance: Any, dag: DAG) -> int:
    """What clearing a task in the UI comes to, and its next try; returns its `max_tries`."""
    from airflow.models.taskinstance import clear_task_instances
    from airflow.sdk.definitions.dag import _run_task
    from airflow.utils.session import create_session

    with create_session() as session:
        instance = session.merge(instance)
        clear_task_instances([instance], session)
        instance.dag_run.start_date = datetime.now(UTC)  # the scheduler's part, which Airflow 3.1 insists on
        instance.try_number += 1
        session.flush()
        session.commit()
        max_tries: int = instance.max_tries
        _run_task(ti=instance, task=dag.get_task("send"))
    return max_tries
