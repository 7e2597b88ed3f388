"""Builds models of packages, and their DAG modules, for the tests of `ssis.writing`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_smtpcm.ssis.model import (
    Container,
    ContainerKind,
    EventHandler,
    Executable,
    Finding,
    OtherTask,
    Package,
    PrecedenceConstraint,
    Project,
    SendMailTask,
    SmtpConnection,
    Variable,
)
from airflow_provider_smtpcm.ssis.writing.connections import ConnectionRegistry
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions, DagModule
from airflow_provider_smtpcm.ssis.writing.dag_module import write_package

RELAY = SmtpConnection(
    name="SMTP Connection Manager",
    id="{11111111-0000-0000-0000-000000000001}",
    connection_string="SmtpServer=mail.corp.example;UseWindowsAuthentication=False;EnableSsl=False;",
)


def smtp(text: str, name: str = "SMTP Connection Manager", **more: Any) -> SmtpConnection:
    """Return a connection manager with this connection string."""
    return SmtpConnection(name=name, id=f"{{{name}}}", connection_string=text, **more)


def mail(name: str = "Send Mail", path: tuple[str, ...] = ("Package",), **more: Any) -> SendMailTask:
    """Return a Send Mail task with all required properties."""
    defaults: dict[str, Any] = {
        "connection": RELAY,
        "from_line": "etl@corp.example",
        "to_line": "ops@corp.example",
        "subject": "Load",
        "message_source": "Done.",
    }
    return SendMailTask(name=name, id=f"id of {'/'.join((*path, name))}", path=(*path, name), **(defaults | more))


def other_task(name: str, path: tuple[str, ...] = ("Package",), **more: Any) -> OtherTask:
    """Return a task that sends no mail."""
    identity = f"id of {'/'.join((*path, name))}"
    return OtherTask(name=name, id=identity, path=(*path, name), kind="Microsoft.ExecuteSQLTask", **more)


def constraint(before: Executable, after: Executable, **more: Any) -> PrecedenceConstraint:
    """Return a precedence constraint."""
    return PrecedenceConstraint(before=before.id, after=after.id, **more)


def handler(event: str, *executables: Executable, owner: tuple[str, ...] = ("Package",), **more: Any) -> EventHandler:
    """Return an event handler."""
    return EventHandler(event_name=event, owner=owner, executables=executables, **more)


def package(*executables: Executable, name: str = "Load", **more: Any) -> Package:
    """Return a package with this control flow; `constraints`, `handlers` and `variables` are those of its root."""
    root = Container(
        name=name,
        id="{root}",
        path=("Package",),
        kind=ContainerKind.PACKAGE,
        executables=executables,
        constraints=tuple(more.pop("constraints", ())),
        event_handlers=tuple(more.pop("handlers", ())),
        variables=tuple(more.pop("variables", ())),
    )
    more.setdefault("connection_managers", (RELAY,))
    return Package(name=name, id="{PACKAGE}", path=f"/packages/{name}.dtsx", root=root, **more)


def variable(name: str, value: str | None = "", data_type: int = 8, expression: str | None = None) -> Variable:
    """Return a user variable of the package."""
    return Variable(
        namespace="User", name=name, value=value, data_type=data_type, expression=expression, scope=("Package",)
    )


def written(
    *executables: Executable, options: ConversionOptions | None = None, project: Project | None = None, **more: Any
) -> DagModule:
    """Return the module of such a package."""
    options = options or ConversionOptions()
    return write_package(package(*executables, **more), ConnectionRegistry(options), options, project=project)


def codes(findings: Sequence[Finding]) -> set[str]:
    """Return the codes of the findings."""
    return {one.code for one in findings}
