"""The Jinja expressions of SSIS's System variables, in a task and in a callback.

See Microsoft's page "System Variables". In a callback, the templates of `SendMailNotifier` have `alert`, an `Event`.
Its attributes may be None but always exist, so these expressions never fail with an undefined name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_smtpcm.ssis.expressions.jinja import JinjaName, quote_string
from airflow_provider_smtpcm.ssis.expressions.types import DataType, NotTranslatable

_STR, _INT, _BOOL, _DATE = DataType.WSTR, DataType.I4, DataType.BOOL, DataType.DATE


class TemplateContext(StrEnum):
    """Where a template is rendered: in a task, or in a callback."""

    TASK = "task"
    CALLBACK = "callback"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemVariable:
    """A System variable.

    Args:
        name: without `System::`, case-sensitive.
        type: the SSIS type.
        task: the Jinja expression in a task; None: no equivalent.
        callback: the Jinja expression in a callback; None: no equivalent.
        note: how the value differs from SSIS's.
        reason: why there is no equivalent.
        remedy: what to do instead.
        in_package_file: whether the value is a constant in the package file.
    """

    name: str
    type: DataType
    task: str | None = None
    callback: str | None = None
    note: str = ""
    reason: str = ""
    remedy: str = "Remove it from the expression, or write the value in the DAG."
    in_package_file: bool = False


def _package_property(name: str, type_: DataType = _STR) -> SystemVariable:
    return SystemVariable(
        name=name,
        type=type_,
        in_package_file=True,
        reason=f"System::{name} is a property of the package file, and its value is not known here.",
    )


def _event_handler_variable(name: str, type_: DataType, callback: str, note: str) -> SystemVariable:
    return SystemVariable(
        name=name,
        type=type_,
        callback=callback,
        note=note,
        reason=f"System::{name} exists only in event handlers; a task does not know which task failed.",
        remedy="Send the mail from an on_failure_callback, with a SendMailNotifier.",
    )


def _unavailable(name: str, type_: DataType, reason: str) -> SystemVariable:
    return SystemVariable(name=name, type=type_, reason=f"System::{name} {reason}")


_RUN_START = "dag_run.start_date if dag_run is defined and dag_run else alert.started"
_MESSAGE = "alert.exception.message if alert.exception else (alert.reason or '')"
_VARIABLES = (
    SystemVariable(
        name="PackageName",
        type=_STR,
        task="dag.dag_id",
        callback="alert.dag_id or ''",
        note="System::PackageName is the DAG id.",
    ),
    SystemVariable(
        name="TaskName",
        type=_STR,
        task="ti.task_id",
        note="System::TaskName is the task id.",
        reason="System::TaskName is the name of the Send Mail task itself, and a callback has no such task.",
        remedy="Use System::SourceName, the task that failed, or write the name as text.",
    ),
    SystemVariable(
        name="TaskID",
        type=_STR,
        task="ti.task_id",
        note="System::TaskID is the task id, not a GUID.",
        reason="System::TaskID is the id of the Send Mail task itself, and a callback has no such task.",
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
        note="System::StartTime is the start of the DAG run, in the worker's local time and in US format.",
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
        note="System::ExecutionInstanceGUID is the id of the DAG run, not a GUID.",
    ),
    SystemVariable(
        name="InteractiveMode",
        type=_BOOL,
        task="false",
        callback="false",
        note="System::InteractiveMode is False: a DAG never runs in a designer.",
    ),
    SystemVariable(name="OfflineMode", type=_BOOL, task="false", callback="false"),
    SystemVariable(name="IgnoreConfigurationsOnLoad", type=_BOOL, task="false", callback="false"),
    SystemVariable(name="FailedConfigurations", type=_STR, task="''", callback="''"),
    _package_property("PackageID"),
    _package_property("CreationDate", _DATE),
    _package_property("CreatorComputerName"),
    _package_property("CreatorName"),
    _package_property("LocaleID", _INT),
    _package_property("VersionBuild", _INT),
    _package_property("VersionComment"),
    _package_property("VersionGUID"),
    _package_property("VersionMajor", _INT),
    _package_property("VersionMinor", _INT),
    _package_property("TaskTransactionOption", _INT),
    _package_property("CreationName"),
    SystemVariable(
        name="UserName",
        type=_STR,
        task="dag_run.triggering_user_name or task.owner",
        callback="alert.owner or ''",
        note="System::UserName is the user who triggered the run, or else the task's owner; not a Windows account.",
    ),
    _unavailable("ServerExecutionID", DataType.I8, "is the number of an execution in the SSIS catalog."),
    _unavailable("CancelEvent", _INT, "is a Windows handle."),
    _unavailable("ParentContainerGUID", _STR, "is the GUID of an SSIS container."),
    _event_handler_variable(
        "SourceName",
        _STR,
        "alert.task_name or alert.dag_id or ''",
        "System::SourceName is the name of the task in the Airflow UI.",
    ),
    _event_handler_variable(
        "SourceID", _STR, "alert.task_id or alert.dag_id or ''", "System::SourceID is the task id, not a GUID."
    ),
    _event_handler_variable(
        "SourceDescription", _STR, "alert.name or ''", "System::SourceDescription is the name of the task in its DAG."
    ),
    _event_handler_variable(
        "ErrorDescription",
        _STR,
        _MESSAGE,
        "System::ErrorDescription is the message of the exception. SSIS raises OnError once for each error; Airflow "
        "calls the callback once for each failed task.",
    ),
    _event_handler_variable(
        "ErrorCode",
        _STR,
        "alert.exception.type if alert.exception else ''",
        "System::ErrorCode is the class name of the exception, not a number.",
    ),
    _event_handler_variable(
        "EventHandlerStartTime",
        _DATE,
        "ssis.getdate()",
        "System::EventHandlerStartTime is the time at which the mail is rendered.",
    ),
    _unavailable("Cancel", _BOOL, "controls whether an SSIS event handler stops; a callback has no equivalent."),
    _unavailable("Propagate", _BOOL, "controls which SSIS event handlers run; a callback is called once."),
    _unavailable("ExecutionStatus", _BOOL, "belongs to OnExecStatusChanged, which Airflow does not have."),
    _unavailable("ExecutionValue", _STR, "is what an SSIS task returns; use an XCom."),
    _unavailable("PercentComplete", _INT, "belongs to OnProgress, which Airflow does not have."),
    _unavailable("ProgressCountHigh", _INT, "belongs to OnProgress, which Airflow does not have."),
    _unavailable("ProgressCountLow", _INT, "belongs to OnProgress, which Airflow does not have."),
    _unavailable("ProgressDescription", _STR, "belongs to OnProgress, which Airflow does not have."),
    _unavailable("VariableDescription", _STR, "belongs to OnVariableValueChanged, which Airflow does not have."),
    _unavailable("VariableID", _STR, "belongs to OnVariableValueChanged, which Airflow does not have."),
    _unavailable("VariableName", _STR, "belongs to OnVariableValueChanged, which Airflow does not have."),
    _unavailable("VariableValue", _STR, "belongs to OnVariableValueChanged, which Airflow does not have."),
)
SYSTEM_VARIABLES: Mapping[str, SystemVariable] = {variable.name: variable for variable in _VARIABLES}
# Microsoft's page lists LocaleId, but its examples use LocaleID.
_ALIASES = {"LocaleId": "LocaleID"}
# These exist only in event handlers, each in those of some events.
_EVENT_HANDLER_VARIABLES = {
    "Cancel",
    "ErrorCode",
    "ErrorDescription",
    "EventHandlerStartTime",
    "ExecutionStatus",
    "ExecutionValue",
    "PercentComplete",
    "ProgressCountHigh",
    "ProgressCountLow",
    "ProgressDescription",
    "Propagate",
    "SourceDescription",
    "SourceID",
    "SourceName",
    "VariableDescription",
    "VariableID",
    "VariableName",
    "VariableValue",
}


def resolve_system_variable(
    name: str, context: TemplateContext, package_properties: Mapping[str, str | int] | None = None
) -> JinjaName:
    """Return the Jinja expression of a System variable.

    Args:
        name: with or without `System::`.
        context: where the template is rendered.
        package_properties: values from the package file by name: `{"PackageID": "{…}", "VersionMajor": 1}`.

    Raises:
        NotTranslatable: Airflow has no equivalent, or SSIS has no such variable.
    """
    unqualified = name.removeprefix("System::")
    variable = SYSTEM_VARIABLES.get(_ALIASES.get(unqualified, unqualified))
    if variable is None:
        similar = [known for known in SYSTEM_VARIABLES if known.lower() == unqualified.lower()]
        remedy = (
            f"Names are case-sensitive: did you mean System::{similar[0]}?"
            if similar
            else "Write the value in the DAG."
        )
        raise NotTranslatable(f"SSIS has no variable System::{unqualified}.", remedy=remedy)
    if package_properties and variable.in_package_file and variable.name in package_properties:
        value = package_properties[variable.name]
        return JinjaName(code=quote_string(value) if isinstance(value, str) else str(value), type=variable.type)
    code = variable.task if context is TemplateContext.TASK else variable.callback
    if code is None:
        raise NotTranslatable(variable.reason, remedy=variable.remedy)
    return JinjaName(code=code, type=variable.type, note=variable.note)


def find_system_type(name: str) -> DataType | None:
    """Return the type of a System variable; None if SSIS has no such variable.

    Args:
        name: with or without `System::`.
    """
    unqualified = name.removeprefix("System::")
    variable = SYSTEM_VARIABLES.get(_ALIASES.get(unqualified, unqualified))
    return None if variable is None else variable.type


def is_system_variable(name: str, *, in_event_handler: bool = True) -> bool:
    """Whether a name in an expression refers to a System variable, with or without `System::`.

    Args:
        in_event_handler: whether the variables count that exist only in event handlers.
    """
    if "::" in name:
        return name.startswith("System::")
    return _ALIASES.get(name, name) in SYSTEM_VARIABLES and (in_event_handler or name not in _EVENT_HANDLER_VARIABLES)
