"""A Send Mail task that was never configured is not one whose properties cannot be read."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.ssis.model import Package, SendMailTask, Severity
from airflow_provider_smtpcm.ssis.writing.connections import ConnectionRegistry
from airflow_provider_smtpcm.ssis.writing.conversion import ConversionOptions
from airflow_provider_smtpcm.ssis.writing.dag_module import write_package
from tests.ssis.reading.test_tasks import DIALECTS, NEW, OLD, executable, read, task

KIND = "Microsoft.SendMailTask"
MAIL = 'xmlns:m="www.microsoft.com/sqlserver/dts/tasks/sendmailtask"'
NEVER_CONFIGURED = [
    (OLD, ""),
    (NEW, ""),
    (
        OLD,
        (
            f'<m:SendMailTaskData {MAIL} m:SMTPServer="" m:From="" m:To="" m:CC="" m:BCC="" m:Subject="" '
            'm:Priority="Normal" m:MessageSourceType="DirectInput" m:MessageSource=""/>'
        ),
    ),
    (NEW, f"<m:SendMailTaskData {MAIL}/>"),
]
ENCRYPTED = "<EncryptedData><CipherData><CipherValue>AAAA</CipherValue></CipherData></EncryptedData>"


def findings(package: Package) -> list[tuple[str, Severity]]:
    """Return the codes and severities of all findings, those of the conversion included."""
    module = write_package(package, ConnectionRegistry(ConversionOptions()), ConversionOptions())
    return [(finding.code, finding.severity) for finding in module.findings]


def mail(package: Package) -> SendMailTask:
    """Return the only Send Mail task."""
    (found,) = package.send_mail_tasks
    return found


@pytest.mark.parametrize(("version", "data"), NEVER_CONFIGURED)
def test_a_task_that_was_never_configured_is_one_decision(version: int, data: str) -> None:
    """It fails in SSIS, and nothing else about it needs to be said."""
    package = read(version, task(version, KIND, data))
    assert (mail(package).is_unconfigured, mail(package).has_unreadable_data) == (True, False)
    assert findings(package) == [("unconfigured-mail", Severity.DECISION)]
    assert "never configured" in package.findings[0].text


@pytest.mark.parametrize(("version", "data"), NEVER_CONFIGURED)
def test_a_disabled_one_is_a_note(version: int, data: str) -> None:
    """It is not in the DAG."""
    package = read(version, task(version, KIND, data, Disabled="-1" if version < 6 else "True"))
    assert findings(package) == [("unconfigured-mail", Severity.NOTE)]


@pytest.mark.parametrize("version", DIALECTS)
@pytest.mark.parametrize(
    "inner", [f"<DTS:ObjectData>{ENCRYPTED}</DTS:ObjectData>", "<DTS:ObjectData>AAAA</DTS:ObjectData>", ""]
)
def test_a_task_whose_properties_cannot_be_read_is_an_error(version: int, inner: str) -> None:
    """Encrypted or missing; a note if it is disabled."""
    package = read(version, executable(version, KIND, inner))
    assert (mail(package).is_unconfigured, mail(package).has_unreadable_data) == (False, True)
    assert ("unreadable-mail", Severity.ERROR) in findings(package)
    # What is only unknown is not said to be missing.
    assert not {"no-sender", "no-recipient"} & {code for code, _ in findings(package)}
    disabled = read(version, executable(version, KIND, inner, Disabled="-1" if version < 6 else "True"))
    assert findings(disabled) == [("unreadable-mail", Severity.NOTE)]


def test_a_task_with_an_expression_is_configured() -> None:
    """Whatever it lacks is reported as for every mail."""
    expression = '<DTS:PropertyExpression DTS:Name="ToLine">"ops@corp.example"</DTS:PropertyExpression>'
    package = read(NEW, executable(NEW, KIND, f"{expression}<DTS:ObjectData/>"))
    assert not mail(package).is_unconfigured
    assert [finding.code for finding in package.findings] == ["no-connection-manager"]


def test_an_expression_for_disable_configures_nothing() -> None:
    """Only those of the mail do."""
    expression = '<DTS:PropertyExpression DTS:Name="Disable">@[User::Off]</DTS:PropertyExpression>'
    assert mail(read(NEW, executable(NEW, KIND, f"{expression}<DTS:ObjectData/>"))).is_unconfigured
