"""The result of a merge counts every row, names the first problems, and keeps nothing of the other rows."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.errors import (
    ConnectError,
    MailError,
    MessageError,
    OutcomeUnknownError,
    RefusedError,
    Reply,
)
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.merge import result as module
from airflow_provider_smtpcm.merge.report import MergeReport
from airflow_provider_smtpcm.merge.result import MergeResult
from airflow_provider_smtpcm.merge.rows import Rows
from airflow_provider_smtpcm.smtp import Delivery, Outcome
from tests.merge.test_report import lines

MAIL = Mail(to="jane@corp.example; jim@corp.example")
NO_SUCH_USER = Reply(code=550, enhanced="5.1.1", text="No such user")


def result_of(report: MergeReport | None = None, **source: Any) -> MergeResult:
    return MergeResult(rows=Rows(iter(()), **source), report=report or MergeReport(None, try_number=1, to_path=Path))


def delivery(outcome: Outcome = Outcome.ACCEPTED, error: MailError | None = None, **parts: Any) -> Delivery:
    return Delivery(message_id="<1@corp.example>", outcome=outcome, error=error, **parts)


def refused() -> Delivery:
    error = RefusedError("It refused the message.", reply=NO_SUCH_USER)
    return delivery(Outcome.REFUSED, error, refused={"jane@corp.example": NO_SUCH_USER})


def test_a_mail_that_could_not_be_made_after_all_is_a_row_that_failed(tmp_path: Path) -> None:
    """Its file is read only when it is sent; an unreachable server is something else."""
    report = MergeReport(tmp_path / "report.jsonl", try_number=1, to_path=Path)
    result = result_of(report)
    result.add_delivery(1, "a", MAIL, delivery(Outcome.NOT_SENT, MessageError("/nowhere/a.pdf cannot be read.")))
    result.add_delivery(2, "b", MAIL, delivery(Outcome.NOT_SENT, ConnectError("Nobody answers.")))
    report.close()
    assert (result["failed"], result["not_sent"]) == (1, 1)
    assert result.to_dict()["failed"] == [{"row": 1, "key": "a", "reason": "/nowhere/a.pdf cannot be read."}]
    assert result.retryable == {"not_sent"}
    assert [line["outcome"] for line in lines(tmp_path / "report.jsonl")] == ["failed", "not_sent"]


def test_every_row_has_its_line_in_the_report(tmp_path: Path) -> None:
    """Whatever became of it."""
    report = MergeReport(tmp_path / "report.jsonl", try_number=2, to_path=Path)
    result = result_of(report)
    result.add_delivery(1, "a", MAIL, delivery(accepted=("jane@corp.example", "jim@corp.example"), server="mail:25"))
    result.add_delivery(2, "b", MAIL, refused())
    result.add_failed(3, None, MessageError("The row has no column 'x'."))
    result.add_unknown(4, "d", MessageError("The task was interrupted."), message_id="<4@corp.example>")
    report.close()
    first, second, third, fourth = lines(tmp_path / "report.jsonl")
    assert first == {
        "try_number": 2,
        "row": 1,
        "key": "a",
        "message_id": "<1@corp.example>",
        "outcome": "accepted",
        "accepted": ["jane@corp.example", "jim@corp.example"],
        "refused": {},
        "error": None,
        "server": "mail:25",
    }
    assert second["refused"] == {"jane@corp.example": "550 5.1.1 No such user"}
    assert (third["outcome"], third["key"], third["message_id"]) == ("failed", None, None)
    assert (fourth["outcome"], fourth["message_id"]) == ("unknown", "<4@corp.example>")


def test_the_log_and_the_result_name_the_first_and_count_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """Neither is for 40,000 lines."""
    caplog.set_level("INFO")
    result = result_of()
    for number in range(1, 301):
        result.add_failed(2 * number - 1, None, MessageError(f"Row is bad {number}."))
        result.add_delivery(2 * number, "k", MAIL, refused())
    returned: Any = result.to_dict()
    assert (len(returned["failed"]), returned["failed_more"]) == (100, 200)
    assert (len(returned["refused"]), returned["refused_more"]) == (100, 200)
    assert returned["refused"][0] == {
        "row": 2,
        "key": "k",
        "recipients": ["jane@corp.example"],
        "reason": "It refused the message.",
    }
    assert returned["counts"] == {
        "rows": 600,
        "accepted": 0,
        "partial": 0,
        "refused": 300,
        "unknown": 0,
        "not_sent": 0,
        "failed": 300,
    }
    assert result.first_problem == {"failed": "row 1: Row is bad 1.", "refused": "row 2: It refused the message."}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 21
    assert "Further problems are only counted" in warnings[-1]
    assert result.summary() == "300 refused, 300 failed"


def test_the_same_trouble_of_many_rows_is_said_once_with_their_number(caplog: pytest.LogCaptureFixture) -> None:
    """An unreachable server is a long sentence, which must not hide other problems."""
    result = result_of()
    for number in range(1, 501):
        result.add_delivery(number, "k", MAIL, delivery(Outcome.NOT_SENT, ConnectError("Nobody answers.")))
    result.add_delivery(501, "k", MAIL, refused())
    result.add_delivery(502, "k", MAIL, refused())
    result.add_failed(503, None, MessageError("The row has no column 'x'."))
    result.log_repetitions()
    assert [record.getMessage() for record in caplog.records] == [
        "Row 1: not_sent: Nobody answers.",
        "Row 501: refused: It refused the message.",
        "Row 503: failed: The row has no column 'x'.",
        "Rows 2, 3, 4, 5, 6 and 494 more: not_sent, for the same reason as row 1.",
        "Row 502: refused, for the same reason as row 501.",
    ]


def test_a_row_that_may_have_been_delivered_has_a_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """Each has to be looked for in the server's log; a window may have 384."""
    result = result_of()
    for number in range(1, 257):
        result.add_unknown(number, "k", OutcomeUnknownError("No answer."), message_id=f"<{number}@corp.example>")
    result.log_repetitions()
    assert [record.getMessage() for record in caplog.records] == [
        f"Row {number}: unknown: No answer." for number in range(1, 257)
    ]


