"""What a finished merge means to Airflow: never a second mail to a recipient who has the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_smtpcm.errors import MailError, MessageError, Reply
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.merge.report import MergeReport
from airflow_provider_smtpcm.merge.result import FailurePolicy, MergeResult
from airflow_provider_smtpcm.merge.rows import Rows
from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException, airflow_error
from airflow_provider_smtpcm.smtp import Delivery, Outcome

PASSES, RETRIED, FAILED = "passes", "is retried", "fails for good"
GONE = MessageError("The share is gone.", retryable=True)


def end(outcomes: list[str], faults: list[MailError] | None = None, **tolerance: bool) -> tuple[str, str]:
    """How a task ends whose mails have these outcomes; a `*` marks a transient failure."""
    result = MergeResult(rows=Rows(iter(())), report=MergeReport(None, try_number=1, to_path=Path))
    for number, outcome in enumerate(outcomes, 1):
        error = None if outcome == "accepted" else MailError(f"No {number}.", retryable=outcome.endswith("*"))
        if outcome.startswith("failed"):
            assert error is not None
            result.add_failed(number, None, error)
        else:
            refused = {"jane@corp.example": Reply(code=550)} if outcome == "partial" else {}
            made = Delivery(
                message_id="<1@corp.example>",
                outcome=Outcome(outcome.rstrip("*").partition(",")[0]),
                refused=refused,
                error=error,
            )
            result.add_delivery(number, "k", Mail(to="jane@corp.example"), made)
    policy = FailurePolicy(**{"allow_failed": False, "allow_refused": False, "retry_unknown": False, **tolerance})
    error = policy.find_failure(result, faults or [])
    if error is None:
        return PASSES, ""
    failure = airflow_error(error)
    assert isinstance(failure, AirflowException)
    return FAILED if isinstance(failure, AirflowFailException) else RETRIED, str(failure)


@pytest.mark.parametrize(
    ("outcomes", "tolerance", "expected"),
    [
        (["accepted", "failed"], {}, FAILED),
        (["accepted", "refused"], {}, FAILED),
        (["accepted", "partial"], {}, FAILED),
        (["accepted", "unknown"], {"retry_unknown": True}, FAILED),
        (["accepted", "not_sent*"], {}, FAILED),
        (["partial", "not_sent*"], {"allow_refused": True}, FAILED),
        (["accepted", "partial, and not asked*"], {"allow_refused": True}, FAILED),
        (["unknown"], {}, FAILED),
        (["unknown", "not_sent*"], {}, FAILED),
        (["refused"], {}, FAILED),
        (["not_sent"], {}, FAILED),
        (["failed"], {}, FAILED),
        # No recipient was accepted, which no tolerance covers.
        (["failed", "failed"], {"allow_failed": True}, FAILED),
        (["refused"], {"allow_refused": True}, FAILED),
        (["failed", "refused"], {"allow_failed": True, "allow_refused": True}, FAILED),
        # A tolerated outcome does not make another one tolerated.
        (["accepted", "failed", "refused"], {"allow_failed": True}, FAILED),
        (["accepted", "failed", "refused"], {"allow_refused": True}, FAILED),
        (["accepted", "not_sent"], {"allow_failed": True, "allow_refused": True}, FAILED),
        (["accepted", "unknown"], {"allow_failed": True, "allow_refused": True}, FAILED),
        # No recipient was accepted, and the next attempt may succeed.
        (["not_sent*"], {}, RETRIED),
        (["refused*", "refused"], {}, RETRIED),
        (["failed*"], {}, RETRIED),
        (["failed", "not_sent*"], {"allow_failed": True}, RETRIED),
        (["unknown", "refused"], {"retry_unknown": True}, RETRIED),
        (["accepted", "failed"], {"allow_failed": True}, PASSES),
        (["partial", "refused", "failed"], {"allow_failed": True, "allow_refused": True}, PASSES),
        (["accepted"], {}, PASSES),
        ([], {}, PASSES),
    ],
)
def test_airflow_retries_only_where_nobody_can_get_a_mail_twice(
    outcomes: list[str], tolerance: dict[str, bool], expected: str
) -> None:
    """AirflowFailException is never retried."""
    assert end(outcomes, **tolerance)[0] == expected


def test_what_kept_the_merge_from_being_complete_fails_it_whatever_is_tolerated() -> None:
    """Rows that ended early; an incomplete report."""
    tolerance = {"allow_failed": True, "allow_refused": True}
    assert end(["accepted"], [GONE], **tolerance)[0] == FAILED
    assert end([], [MessageError("The quotation mark is not closed.")], **tolerance)[0] == FAILED
    assert end([], [GONE], **tolerance)[0] == RETRIED


def test_one_row_and_more_are_told_in_plain_words() -> None:
    """Each kind for itself."""
    told = end(["accepted", "refused", "partial", "not_sent"])[1] + end(["accepted", *["partial", "not_sent"] * 2])[1]
    for words in (
        "1 row was refused by the server;",
        "1 row was refused for some of the recipients;",
        "1 row was not sent to any recipient;",
        "2 rows were refused for some of the recipients;",
        "2 rows were not sent to any recipient;",
    ):
        assert words in told


def test_the_error_says_what_happened_to_how_many_and_what_to_do() -> None:
    """With the first of each kind."""
    assert end(["accepted", "accepted", "refused", "failed", "refused", "unknown"], [GONE])[1] == (
        "The merge is not complete: 2 accepted, 2 refused, 1 unknown, 1 failed of 6 rows.\n"
        "  - 1 row could not be turned into a mail; the first is row 4: No 4.\n"
        "  - 2 rows were refused by the server; the first is row 3: No 3.\n"
        "  - 1 row got no reply after the whole message was sent, and may have been delivered; the first is "
        "row 6: No 6.\n"
        "  - The share is gone.\n"
        "Airflow does not retry this, since a new attempt sends all rows, and mail that arrived (2 accepted, 1 in "
        "doubt) would arrive twice. Fix the cause, and send the missing rows (see 'report_file') in a separate run."
    )
    assert end(["not_sent*"])[1].endswith("Airflow retries this if 'retries' are left.")
    assert end(["unknown"], retry_unknown=True)[1].endswith("each mail keeps its Message-ID.")
    assert end(["refused"])[1].endswith("Airflow does not retry this, since it would end the same way.")


def test_what_is_let_pass_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The DAG's author chose this, and others may want to know."""
    assert end(["accepted", "failed", "failed"], allow_failed=True) == (PASSES, "")
    assert caplog.records[-1].levelname == "WARNING"
    assert "2 rows could not be turned into a mail; the first is row 2" in caplog.records[-1].getMessage()
