"""What runs in a package: Send Mail tasks, their neighbours, containers, and what hangs on their events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.package.parts import (
    ContainerKind,
    FileConnection,
    MessageSourceType,
    PrecedenceConstraint,
    SmtpConnection,
    Variable,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SendMailTask:
    """A Send Mail task. A field beside an expression holds what the developer's machine evaluated last.

    Args:
        connection: the connection manager that `connection_reference` means; None where there is none.
        priority: as written, `High`, `Normal`, `Low` or a number.
        file_attachments: as written, with `|` between the files.
        message_file: the File connection manager, where `message_source_type` is FileConnection and it was found.
        expressions: by SSIS's property name: FromLine, ToLine, CCLine, BCCLine, Subject, MessageSource, ...
        disabled: itself or something around it, whose path is `disabled_because`. What a `Disable` expression decides,
            unless it is a literal, is not counted: the expression wins over what is written beside it.
        has_unreadable_data: the mail's own properties are missing or encrypted, so that all are empty.
    """

    name: str
    id: str
    path: tuple[str, ...]
    description: str = ""
    connection: SmtpConnection | None = None
    connection_reference: str = ""
    from_line: str = ""
    to_line: str = ""
    cc_line: str = ""
    bcc_line: str = ""
    subject: str = ""
    message_source_type: MessageSourceType = MessageSourceType.DIRECT_INPUT
    message_source: str = field(default="", repr=False)
    message_file: FileConnection | None = None
    priority: str = "Normal"
    file_attachments: str = ""
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    disabled: bool = False
    disabled_because: str | None = None
    event_handlers: tuple[EventHandler, ...] = ()
    variables: tuple[Variable, ...] = ()
    has_unreadable_data: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherTask:
    """A neighbour that is no mail; `kind` is its CreationName, such as `Microsoft.ExecuteSQLTask`."""

    name: str
    id: str
    path: tuple[str, ...]
    kind: str = ""
    description: str = ""
    disabled: bool = False
    disabled_because: str | None = None
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    event_handlers: tuple[EventHandler, ...] = ()
    variables: tuple[Variable, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A package, a sequence or a loop, with what runs in it."""

    name: str
    id: str
    path: tuple[str, ...]
    kind: ContainerKind = ContainerKind.SEQUENCE
    description: str = ""
    executables: tuple[Executable, ...] = ()
    constraints: tuple[PrecedenceConstraint, ...] = ()
    variables: tuple[Variable, ...] = ()
    event_handlers: tuple[EventHandler, ...] = ()
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    disabled: bool = False
    disabled_because: str | None = None


Executable = SendMailTask | OtherTask | Container


@dataclass(frozen=True, slots=True, kw_only=True)
class EventHandler:
    """What runs on an event of its owner and of all that the owner holds, since events bubble up.

    Args:
        event_name: `OnError`, `OnTaskFailed`, `OnPostExecute`, ...
        owner: the path of the package, container or task that it hangs on.
        propagate: the design-time value of System::Propagate; None where it is not written (it is True then).
    """

    event_name: str
    owner: tuple[str, ...]
    id: str = ""
    executables: tuple[Executable, ...] = ()
    constraints: tuple[PrecedenceConstraint, ...] = ()
    variables: tuple[Variable, ...] = ()
    event_handlers: tuple[EventHandler, ...] = ()
    expressions: Mapping[str, str] = field(default_factory=dict, repr=False)
    disabled: bool = False
    disabled_because: str | None = None
    propagate: bool | None = None