def test_who_was_asked_for_stands_in_the_result_where_the_server_named_nobody() -> None:
    """It refused the sender, or the message."""
    result = result_of()
    result.add_delivery(1, "k", MAIL, delivery(Outcome.REFUSED, RefusedError("It refused the sender.")))
    listed: Any = result.to_dict()["refused"]
    assert listed[0]["recipients"] == ["jane@corp.example", "jim@corp.example"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({}, r"10 rows done \(10 accepted\), 1\.0 a second\."),
        ({"total": 40}, r"10 of 40 rows done \(10 accepted\), 1\.0 a second, about 30 seconds to go\."),
        ({"fraction_read": lambda: 0.2}, r"10 rows done \(10 accepted\), 1\.0 a second, about 40 seconds to go\."),
        ({"fraction_read": lambda: 0.0}, r"10 rows done \(10 accepted\), 1\.0 a second\."),
    ],
)
def test_progress_is_logged_now_and_then_with_what_remains(
    source: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As far as is known."""
    caplog.set_level("INFO")
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    result = result_of(**source)
    for number in range(1, 13):
        clock[0] += 1
        result.add_delivery(number, "k", MAIL, delivery())
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("MailMergeTaskProgress: 5 ")
    caplog.clear()
    monkeypatch.undo()
    assert result.summary() == "12 accepted"
    assert re.fullmatch(f"MailMergeTaskProgress: {said}", told[1])


def test_a_merge_without_rows_has_a_result_too() -> None:
    """There was nothing to do."""
    result = result_of(total=0)
    assert result.summary() == "none"
    counts: Any = result.to_dict()["counts"]
    assert set(counts.values()) == {0}
