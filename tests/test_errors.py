"""What an error keeps of what led to it, and what it drops."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.errors import ConnectionLostError, MailError, clear_frames

SECRET = "correct horse\ud800"


def caught_from(cause: Exception) -> MailError:
    """An error of ours with this cause, its frames cleared."""

    def read(secret: str) -> None:
        assert secret
        raise cause

    try:
        try:
            read(SECRET)
        except Exception as error:
            raise ConnectionLostError("The connection was lost.") from error
    except MailError as error:
        clear_frames(error, None)
        return error


@pytest.mark.parametrize("cause", [ConnectionResetError(104, "Connection reset by peer"), MailError("Below it.")])
def test_an_error_keeps_a_cause_that_holds_no_secret(cause: Exception) -> None:
    """Without the variables of the frames that it has left."""
    error = caught_from(cause)
    assert error.__cause__ is cause
    traceback = cause.__traceback__
    assert traceback is not None
    assert traceback.tb_next is not None
    assert traceback.tb_next.tb_frame.f_locals == {}


@pytest.mark.parametrize("cause", [UnicodeEncodeError("utf-8", SECRET, 13, 14, "surrogate"), ValueError(SECRET)])
def test_an_error_drops_a_cause_that_may_hold_what_it_could_not_process(cause: Exception) -> None:
    """Such as a password that cannot be encoded."""
    error = caught_from(cause)
    assert error.__cause__ is None
    assert error.__context__ is None


def test_what_was_being_handled_before_stays_as_it_is() -> None:
    """Its frames are the caller's."""
    handled, error = LookupError("the row is missing"), MailError("It was not sent.")
    error.__context__ = handled
    clear_frames(error, handled)
    assert error.__context__ is handled
