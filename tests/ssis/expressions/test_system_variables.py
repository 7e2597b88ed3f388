"""What SSIS's System variables are in Airflow."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

from airflow_provider_smtpcm.notifications.event import read_event
from airflow_provider_smtpcm.ssis import macros
from airflow_provider_smtpcm.ssis.expressions import (
    NotTranslatable,
    TemplateContext,
    is_system_variable,
    resolve_system_variable,
    to_jinja,
)
from airflow_provider_smtpcm.ssis.expressions.system_variables import SYSTEM_VARIABLES

# Microsoft, "System Variables".
DOCUMENTED: list[str] = """
CancelEvent ContainerStartTime CreationDate CreatorComputerName CreatorName ExecutionInstanceGUID
FailedConfigurations IgnoreConfigurationsOnLoad InteractiveMode LocaleId MachineName OfflineMode
PackageID PackageName StartTime ServerExecutionID UserName VersionBuild VersionComment VersionGUID
VersionMajor VersionMinor CreationName TaskID TaskName TaskTransactionOption Cancel ErrorCode
ErrorDescription ExecutionStatus ExecutionValue PercentComplete ProgressCountHigh ProgressCountLow
ProgressDescription Propagate SourceDescription SourceID SourceName VariableDescription VariableID
""".split()  # noqa: SIM905 - as a list it is a page long


def rendered(text: str, template_context: TemplateContext, context: dict[str, Any]) -> str:
    """An expression in a template, where nothing may be missing."""
    found = to_jinja(text, lambda name: resolve_system_variable(name, template_context))
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - as Airflow
    environment.globals["ssis"] = macros
    return environment.from_string(found.template).render(context)


@pytest.mark.parametrize("name", DOCUMENTED)
@pytest.mark.parametrize("context", TemplateContext)
def test_every_documented_variable_has_an_answer(name: str, context: TemplateContext) -> None:
    """An expression, or the reason why there is none and what to do."""
    assert is_system_variable(name)
    try:
        assert resolve_system_variable(f"System::{name}", context).code
    except NotTranslatable as error:
        assert error.reason and error.remedy  # noqa: PT017 - either of the two is an answer


def test_a_name_in_another_case_is_not_a_variable() -> None:
    """Names have their case, and the error gives the right one."""
    with pytest.raises(NotTranslatable, match="did you mean System::PackageName"):
        resolve_system_variable("System::packagename", TemplateContext.TASK)


def test_what_only_a_handler_knows_is_refused_in_a_task_with_the_way_to_go() -> None:
    """A Send Mail task after a failure constraint had no error description in SSIS either."""
    with pytest.raises(NotTranslatable, match="on_failure_callback"):
        resolve_system_variable("System::ErrorDescription", TemplateContext.TASK)


def test_a_property_of_the_package_file_comes_from_it() -> None:
    """If the caller passes it."""
    properties = {"PackageID": "{A'B}", "VersionMajor": 3}
    assert resolve_system_variable("System::PackageID", TemplateContext.TASK, properties).code == r"'{A\'B}'"
    assert resolve_system_variable("VersionMajor", TemplateContext.CALLBACK, properties).code == "3"
    with pytest.raises(NotTranslatable, match="package file"):
        resolve_system_variable("VersionMinor", TemplateContext.TASK, properties)


def test_a_variable_of_another_namespace_is_not_a_system_variable() -> None:
    """Nor is a name without a namespace that SSIS does not define."""
    assert not is_system_variable("User::PackageName")
    assert not is_system_variable("Recipients")
    assert is_system_variable("PackageName")


@pytest.mark.parametrize("context", [{}, {"exception": None, "dag": None, "dag_run": None}, {"exception": "no"}])
@pytest.mark.parametrize("name", [name for name, variable in SYSTEM_VARIABLES.items() if variable.callback])
def test_no_callback_expression_fails_if_the_context_lacks_a_value(name: str, context: dict[str, Any]) -> None:
    """The contexts of callbacks differ, and an alert has to go out."""
    alert = read_event(context)
    rendered(f'"x" + (DT_WSTR,50)@[System::{name}]', TemplateContext.CALLBACK, {**context, "alert": alert})


def test_the_error_is_the_exception_of_the_callback() -> None:
    """By its message."""
    context = {"exception": ValueError("disk full")}
    context["alert"] = read_event(context)  # type: ignore[assignment]
    text = '@[System::ErrorDescription] + " (" + (DT_WSTR,50)@[System::ErrorCode] + ")"'
    assert rendered(text, TemplateContext.CALLBACK, context) == "disk full (ValueError)"
