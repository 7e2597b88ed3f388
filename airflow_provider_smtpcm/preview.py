"""The command `preview`: writes the mail of a task, or of its alert, to an .eml file. It sends nothing.

The context is made as Airflow's `tasks render` makes it, and Airflow's in-process supervisor provides variables,
connections and the outputs of other tasks, as in `dag.test()`. No state of a task or a run is written.
"""

from __future__ import annotations

import os
import sys
import uuid
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from airflow_provider_smtpcm.errors import MailError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_smtpcm.mail.mime_message import AnyMail

_T = TypeVar("_T")

# The exit statuses of the command; 2 is argparse's.
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_NOT_FOUND = 3

#: The rows of a merge that are written unless others are chosen.
DEFAULT_ROWS = (1, 2, 3)


class NotFoundError(Exception):
    """The DAG, the task, the run or the alert does not exist."""


def run_preview(
    *,
    dag_id: str,
    task_id: str,
    output: Path | None,
    rows: Sequence[int],
    alert: str | None,
    run_id: str | None,
    logical_date: str | None,
    conf: dict[str, Any] | None,
    map_index: int,
) -> int:
    """Write the mails of a task, or of its alert, to files, and print what they are.

    Args:
        dag_id: the DAG, as Airflow finds it in its bundles.
        task_id: a task of ours, or any task with an alert of ours.
        output: the file; of several mails, its name gets the number of the row; None: `TASK_ID.eml`.
        rows: the numbers of the rows of a merge, from 1; empty: the first three.
        alert: `failure`, `retry` or `success`: the alert of that callback instead of the task's mail.
        run_id: an existing run, whose outputs of other tasks are used.
        logical_date: that of a run that does not exist; neither: now.
        conf: the run's configuration; None: that of the run, or none.
        map_index: of a mapped task; -1: the task is not mapped.

    Returns:
        The exit status. 0: written. 1: a mail cannot be built. 3: there is no such DAG, task, run or alert.
    """
    path = output or Path(f"{task_id}.eml")
    status = EXIT_OK
    try:
        with _task_context(
            dag_id, task_id, run_id=run_id, logical_date=logical_date, conf=conf, map_index=map_index
        ) as context:
            for row, mail in _build_mails(context, rows or DEFAULT_ROWS, alert):
                has_number = row is not None and len(rows) != 1
                file = path.with_name(f"{path.stem}-{row}{path.suffix}") if has_number else path
                try:
                    if isinstance(mail, MailError):
                        raise mail
                    mail.write_eml(file)
                except MailError as error:  # the other rows may have their mails
                    _print_error(f"{'' if row is None else f'row {row}: '}{error}")
                    status = EXIT_FAILED
                else:
                    _print(_describe(mail, file, row), sys.stdout)
    except NotFoundError as error:
        _print_error(str(error))
        return EXIT_NOT_FOUND
    except MailError as error:
        _print_error(str(error))
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - templates, functions and files of the DAG's author may raise anything
        from airflow_provider_smtpcm.operators._task import AirflowSkipException

        is_skipped = isinstance(error, AirflowSkipException)
        reason = "the task would be skipped" if is_skipped else f"the mail could not be built ({type(error).__name__})"
        _print_error(f"{reason}: {error}")
        return EXIT_FAILED
    return status


def _print_error(text: str) -> None:
    _print(f"preview: {text}", sys.stderr)


def _print(text: str, file: TextIO) -> None:
    """Print text, with `?` for what the terminal cannot show, and for control characters, which a row could have."""
    printable = "".join(character if character.isprintable() or character == "\n" else "?" for character in text)
    encoding = file.encoding or "utf-8"
    print(printable.encode(encoding, "replace").decode(encoding), file=file)


def _describe(mail: AnyMail, file: Path, row: int | None) -> str:
    """Return what the mail is, with the recipients that the file does not name: those of Bcc."""
    recipients = ", ".join(address.address for address in mail.recipients)
    files = len(mail.attachments) + len(mail.inline_images)
    return "\n".join(
        (
            f"{'' if row is None else f'Row {row}: '}from {mail.from_address} to {recipients}",
            f"  Subject: {mail.subject}",
            f"  {files} file{'' if files == 1 else 's'}, {file.stat().st_size:,} octets, written to {file}",
        )
    )


# --- The mails.


def _build_mails(
    context: Context, rows: Sequence[int], alert: str | None
) -> Iterator[tuple[int | None, AnyMail | MailError]]:
    """Yield each mail, or the error because of which there is none, and the row of a merge.

    Raises:
        NotFoundError: the task sends no mail of ours; it has no such alert; or the merge has no such row.
    """
    from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
    from airflow_provider_smtpcm.operators.send_mail import SendMailOperator

    if alert is not None:
        yield None, _find_notifier(context, alert).preview(_make_alert_context(context, alert))
        return
    context["task"].render_template_fields(context)
    task = context["ti"].task  # of a mapped task, the one that Airflow has made of it meanwhile
    if isinstance(task, SendMailOperator):
        yield None, task.preview_rendered(context)
    elif isinstance(task, MailMergeOperator):
        found = False
        for found_row, mail in task.preview_rendered(context, rows=rows):
            found = True
            yield found_row, mail
        if not found:
            raise NotFoundError(f"The rows have no row {min(rows)}.")
    else:
        raise NotFoundError(
            f"'{task.task_id}' is a {type(task).__name__}, which sends no mail of this package. To see its alert, add "
            "--alert failure."
        )


