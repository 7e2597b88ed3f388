"""SSIS's System variables in Airflow: in the fields of a task, and in those of a callback's `SendMailNotifier`.

Microsoft: "System Variables". A callback's templates know `alert`, the `Event` of `notifications`, each of whose facts
is there in every context, or None; so its expressions ask for nothing that may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_smtpcm.ssis.expressions.pieces import JinjaName, quoted
from airflow_provider_smtpcm.ssis.expressions.types import DataType, NotTranslatable

_STR, _INT, _BOOL, _DATE = DataType.WSTR, DataType.I4, DataType.BOOL, DataType.DATE


class Place(StrEnum):
    """Where a template stands."""

    TASK = "task"
    CALLBACK = "callback"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemVariable:
    """A System variable.

    Args:
        name: with its case.
        type: what SSIS gives.
        task, callback: the Jinja expression there; None: there is none.
        note: what differs from SSIS.
        reason: why there is none.
        remedy: what a person can do instead.
        designed: whether the package file has the value, which is then the same in every run.
    """

    name: str
    type: DataType
    task: str | None = None
    callback: str | None = None
    note: str = ""
    reason: str = ""
    remedy: str = "Take it out of the expression, or write the value into the DAG."
    designed: bool = False


def _designed(name: str, type_: DataType = _STR) -> SystemVariable:
    return SystemVariable(
        name=name,
        type=type_,
        designed=True,
        reason=f"System::{name} is a property of the package file, and it is not known here.",
    )


def _handler_only(name: str, type_: DataType, callback: str, note: str) -> SystemVariable:
    return SystemVariable(
        name=name,
        type=type_,
        callback=callback,
        note=note,
        reason=f"System::{name} exists in an event handler only, and a task does not know which task failed.",
        remedy="Send the mail from an on_failure_callback by a SendMailNotifier.",
    )


def _gone(name: str, type_: DataType, reason: str) -> SystemVariable:
    return SystemVariable(name=name, type=type_, reason=f"System::{name} {reason}")


_RUN_START = "dag_run.start_date if dag_run is defined and dag_run else alert.started"
_MESSAGE = "alert.exception.message if alert.exception else (alert.reason or '')"
_TABLE = (
    SystemVariable(
        name="PackageName",
        type=_STR,
        task="dag.dag_id",
        callback="alert.dag_id or ''",
        note="System::PackageName is the id of the DAG.",
    ),
    SystemVariable(
        name="TaskName",
        type=_STR,
        task="ti.task_id",
        note="System::TaskName is the id of the task.",
        reason="System::TaskName names the Send Mail task itself, and in a callback there is none.",
        remedy="Use System::SourceName, the task that failed, or write the name as text.",
    ),
    SystemVariable(
        name="TaskID",
        type=_STR,
        task="ti.task_id",
        note="System::TaskID is the id of the task, no GUID.",
        reason="System::TaskID is that of the Send Mail task itself, and in a callback there is none.",
        remedy="Use System::SourceID, the task that failed.",
    ),
    SystemVariable(
        name="MachineName",
        type=_STR,
        task="ti.hostname",
        callback="alert.host or ''",
        note="System::MachineName is the Airflow worker that ran the task.",
    ),
    SystemVariable(
        name="StartTime",
        type=_DATE,
        task="dag_run.start_date",
        callback=_RUN_START,
        note="System::StartTime is the start of the DAG run, in the local time of the worker, in the form of the US.",
    ),
    SystemVariable(
        name="ContainerStartTime",
        type=_DATE,
        task="ti.start_date",
        callback="alert.started",
        note="System::ContainerStartTime is the start of the task.",
    ),
    SystemVariable(
        name="ExecutionInstanceGUID",
        type=_STR,
        task="dag_run.run_id",
        callback="alert.run_id or ''",
        note="System::ExecutionInstanceGUID is the id of the DAG run, no GUID.",
    ),
    SystemVariable(
        name="InteractiveMode", type=_BOOL, task="false", callback="false", note="Nobody runs a DAG in a designer."
    ),
    SystemVariable(name="OfflineMode", type=_BOOL, task="false", callback="false"),
    SystemVariable(name="IgnoreConfigurationsOnLoad", type=_BOOL, task="false", callback="false"),
    SystemVariable(name="FailedConfigurations", type=_STR, task="''", callback="''"),
    _designed("PackageID"),
    _designed("CreationDate", _DATE),
    _designed("CreatorComputerName"),
    _designed("CreatorName"),
    _designed("LocaleID", _INT),
    _designed("VersionBuild", _INT),
    _designed("VersionComment"),
    _designed("VersionGUID"),
    _designed("VersionMajor", _INT),
    _designed("VersionMinor", _INT),
    _designed("TaskTransactionOption", _INT),
    _designed("CreationName"),
    SystemVariable(
        name="UserName",
        type=_STR,
        task="dag_run.triggering_user_name or task.owner",
        callback="alert.owner or ''",
        note="System::UserName is who triggered the run, or the task's owner; no Windows account.",
    ),
    _gone("ServerExecutionID", DataType.I8, "is a number of the SSIS catalog."),
    _gone("CancelEvent", _INT, "is a handle of Windows."),
    _gone("ParentContainerGUID", _STR, "is the GUID of a container of SSIS."),
    _handler_only(
        "SourceName", _STR, "alert.task_id or alert.dag_id or ''", "System::SourceName is the id of the task."
    ),
    _handler_only(
        "SourceID", _STR, "alert.task_id or alert.dag_id or ''", "System::SourceID is the id of the task, no GUID."
    ),
    _handler_only(
        "SourceDescription", _STR, "alert.name or ''", "System::SourceDescription is the name of the task in its DAG."
    ),
    _handler_only(
        "ErrorDescription",
        _STR,
        _MESSAGE,
        "System::ErrorDescription is the message of the exception. SSIS raised OnError for each error, "
        "Airflow calls back once for a task.",
    ),
    _handler_only(
        "ErrorCode",
        _STR,
        "alert.exception.type if alert.exception else ''",
        "System::ErrorCode is the name of the exception, no number.",
    ),
    _handler_only(
        "EventHandlerStartTime", _DATE, "ssis.getdate()", "System::EventHandlerStartTime is the moment of the mail."
    ),
    _gone("Cancel", _BOOL, "steers an event handler of SSIS; a callback cannot stop what has failed."),
    _gone("Propagate", _BOOL, "steers which event handlers of SSIS run; a callback is called once."),
    _gone("ExecutionStatus", _BOOL, "belongs to OnExecStatusChanged, which Airflow does not have."),
    _gone("ExecutionValue", _STR, "is what a task of SSIS returns; use XCom."),
    _gone("PercentComplete", _INT, "belongs to OnProgress, which Airflow does not have."),
    _gone("ProgressCountHigh", _INT, "belongs to OnProgress, which Airflow does not have."),
    _gone("ProgressCountLow", _INT, "belongs to OnProgress, which Airflow does not have."),
    _gone("ProgressDescription", _STR, "belongs to OnProgress, which Airflow does not have."),
    _gone("VariableDescription", _STR, "belongs to OnVariableValueChanged, which Airflow does not have."),
    _gone("VariableID", _STR, "belongs to OnVariableValueChanged, which Airflow does not have."),
    _gone("VariableName", _STR, "belongs to OnVariableValueChanged, which Airflow does not have."),
    _gone("VariableValue", _STR, "belongs to OnVariableValueChanged, which Airflow does not have."),
)
SYSTEM_VARIABLES: Mapping[str, SystemVariable] = {variable.name: variable for variable in _TABLE}
# Microsoft's own page writes LocaleId, its examples LocaleID.
_ALSO = {"LocaleId": "LocaleID"}


def system_variable(name: str, place: Place, designed: Mapping[str, str | int] | None = None) -> JinjaName:
    """What a System variable is in a template.

    Args:
        name: with or without `System::`.
        place: where the template stands.
        designed: what the package file says of itself, by name: `{"PackageID": "{…}", "VersionMajor": 1}`.

    Raises:
        NotTranslatable: Airflow has nothing like it, or there is no such variable.
    """
    short = name.removeprefix("System::")
    variable = SYSTEM_VARIABLES.get(_ALSO.get(short, short))
    if variable is None:
        alike = [known for known in SYSTEM_VARIABLES if known.lower() == short.lower()]
        remedy = (
            f"Names have their case: did you mean System::{alike[0]}?" if alike else "Write the value into the DAG."
        )
        raise NotTranslatable(f"SSIS documents no variable System::{short}.", remedy=remedy)
    if designed and variable.designed and variable.name in designed:
        value = designed[variable.name]
        return JinjaName(text=quoted(value) if isinstance(value, str) else str(value), type=variable.type)
    code = variable.task if place is Place.TASK else variable.callback
    if code is None:
        raise NotTranslatable(variable.reason, remedy=variable.remedy)
    return JinjaName(text=code, type=variable.type, note=variable.note)


def is_system_variable(name: str) -> bool:
    """Whether an expression's name is that of a System variable; one without a namespace may be."""
    if "::" in name:
        return name.startswith("System::")
    return _ALSO.get(name, name) in SYSTEM_VARIABLES
