"""The package configurations whose values are not in the files: findings and questions about them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from airflow_provider_smtpcm.ssis.findings import CONNECTION_MANAGERS, KEEP
from airflow_provider_smtpcm.ssis.model import Configuration, Finding, Package, Question, Severity
from airflow_provider_smtpcm.ssis.reading.configurations import PropertyOverrides, find_dtsconfig
from airflow_provider_smtpcm.ssis.reading.executables import ROOT
from airflow_provider_smtpcm.ssis.reading.exports import Exports, split_source
from airflow_provider_smtpcm.ssis.waiting_mails import WaitingMails

# How a sentence names a kind of package configuration, unless it is `a` and the kind.
_CONFIGURATION_KINDS = {
    "xml file": "an XML file",
    "sql server": "a SQL Server table",
    "ini file": "an INI file",
    "environment variable": "an environment variable",
    "unknown": "a source of an unknown kind",
}


def find_values(
    configuration: Configuration,
    folder: Path | None,
    passed: Sequence[Path],
    exports: Exports,
    answers: Mapping[str, str],
) -> Path | Iterable[Configuration] | None:
    """Return the file or the rows with the values of a configuration, or the value in an answer; None if unknown.

    Args:
        configuration: one that the package declares.
        folder: the folder of the package; None: none.
        passed: `.dtsConfig` files that the caller passed.
        exports: values from SQL Server.
        answers: the answers of `questions.csv`.
    """
    if configuration.kind == "xml file" and not configuration.indirect:
        return find_dtsconfig(configuration.source, folder, passed)
    if rows := exports.rows(configuration):
        return rows
    answer = answers.get(ask_for_values(configuration).key)
    if answer is None or answer.lower() == KEEP or configuration.path is None:
        return None
    return [replace(configuration, value=answer)]


def ask_for_values(configuration: Configuration) -> Question:
    """Return the question for the values of a configuration.

    It is the same for all packages with the same source, for all files in a folder, and for all rows of a table.
    """
    kind, source = configuration.kind, configuration.source or configuration.name
    keep = f"or answer {KEEP} for the values in the packages."
    detail = subject = shared_text = ""
    if configuration.indirect:
        key, text = source, f"Which {kind} does the environment variable {source} name? Look up the values, {keep}"
    elif kind == "sql server":
        table, detail = split_source(configuration)
        key = table or source
        text = (
            f"The rows of the configuration table {key} are not in the files. Export the table as CSV or as INSERT "
            f"statements and give it as a further PATH, {keep}"
        )
    elif kind == "xml file":
        path = PureWindowsPath(source)
        key, detail, subject = str(path.parent).lower(), path.name, str(path.parent)
        text = f"Configuration files in {path.parent} were not found. Give them as further PATHs, {keep}"
        shared_text = f"Configuration files were not found. Give them as further PATHs, {keep}"
    elif configuration.path:
        key = source
        text = (
            f"Which value does the {kind} {source} have in production? It is the value of {configuration.path}. "
            f"Answer with it, {keep}"
        )
    else:
        key, text = source, f"The {kind} {source} sets values that are not in the files. Look them up, {keep}"
    key = f"configuration {kind} {key}"
    return Question(key=key, text=text, guess=KEEP, detail=detail, subject=subject, shared_text=shared_text)


def _find_place(configuration: Configuration) -> str:
    r"""Return what a configuration sets: a variable, a connection manager or an executable; the package if unknown."""
    path = (configuration.path or "").strip().lstrip("\\")
    if match := re.search(r"\.Variables\[(.+?)\]\.", path, re.IGNORECASE):
        return match[1]
    if match := re.search(r"\.Connections\[(.+?)\]\.", path, re.IGNORECASE):
        return f"{CONNECTION_MANAGERS}{match[1]}"
    return re.split(r"\.Properties\[", path, flags=re.IGNORECASE)[0] or ROOT


def find_unread(
    declared: Iterable[Configuration], overrides: PropertyOverrides, exports: Exports
) -> Iterator[Configuration]:
    """Yield the declared configurations whose values are not in the files."""
    read_files = {Path(configuration.source).name.lower() for configuration, _ in overrides.values.values()}
    for configuration in declared:
        file = configuration.source.replace("\\", "/").rpartition("/")[2].lower()
        is_file_read = configuration.kind == "xml file" and not configuration.indirect and file in read_files
        if not is_file_read and not exports.rows(configuration):
            yield configuration


def report_configurations(
    package: Package, unread: Iterable[Configuration], overrides: PropertyOverrides, *, is_enabled: bool
) -> Iterator[Finding]:
    """Yield a finding for each configuration that was applied, is off, or could not be read."""
    for configuration in overrides.applied.values():
        yield Finding(
            code="configuration-applied",
            severity=Severity.NOTE,
            where=ROOT,
            text=f"{configuration.path} is set by the package configuration {configuration.source}, whose value was "
            "used.",
        )
    waiting: WaitingMails | None = None
    for configuration in unread:
        if not is_enabled:
            yield Finding(
                code="configuration-switched-off",
                severity=Severity.NOTE,
                where=ROOT,
                text=f"The package configuration {configuration.name!r} ({configuration.kind}) is not in effect: "
                "EnableConfig is off.",
            )
            continue
        target = f" for {configuration.path}" if configuration.path else ""
        kind = _CONFIGURATION_KINDS.get(configuration.kind, f"a {configuration.kind}")
        source = configuration.source or "(not shown)"
        source = f" that the environment variable {source} names" if configuration.indirect else f": {source}"
        place = _find_place(configuration)
        waiting = waiting or WaitingMails(package)
        concerns_mail = bool(waiting.at(place))
        yield Finding(
            code="configuration-not-read",
            severity=Severity.DECISION if concerns_mail else Severity.NOTE,
            where=place,
            question=ask_for_values(configuration) if concerns_mail else None,
            text=f"The package configuration {configuration.name!r} takes its value{target} from {kind}{source}. The "
            "value in the package was used.",
            remedy="Import the .dtsConfig file with the package, or check the connection and the variables."
            if configuration.kind == "xml file"
            else "Import an export of the table with the package, or check the connection and the variables."
            if configuration.kind == "sql server"
            else "Look up its values, and check the connection and the variables.",
        )