def _find_notifier(context: Context, alert: str) -> Any:
    """Return the first notifier of ours in this callback of the task, or else of its DAG."""
    from airflow_provider_smtpcm.notifications.send_mail import SendMailNotifier

    name = f"on_{alert}_callback"
    for owner in (context["task"], context["dag"]):
        callbacks = getattr(owner, name, None)  # a DAG has no on_retry_callback
        for callback in callbacks if isinstance(callbacks, list | tuple) else [callbacks]:
            if isinstance(callback, SendMailNotifier):
                return callback
    raise NotFoundError(f"Neither the task nor its DAG has a SendMailNotifier in {name}.")


def _make_alert_context(context: Context, alert: str) -> Context:
    """Return the context of a callback, as after a failure that did not happen."""
    state = {"failure": "failed", "retry": "up_for_retry", "success": "success"}[alert]
    ti: Any = context["ti"]
    ti.state = state
    ti.start_date = ti.end_date = datetime.now(UTC)
    if alert != "success":
        context["exception"] = RuntimeError("this is a preview of an alert: the task has not failed")
    return context


# --- The context of the task.


@contextmanager
def _task_context(
    dag_id: str,
    task_id: str,
    *,
    run_id: str | None,
    logical_date: str | None,
    conf: dict[str, Any] | None,
    map_index: int,
) -> Iterator[Context]:
    """Yield the context of a task, within which Airflow answers requests for outputs, variables and connections.

    Raises:
        NotFoundError: there is no such DAG, task or run.
    """
    from airflow.sdk.execution_time.supervisor import (
        InProcessSupervisorComms,
        InProcessTestSupervisor,
        set_supervisor_comms,
    )
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    try:
        from airflow.sdk.exceptions import AirflowException
    except ImportError:  # Airflow 3.1
        from airflow.exceptions import AirflowException  # type: ignore[attr-defined]
    from airflow.api_fastapi.execution_api.datamodels.taskinstance import TIRunContext
    from airflow.utils.cli import get_bagged_dag

    try:
        dag = _call_quietly(get_bagged_dag, None, dag_id)
    except AirflowException as error:
        raise NotFoundError(f"{error} To see the faults of DAG files, run: airflow dags list-import-errors") from None
    task: Any = dag.task_dict.get(task_id)
    if task is None:
        raise NotFoundError(f"The DAG '{dag_id}' has no task '{task_id}'; it has {', '.join(dag.task_dict) or 'none'}.")
    if task.is_mapped and map_index < 0:
        raise NotFoundError(f"'{task_id}' is mapped. To say which of its instances, add --map-index N, from 0.")
    run = _call_quietly(_make_run, dag_id, run_id=run_id, logical_date=logical_date, conf=conf)
    ti_id = uuid.uuid4()
    # It answers requests; there is no process to watch, and no log of one.
    nothing: Any = None
    supervisor = InProcessTestSupervisor(
        id=ti_id,
        pid=os.getpid(),
        process=nothing,
        process_log=nothing,
        client=_call_quietly(InProcessTestSupervisor._api_client),  # noqa: SLF001
    )
    supervisor.comms = InProcessSupervisorComms(supervisor=supervisor)
    with set_supervisor_comms(supervisor.comms):
        ti = RuntimeTaskInstance.model_construct(
            id=ti_id,
            dag_id=dag_id,
            task_id=task_id,
            run_id=run.run_id,
            try_number=1,
            max_tries=task.retries,
            map_index=map_index,
            task=task,
            _ti_context_from_server=TIRunContext(
                dag_run=run, max_tries=task.retries, variables=[], connections=[], xcom_keys_to_clear=[]
            ),
        )
        yield ti.get_template_context()


def _call_quietly(function: Callable[..., _T], *arguments: Any, **options: Any) -> _T:
    """Call a function of Airflow without what it logs, which would go to stdout, as `airflow tasks render` does."""
    from airflow.utils.cli import suppress_logs_and_warning

    returned: list[_T] = []

    def call(_: Namespace) -> None:
        returned.append(function(*arguments, **options))

    suppress_logs_and_warning(call)(Namespace(verbose=False))
    return returned[0]


def _make_run(dag_id: str, *, run_id: str | None, logical_date: str | None, conf: dict[str, Any] | None) -> Any:
    """Return an existing run, or one that is only in memory, as the server describes it to a task."""
    from airflow.api_fastapi.execution_api.datamodels.taskinstance import DagRun
    from airflow.cli.commands.task_command import _get_dag_run
    from airflow.utils.cli import get_db_dag
    from airflow.utils.session import create_session

    with create_session() as session:
        now = datetime.now(UTC)
        stored, is_new = _get_dag_run(
            dag=get_db_dag(None, dag_id),
            create_if_necessary="memory",
            logical_date_or_run_id=run_id or logical_date or now.isoformat(),
            session=session,
        )
        if run_id is not None and is_new:
            raise NotFoundError(f"The DAG '{dag_id}' has no run '{run_id}'.")
        fields = DagRun.model_fields
        values: dict[str, Any] = {name: None for name, field in fields.items() if field.is_required()}
        for name in (
            "dag_id",
            "run_id",
            "logical_date",
            "data_interval_start",
            "data_interval_end",
            "run_after",
            "start_date",
            "end_date",
            "run_type",
            "state",
            "conf",
            "triggering_user_name",
            "partition_key",
        ):
            value = getattr(stored, name, None)
            if name in fields and value is not None:
                values[name] = value
    values["start_date"] = values["start_date"] or now
    values["consumed_asset_events"] = []
    if conf is not None:
        values["conf"] = conf
    return DagRun(**values)
