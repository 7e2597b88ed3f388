"""What a package says about mail, in the SSIS user's words: the model. Knows no XML, no network and no Airflow.

Every `id` is a GUID in upper case with braces, or the `refId` where there is none. Every `path` is SSIS's own: it
begins with the word Package, as `("Package", "Sequence", "Send Mail")` does, and with
`"Package.EventHandlers[OnError]"` in an event handler. What may hold an account (connection strings, expressions,
values) is left out of every `repr`.
"""

from __future__ import annotations

from airflow_provider_smtpcm.ssis.package.control_flow import (
    Container,
    EventHandler,
    Executable,
    OtherTask,
    SendMailTask,
)
from airflow_provider_smtpcm.ssis.package.parts import (
    Configuration,
    ConstraintValue,
    ContainerKind,
    EvalOp,
    FileConnection,
    Finding,
    MessageSourceType,
    Parameter,
    PrecedenceConstraint,
    SetByProject,
    Severity,
    SmtpConnection,
    Variable,
)
from airflow_provider_smtpcm.ssis.package.whole import Manifest, Package, Project

__all__ = [
    "Configuration",
    "ConstraintValue",
    "Container",
    "ContainerKind",
    "EvalOp",
    "EventHandler",
    "Executable",
    "FileConnection",
    "Finding",
    "Manifest",
    "MessageSourceType",
    "OtherTask",
    "Package",
    "Parameter",
    "PrecedenceConstraint",
    "Project",
    "SendMailTask",
    "SetByProject",
    "Severity",
    "SmtpConnection",
    "Variable",
]
