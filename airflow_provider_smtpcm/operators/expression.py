"""An SSIS Expression task: it sets variables, which later tasks read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.operators._rendering import RenderedOperator
from airflow_provider_smtpcm.operators._task import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class ExpressionOperator(RenderedOperator):
    """Push an XCom for each variable, with the name of the variable as key.

    Args:
        variables: the value of each variable, by its name, such as `User::Total`: usually a
            `ssis.live_values.TypedTemplate`, which keeps the type that the variable has in SSIS. A plain template
            renders to text.

    Raises:
        AirflowFailException: a value is null, which a variable of SSIS cannot be. Readers would take the value before.
    """

    template_fields: Sequence[str] = ("variables",)
    ui_color = "#e3ecf8"

    def __init__(self, *, variables: Mapping[str, object], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.variables = dict(variables)

    def execute(self, context: Context) -> None:
        """Push the values."""
        from airflow_provider_smtpcm.ssis.live_values import to_json

        if empty := [name for name, value in self.variables.items() if value is None]:
            raise AirflowFailException(
                f"The value for {', '.join(empty)} is NULL, which a variable of SSIS cannot be. Let the expression "
                "give another value, as REPLACENULL does."
            )
        for name, value in self.variables.items():
            context["ti"].xcom_push(key=name, value=to_json(value))
            log.info("%s is set.", name)
