"""A condition in a flow, as SSIS has it on the arrow between two tasks. Knows no mail."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.operators._rendering import RenderedOperator

try:
    from airflow.sdk.exceptions import AirflowSkipException
except ImportError:  # Airflow 3.1 has it elsewhere
    from airflow.exceptions import AirflowSkipException  # type: ignore[no-redef]

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class OnlyIfOperator(RenderedOperator):
    """Succeed if a condition holds, or else be skipped; what comes after goes by its own trigger rule.

    SSIS has such conditions as expressions of precedence constraints. A `ShortCircuitOperator` would skip what follows
    even where one of several ways to it is enough.

    Args:
        condition: a template that gives `True` or `False`.

    Raises:
        AirflowSkipException: it does not hold.
        ValueError: it gives something else.
    """

    template_fields: Sequence[str] = ("condition",)
    ui_color = "#fdf3d8"

    def __init__(self, *, condition: str | bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.condition = condition

    def execute(self, context: Context) -> None:  # noqa: ARG002
        """Look at the condition."""
        answer = str(self.condition).strip().lower()
        if answer not in ("true", "false"):
            raise ValueError(f"The condition gives {self.condition!r:.80}; it has to give True or False.")
        if answer == "false":
            raise AirflowSkipException("The condition does not hold.")
        log.info("The condition holds.")
