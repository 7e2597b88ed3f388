"""A task in place of an SSIS task that the import could not translate; it fails until somebody fills it in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_smtpcm.operators._task import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class PlaceholderOperator(BaseOperator):
    """Fail, and say which SSIS task this one stands for and what has to take its place.

    Otherwise a DAG could report by mail that a load succeeded which it never ran.

    Args:
        ssis_kind: the kind of the SSIS task, such as `Microsoft.Pipeline`.
        sets: the variables that the SSIS task sets, such as `User::Rows`. The task that takes its place pushes an XCom
            for each of them, with the name of the variable as key.
        read_by: the names of the SSIS tasks that read these variables.
        passes: whether to succeed all the same, for a walk-through of the DAG. Tasks that read the variables then use
            their design-time values.

    Raises:
        AirflowFailException: always, unless `passes`; the task is not retried.
    """

    ui_color = "#f6c6c2"

    def __init__(
        self,
        *,
        ssis_kind: str = "",
        sets: Sequence[str] = (),
        read_by: Sequence[str] = (),
        passes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ssis_kind = ssis_kind
        self.sets = list(sets)
        self.read_by = list(read_by)
        self.passes = passes

    def execute(self, context: Context) -> None:  # noqa: ARG002
        """Fail, or log what the task stands for."""
        description = f"{self.task_id!r} stands for an SSIS task"
        description += f" ({self.ssis_kind})" if self.ssis_kind else ""
        description += ", which the import could not translate. "
        if self.passes:
            log.warning("%sIt does nothing, and succeeds because of passes=True.%s", description, self._describe_sets())
            return
        raise AirflowFailException(
            f"{description}Put a task in its place that does the same work.{self._describe_sets()} To let it succeed "
            "although it does nothing, set passes=True."
        )

    def _describe_sets(self) -> str:
        if not self.sets:
            return ""
        text = f" The SSIS task sets {_join(self.sets)}"
        text += f", which {_join(self.read_by)} " if self.read_by else ", which other tasks may "
        text += "reads: " if len(self.read_by) == 1 else "read: "
        keys = "that key" if len(self.sets) == 1 else "these keys"
        return f"{text}push an XCom with {keys}."


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(map(repr, names[:-1])), repr(names[-1])]))
