"""What a failed mail means to Airflow: whether it may try the task again. Knows no SMTP."""

from __future__ import annotations

from airflow_provider_smtpcm.errors import MailError, OutcomeUnknownError

try:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # Airflow 3.1 has them elsewhere
    from airflow.exceptions import AirflowException, AirflowFailException  # type: ignore[attr-defined,no-redef]

__all__ = ["AirflowException", "AirflowFailException", "airflow_error"]


def airflow_error(error: MailError, *, retry_unknown: bool) -> AirflowException:
    """`AirflowException` where another try may succeed and cannot deliver twice, else `AirflowFailException`.

    Args:
        error: why nobody accepted the mail.
        retry_unknown: whether somebody asked to try again although the mail may have been delivered.
    """
    retry = error.retryable or (retry_unknown and isinstance(error, OutcomeUnknownError))
    return AirflowException(str(error)) if retry else AirflowFailException(str(error))
