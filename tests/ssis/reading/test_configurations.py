"""Package configurations: XML files are applied, and what cannot be known here is reported."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from airflow_provider_smtpcm.ssis import Package, read_package
from airflow_provider_smtpcm.ssis.model import Severity
from airflow_provider_smtpcm.ssis.reading.configurations import PropertyOverrides

PACKAGES = Path(__file__).parent.parent / "packages"
CONFIGURED = PACKAGES / "configured.dtsx"


def values(package: Package) -> tuple[str, str | None, str]:
    """The server, the variable and the sender."""
    (task,) = package.send_mail_tasks
    return package.connection_managers[0].connection_string, package.variables[0].value, task.from_line


def test_what_cannot_be_looked_up_is_a_decision() -> None:
    """With its target, if the package has it; a note if no mail uses the target."""
    found = [one for one in read_package(CONFIGURED).findings if one.code == "configuration-not-read"]
    assert [(one.text.split("'")[1], one.severity) for one in found] == [
        ("Table", Severity.DECISION),
        ("Environment", Severity.NOTE),
        ("Registry", Severity.NOTE),
        ("Parent", Severity.DECISION),
        ("Indirect", Severity.DECISION),
    ]
    assert "\\Package.Variables[User::To].Properties[Value]" in found[1].text
    assert "SQL Server" in found[0].text


def test_a_finding_says_that_the_value_in_the_package_was_used_only_if_it_was(tmp_path: Path) -> None:
    """Another configuration may set the same property, or some of those that a source without a target sets."""
    for path, has_file in ((CONFIGURED, True), (shutil.copy(CONFIGURED, tmp_path), False)):
        found = {one.text.split("'")[1]: one.text for one in read_package(path).findings if "takes its" in one.text}
        assert ("The value in the package was used" in found["Environment"]) is not has_file
        assert "The value in the package was used" in found["Registry"]
        assert ("unless another configuration sets them" in found["Table"]) is has_file
        assert "The values in the package were used" in found["Table"]


def test_a_file_that_is_missing_is_a_decision(tmp_path: Path) -> None:
    """The value in the package is used."""
    package = read_package(shutil.copy(CONFIGURED, tmp_path))
    assert values(package)[1] == "developer@corp.example"
    assert any("D:\\SSIS\\Mail.dtsConfig" in one.text for one in package.findings)


def test_a_file_that_cannot_be_read_is_an_error_beside_the_package(tmp_path: Path) -> None:
    """The package is read nevertheless."""
    (tmp_path / "mail.dtsConfig").write_text("<DTSConfiguration>")
    package = read_package(shutil.copy(CONFIGURED, tmp_path))
    assert [one.severity for one in package.findings if one.code == "configuration-unreadable"] == [Severity.ERROR]
    assert package.send_mail_tasks


def test_nothing_is_applied_where_configurations_are_switched_off(tmp_path: Path) -> None:
    """SSIS would not either."""
    shutil.copy(PACKAGES / "mail.dtsConfig", tmp_path)
    path = tmp_path / "configured.dtsx"
    path.write_text(CONFIGURED.read_text(encoding="utf-8").replace('DTS:EnableConfig="True"', ""), encoding="utf-8")
    package = read_package(path)
    assert values(package)[1] == "developer@corp.example"
    assert {one.code for one in package.findings} == {"configuration-switched-off"}


def test_a_file_beside_the_package_is_applied() -> None:
    """The package names it by a Windows path of another machine and in another case."""
    package = read_package(CONFIGURED)
    assert values(package) == (
        "SmtpServer=relay.corp.example;UseWindowsAuthentication=False;EnableSsl=False;",
        "ops@corp.example",
        "etl@corp.example",
    )
    assert sum(one.code == "configuration-applied" for one in package.findings) == 3


def test_a_file_that_is_passed_holds_for_every_package() -> None:
    """As `dtexec /ConfigFile` does, whether the package names it or not."""
    package = read_package(PACKAGES / "references.dtsx", configurations=[PACKAGES / "mail.dtsConfig"])
    assert package.connection_managers[0].connection_string.startswith("SmtpServer=relay.corp.example;")


def test_a_target_is_compared_without_regard_to_case() -> None:
    """And may leave out what is understood."""
    overrides = PropertyOverrides()
    assert overrides.variable_value(("Package", "A"), "User::To", "as it was") == "as it was"
    package = read_package(CONFIGURED)
    overrides.add(package.configurations)
    assert overrides.variable_value(("package",), "USER::TO", None) == "ops@corp.example"


@pytest.mark.parametrize(
    ("written", "short"),
    [
        ("Variables[User::To].Properties[Value]", "Variables[To].Value"),
        ("Variables[User::To].Properties[Value]", "Variables[To].Properties[Value]"),
        ("Connections[Relay].Properties[SmtpServer]", "Connections[Relay].SmtpServer"),
    ],
)
def test_a_target_may_leave_out_the_namespace_and_the_word_properties(tmp_path: Path, written: str, short: str) -> None:
    """SSIS finds it as well; in the file and in the package, where it says which mails wait for the value."""
    package = tmp_path / CONFIGURED.name
    package.write_text(CONFIGURED.read_text(encoding="utf-8").replace(written, short), encoding="utf-8")
    (found,) = [one for one in read_package(package).findings if "'Parent'" in one.text]
    assert found.severity is Severity.DECISION
    file = (PACKAGES / "mail.dtsConfig").read_text(encoding="utf-8")
    assert written in file
    (tmp_path / "mail.dtsConfig").write_text(file.replace(written, short), encoding="utf-8")
    assert values(read_package(package)) == values(read_package(CONFIGURED))
