"""Between the writing and the report: what belongs to a connection is told there once, not in each of 400 packages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from airflow_provider_smtpcm.ssis.import_packages import Converted
from airflow_provider_smtpcm.ssis.package import (
    Container,
    ContainerKind,
    Finding,
    Package,
    Project,
    Severity,
    SmtpConnection,
)
from airflow_provider_smtpcm.ssis.report.entries import ConnectionEntry, PackageEntry, status_of
from airflow_provider_smtpcm.ssis.writing.connections import Connections
from airflow_provider_smtpcm.ssis.writing.dag_module import ModuleNames, write_package
from airflow_provider_smtpcm.ssis.writing.declared import Scope
from airflow_provider_smtpcm.ssis.writing.options import Options, WindowsAuth
from airflow_provider_smtpcm.ssis.writing.outcome import Findings
from airflow_provider_smtpcm.ssis.writing.visible import Names

# Of one connection; what 400 packages call their connection managers says nothing more.
_FINDINGS_OF_A_CODE = 3
# All that concerns mail in a package that sends none.
_CONCERNS_MAIL = {"other-mail-task"}
# The report says it by the sources of a connection.
_SAID_OTHERWISE = {"connection-manager-became"}


def make_converter(
    *, windows_auth: Sequence[tuple[str, str | None]] = (), map_path: Sequence[tuple[str, str]] = ()
) -> PackageConverter:
    """The converter for what a person decided on the command line; of two answers to one question the last counts."""
    chosen = {name: WindowsAuth(mode) for mode, name in windows_auth}
    options = Options(
        windows_auth=chosen.get(None, WindowsAuth.KEEP),
        windows_auth_of={name: mode for name, mode in chosen.items() if name is not None},
        path_map=tuple(map_path),
    )
    return PackageConverter(options, decided={name.lower() if name else None for name in chosen})


class PackageConverter:
    """Turns packages into DAGs, and keeps the connections that they share.

    Args:
        options: what a person decided.
        decided: the connection managers, in lower case, about whose Windows Authentication somebody said something;
            None stands for all of them.
    """

    def __init__(self, options: Options, *, decided: set[str | None]) -> None:
        self._options = options
        self._connections = _Registry(options, decided)
        self._names = ModuleNames()
        self._used: Counter[str] = Counter()

    def project(self, project: Project) -> None:
        """Take a project's connection managers, whether or not a mail uses them."""
        root = Container(name=project.name, id="", path=(project.name,), kind=ContainerKind.PACKAGE)
        package = Package(name=project.name, id="", path=project.path, root=root)
        names = Names(package=package, project=project, findings=Findings())
        for one in project.connection_managers:
            self._connections.take(one, names, names.root(), names.findings)

    def package(self, package: Package, project: Project | None) -> Converted:
        """Convert one."""
        written = write_package(package, self._connections, self._options, names=self._names, project=project)
        has_mail = bool(written.mails)
        findings = written.findings
        if not has_mail and not package.connection_managers:
            findings = tuple(one for one in findings if one.code in _CONCERNS_MAIL)
        self._used.update(written.connections)
        entry = PackageEntry(
            source=package.path,
            name=package.name,
            format_version=package.format_version,
            status=status_of(findings, has_mail=has_mail),
            dag_id=written.dag_id if written.source else "",
            connections=written.connections,
            mails=written.mails,
            findings=findings,
        )
        file = f"dags/{written.file_name}" if written.source else ""
        return Converted(entry=entry, file=file, text=written.source)

    def connections_json(self) -> str:
        """All connections so far, as `airflow connections import` takes them; empty where there is none."""
        return self._connections.to_json()

    def connections(self) -> tuple[ConnectionEntry, ...]:
        """All connections so far, for the report."""
        return tuple(
            ConnectionEntry(
                conn_id=one.conn_id,
                host=one.manager.host,
                summary=f"{one.manager.host}:{one.manager.port}, {one.manager.auth_mode}, SSL {one.manager.ssl_mode}",
                sources=tuple(one.sources),
                packages=self._used[one.conn_id],
                findings=self._connections.findings_of(one.conn_id),
            )
            for one in self._connections.written
        )


class _Registry(Connections):
    """Connections, with what is to be known of each."""

    def __init__(self, options: Options, decided: set[str | None]) -> None:
        super().__init__(options)
        self._decided = decided
        self._about: dict[str, dict[Finding, None]] = {}

    def take(self, connection: SmtpConnection, names: Names, scope: Scope, findings: Findings) -> str:  # noqa: ARG002
        """As the base, but the findings are kept with the connection."""
        own = Findings()
        conn_id = super().take(connection, names, scope, own)
        about = self._about.setdefault(conn_id, {})
        for one in own.all():
            if one.code not in _SAID_OTHERWISE and sum(known.code == one.code for known in about) < _FINDINGS_OF_A_CODE:
                about[self._asked(one, connection.name)] = None
        return conn_id

    def findings_of(self, conn_id: str) -> tuple[Finding, ...]:
        """What is to be known of it."""
        return tuple(self._about.get(conn_id, ()))

    def _asked(self, finding: Finding, name: str) -> Finding:
        """What a person has decided by an option needs no other decision."""
        if finding.code == "windows-auth-kept" and self._decided & {None, name.lower()}:
            return replace(finding, severity=Severity.NOTE)
        return finding
