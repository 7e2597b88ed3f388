"""Tasks and containers of all kinds, nested, with what hangs on them."""

from __future__ import annotations

from typing import TypedDict

from airflow_provider_smtpcm.ssis.package import (
    Container,
    ContainerKind,
    EventHandler,
    Executable,
    OtherTask,
    PrecedenceConstraint,
    SendMailTask,
    Severity,
    Variable,
)
from airflow_provider_smtpcm.ssis.reading.constraints import read_constraints
from airflow_provider_smtpcm.ssis.reading.dialect import expressions, ids, members, text
from airflow_provider_smtpcm.ssis.reading.mail_task import is_send_mail, is_send_mail_kind, looks_like_mail, read_mail
from airflow_provider_smtpcm.ssis.reading.nodes import Node
from airflow_provider_smtpcm.ssis.reading.scope import Place, Reading, read_propagate, read_variables

_CONTAINERS = {
    "STOCK:SEQUENCE": ContainerKind.SEQUENCE,
    "STOCK:FORLOOP": ContainerKind.FOR_LOOP,
    "STOCK:FOREACHLOOP": ContainerKind.FOREACH_LOOP,
}
ROOT = "Package"


class _Common(TypedDict):
    """What every executable has."""

    name: str
    id: str
    path: tuple[str, ...]
    description: str
    expressions: dict[str, str]
    disabled: bool
    disabled_because: str | None
    event_handlers: tuple[EventHandler, ...]
    variables: tuple[Variable, ...]


def read_root(node: Node, reading: Reading) -> Container:
    """The package itself, as a container."""
    place = Place(path=()).inside(ROOT, node)
    executables, constraints = _inside(node, place, reading)
    return Container(
        **_common(node, place, reading, name=text(node, "ObjectName") or ROOT),
        kind=ContainerKind.PACKAGE,
        executables=executables,
        constraints=constraints,
    )


def _executable(node: Node, around: Place, reading: Reading) -> Executable:
    kind = _kind(node)
    name = text(node, "ObjectName") or kind
    place = around.inside(name, node)
    if is_send_mail(node, kind):
        common = _common(node, place, reading, name=name)
        computed = set(common["expressions"])
        return SendMailTask(
            **common, **read_mail(node, place.path, reading, disabled=common["disabled"], computed=computed)
        )
    nested = next(members(node, "Executables", "Executable"), None) is not None
    container = _CONTAINERS.get(kind.upper(), ContainerKind.TASK_HOST if nested else None)
    if container is None:
        if looks_like_mail(kind):
            reading.find(
                "other-mail-task",
                Severity.NOTE if place.disabled_because else Severity.DECISION,
                place.path,
                f"{kind} is a mail task that did not come with SSIS; it is not read.",
                "Write a SendMailOperator for it.",
            )
        return OtherTask(**_common(node, place, reading, name=name), kind=kind)
    executables, constraints = _inside(node, place, reading)
    return Container(
        **_common(node, place, reading, name=name), kind=container, executables=executables, constraints=constraints
    )


def _kind(node: Node) -> str:
    """Its CreationName, or its ExecutableType, which in 2005 and 2008 is a .NET name with its assembly."""
    names = [text(node, "CreationName").strip(), text(node, "ExecutableType").partition(",")[0].strip()]
    mail = next((name for name in names if is_send_mail_kind(name)), None)
    stock = next((name for name in names if name.upper() in _CONTAINERS), None)
    return mail or stock or next(filter(None, names), "")


def _common(node: Node, place: Place, reading: Reading, *, name: str) -> _Common:
    return _Common(
        name=name,
        id=reading.unique(ids(node), place.path),
        path=place.path,
        description=text(node, "Description"),
        expressions=expressions(node),
        disabled=place.disabled_because is not None,
        disabled_because=place.disabled_because,
        event_handlers=tuple(_handler(one, place, reading) for one in members(node, "EventHandlers", "EventHandler")),
        variables=read_variables(node, place.path, reading.overrides),
    )


def _inside(
    node: Node, place: Place, reading: Reading
) -> tuple[tuple[Executable, ...], tuple[PrecedenceConstraint, ...]]:
    """What runs in it, and the arrows between."""
    known: dict[str, str] = {}
    executables = []
    for child in members(node, "Executables", "Executable"):
        one = _executable(child, place, reading)
        executables.append(one)
        for reference in (*ids(child), "\\".join(one.path), one.name):
            if reference:
                known.setdefault(reference, one.id)
    return tuple(executables), read_constraints(node, place.path, known, reading)


def _handler(node: Node, owner: Place, reading: Reading) -> EventHandler:
    event_name = text(node, "EventName") or text(node, "CreationName") or text(node, "ObjectName")
    place = owner.handler(event_name, node)
    executables, constraints = _inside(node, place, reading)
    nested = members(node, "EventHandlers", "EventHandler")
    return EventHandler(
        event_name=event_name,
        owner=owner.path,
        id=reading.unique(ids(node), place.path),
        executables=executables,
        constraints=constraints,
        variables=read_variables(node, place.path, reading.overrides),
        event_handlers=tuple(_handler(one, place, reading) for one in nested),
        expressions=expressions(node),
        disabled=place.disabled_because is not None,
        disabled_because=place.disabled_because,
        propagate=read_propagate(node),
    )
