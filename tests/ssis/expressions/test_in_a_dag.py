"""What expressions become, in a DAG that runs: the fields of a task, and those of a callback."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_provider_smtpcm.notifications.send_mail import SendMailNotifier
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.ssis import macros
from airflow_provider_smtpcm.ssis.expressions import JinjaName, TemplateContext, resolve_system_variable, to_jinja
from airflow_provider_smtpcm.ssis.expressions.system_variables import SYSTEM_VARIABLES
from airflow_provider_smtpcm.testing import Relay

RunDag = Callable[[DAG], Any]


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """A relay behind the default connection."""
    with Relay(ssl_mode="none") as relay:
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection()))
        yield relay


def template(text: str, context: TemplateContext) -> str:
    """A field by its expression."""

    def resolve(name: str) -> JinjaName:
        if name.startswith("User::"):
            return JinjaName(code=f"params['{name.removeprefix('User::')}']")
        return resolve_system_variable(name, context)

    return to_jinja(text, resolve).template


def every_variable(context: TemplateContext) -> str:
    """An expression of all System variables that there are in a context."""
    known = [name for name, variable in SYSTEM_VARIABLES.items() if getattr(variable, context)]
    return ' + "\\n" + '.join(f'"{name}=" + (DT_WSTR,80)@[System::{name}]' for name in known)


def facts(mail: Any) -> dict[str, str]:
    """The lines of a mail's text."""
    text = mail.message.get_body(("plain",)).get_content()
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def test_the_fields_of_a_task_are_worked_out_in_its_run(relay: Relay, run_dag: RunDag) -> None:
    """Every System variable that a task has, parameters, dates, and a text that looks like a template."""
    subject = (
        '"{{ " + @[System::PackageName] + ": " + (@[User::Rows] == 0 ? "nothing" : (DT_WSTR,9)@[User::Rows] + " rows") '
        '+ " on " + (DT_WSTR,10)(DT_DBDATE)GETDATE()'
    )
    with DAG("ssis_fields", schedule=None, params={"Rows": 12}, user_defined_macros={"ssis": macros}) as dag:
        SendMailOperator(
            task_id="send",
            from_address="etl@corp.example",
            to="ops@corp.example",
            subject=template(subject, TemplateContext.TASK),
            text=template(every_variable(TemplateContext.TASK), TemplateContext.TASK),
        )
    before = dt.datetime.now(tz=dt.UTC).astimezone().date()
    run = run_dag(dag)
    assert str(run.state) == "success"
    (mail,) = relay.messages
    days = {before, dt.datetime.now(tz=dt.UTC).astimezone().date()}
    assert mail.message["Subject"] in {f"{{{{ ssis_fields: 12 rows on {day}" for day in days}
    found = facts(mail)
    assert found["PackageName"] == "ssis_fields"
    assert found["TaskName"] == "send"
    assert found["ExecutionInstanceGUID"] == run.run_id
    assert found["InteractiveMode"] == "False"
    assert found["UserName"]
    assert found["StartTime"].endswith(("AM", "PM"))
    assert set(found) == {name for name, variable in SYSTEM_VARIABLES.items() if variable.task}


def test_the_fields_of_a_callback_tell_of_the_task_that_failed(relay: Relay, run_dag: RunDag) -> None:
    """Every System variable that a handler has."""
    alert = SendMailNotifier(
        from_address="etl@corp.example",
        to="ops@corp.example",
        subject=template('@[System::SourceName] + " failed in " + @[System::PackageName]', TemplateContext.CALLBACK),
        text=template(every_variable(TemplateContext.CALLBACK), TemplateContext.CALLBACK),
    )
    with DAG("ssis_handler", schedule=None, user_defined_macros={"ssis": macros}) as dag:

        @task(on_failure_callback=alert)
        def load() -> None:
            raise ValueError("disk full")

        load()
    assert str(run_dag(dag).state) == "failed"
    (mail,) = relay.messages
    assert mail.message["Subject"] == "load failed in ssis_handler"
    found = facts(mail)
    assert set(found) == {name for name, variable in SYSTEM_VARIABLES.items() if variable.callback}
    assert found["SourceName"] == "load"
    # Before 3.3, dag.test() passes no exception; Airflow's own task runner does.
    assert found["ErrorDescription"] == "disk full" or "ErrorCode" in found
