"""A package as a whole, and a project of several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.package.control_flow import Container, EventHandler, Executable, SendMailTask
from airflow_provider_smtpcm.ssis.package.parts import (
    Configuration,
    FileConnection,
    Finding,
    Parameter,
    SmtpConnection,
    Variable,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package. `path` is its file, or `project.ispac!Part.dtsx`.

    Args:
        connection_managers: SMTP connection managers, its own and those of the project that its mails use.
        protection_level: None where it is not written (SSIS means 1, EncryptSensitiveWithUserKey).
    """

    name: str
    id: str
    path: str
    root: Container
    format_version: int = 8
    protection_level: int | None = None
    connection_managers: tuple[SmtpConnection, ...] = ()
    file_connections: tuple[FileConnection, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    configurations: tuple[Configuration, ...] = ()
    findings: tuple[Finding, ...] = ()

    def walk(self) -> Iterator[tuple[SendMailTask, EventHandler | None]]:
        """Every Send Mail task, disabled ones too, with the innermost event handler that it stands in."""
        for executable, handler in self.everything():
            if isinstance(executable, SendMailTask):
                yield executable, handler

    def everything(self) -> Iterator[tuple[Executable, EventHandler | None]]:
        """Every executable, depth first, what hangs on an executable after what stands in it; the root first."""
        return _descend(self.root, None)

    @property
    def send_mail_tasks(self) -> tuple[SendMailTask, ...]:
        """All of them: in containers, in event handlers, disabled ones too."""
        return tuple(task for task, _ in self.walk())

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The variables of all scopes; an inner one hides an outer one of the same name."""
        found: list[Variable] = []
        seen: set[int] = set()
        for executable, handler in self.everything():
            if handler is not None and id(handler) not in seen:
                seen.add(id(handler))
                found += handler.variables
            found += executable.variables
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a project sets besides its files, in `@Project.manifest` or in its `.dtproj`. All keys are in lower case.

    Args:
        source: the file.
        values: of connection managers, by the package that they are in (empty: they are the project's own), and then
            by `name.property`.
        configurations: by the package (empty: the project), and then by the parameter: the value that each
            configuration gives it, by its name.
    """

    source: str
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    configurations: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project: a folder with its packages, or an `.ispac`. `unreadable` are the parts that are no package."""

    name: str
    path: str
    packages: tuple[Package, ...] = ()
    connection_managers: tuple[SmtpConnection, ...] = ()
    file_connections: tuple[FileConnection, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    manifest: Manifest | None = None
    unreadable: tuple[tuple[str, PackageError], ...] = ()


def _descend(executable: Executable, handler: EventHandler | None) -> Iterator[tuple[Executable, EventHandler | None]]:
    yield executable, handler
    if isinstance(executable, Container):
        for child in executable.executables:
            yield from _descend(child, handler)
    for own in executable.event_handlers:
        yield from _descend_handler(own)


def _descend_handler(handler: EventHandler) -> Iterator[tuple[Executable, EventHandler | None]]:
    for child in handler.executables:
        yield from _descend(child, handler)
    for own in handler.event_handlers:
        yield from _descend_handler(own)
