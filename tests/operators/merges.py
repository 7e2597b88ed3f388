"""Merges as the tests write them: a few rows, and a task with the least that it needs."""

from __future__ import annotations

from typing import Any

from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from airflow_provider_smtpcm.testing import Relay

ROWS = [{"email": f"{name.lower()}@corp.example", "name": name} for name in ("Jane", "Jim", "Joan")]


def merge(**fields: Any) -> MailMergeOperator:
    """A task with the least that a merge needs."""
    least = {
        "task_id": "send",
        "rows": ROWS,
        "from_address": "etl@corp.example",
        "to": "{{ row.email }}",
        "subject": "For {{ row.name }}",
        "retry_for": 0,
    }
    return MailMergeOperator(**{**least, **fields})


def rows_beside(*others: dict[str, Any]) -> list[dict[str, Any]]:
    """One valid row before each of these, and one after them."""
    well = ({"email": f"well{number}@corp.example", "name": f"{number}"} for number in range(len(others) + 1))
    return [row for other in others for row in (next(well), other)] + [next(well)]


def subjects(relay: Relay) -> list[str]:
    """Of all mails that came, in the order of the alphabet."""
    return sorted(str(received.message["Subject"]) for received in relay.messages)
