"""A condition between two tasks, like the expression of an SSIS precedence constraint."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.operators._rendering import RenderedOperator
from airflow_provider_smtpcm.operators._task import AirflowSkipException

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class OnlyIfOperator(RenderedOperator):
    """Succeed if a condition is true, else be skipped; downstream tasks follow their own trigger rules.

    SSIS attaches such conditions to precedence constraints. Airflow's `ShortCircuitOperator` would skip downstream
    tasks even if another path to them is enough.

    Args:
        condition: a template that renders to `True` or `False`.

    Raises:
        AirflowSkipException: the condition is false.
        ValueError: it renders to something other than `True` or `False`.
    """

    template_fields: Sequence[str] = ("condition",)
    ui_color = "#fdf3d8"

    def __init__(self, *, condition: str | bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.condition = condition

    def execute(self, context: Context) -> None:  # noqa: ARG002
        """Check the condition."""
        text = str(self.condition).strip().lower()
        if text not in ("true", "false"):
            raise ValueError(f"The condition renders to {self.condition!r:.80}; it has to render to True or False.")
        if text == "false":
            raise AirflowSkipException("The condition is false.")
        log.info("The condition is true.")
