"""References, what is disabled, containers, event handlers, sources of the text, variables and parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis import Package, read_package
from airflow_provider_smtpcm.ssis.model import (
    Container,
    ContainerKind,
    MessageSourceType,
    OtherTask,
    SendMailTask,
    Severity,
)

PACKAGES = Path(__file__).parent.parent / "packages"


def package(name: str) -> Package:
    """Return one of the test packages."""
    return read_package(PACKAGES / name)


def mail(of: Package, name: str) -> SendMailTask:
    """Its first Send Mail task of that name."""
    return next(task for task in of.send_mail_tasks if task.name == name)


@pytest.mark.parametrize(
    ("name", "code", "severity"),
    [
        ("By nothing", "no-connection-manager", Severity.DECISION),
        ("Dangling", "dangling-connection-manager", Severity.DECISION),
        ("Dangling and disabled", "dangling-connection-manager", Severity.NOTE),
        ("Not SMTP", "connection-manager-not-smtp", Severity.DECISION),
    ],
)
def test_a_reference_that_leads_nowhere_is_a_finding(name: str, code: str, severity: Severity) -> None:
    """It names the one connection manager that the package has; it does not take it."""
    references = package("references.dtsx")
    (finding,) = [one for one in references.findings if one.where == f"Package\\{name}"]
    assert (finding.code, finding.severity) == (code, severity)
    assert "one SMTP connection manager, 'Relay'" in finding.remedy
    assert mail(references, name).connection is None


def test_a_finding_stays_one_line_whatever_it_repeats(tmp_path: Path) -> None:
    """The reference may be any text."""
    path = tmp_path / "p.dtsx"
    text = (PACKAGES / "mail_2014.dtsx").read_text(encoding="utf-8")
    path.write_text(text.replace("{e675e1d0-0000-0000-0000-000000000001}", "a&#xA;" * 9000), encoding="utf-8")
    (finding,) = read_package(path).findings
    assert len(finding.text) < 600
    assert "\n" not in finding.text


@pytest.mark.parametrize("flag", ['DTS:DisableEventHandlers="True"', ""])
@pytest.mark.parametrize("is_old", [True, False])
def test_event_handlers_that_their_owner_disables_are_disabled(tmp_path: Path, flag: str, *, is_old: bool) -> None:
    """As an attribute or as a property; those of what is in the owner are not."""
    text = (PACKAGES / "containers.dtsx").read_text(encoding="utf-8")
    before = 'DTS:ObjectName="A">'
    assert before in text
    old = '<DTS:Property DTS:Name="DisableEventHandlers">-1</DTS:Property>' if flag else ""
    path = tmp_path / "p.dtsx"
    path.write_text(text.replace(before, f"{before}{old}" if is_old else f'DTS:ObjectName="A" {flag}>'))
    because = {
        "\\".join(task.path): task.disabled_because for task, handler in read_package(path).walk_mail_tasks() if handler
    }
    assert because["Package\\A.EventHandlers[OnTaskFailed]\\Mail"] == ("Package\\A" if flag else None)
    assert because["Package.EventHandlers[OnError]\\Mail"] is None


@pytest.mark.parametrize("name", ["By GUID in lower case", "By name", "By refId"])
def test_a_connection_manager_is_found(name: str) -> None:
    """However it is referred to."""
    references = package("references.dtsx")
    assert mail(references, name).connection is references.connection_managers[0]


@pytest.mark.parametrize(
    ("name", "because"),
    [
        ("True", "Package\\True"),
        ("Minus one", "Package\\Minus one"),
        ("One", "Package\\One"),
        ("Zero", None),
        ("By an expression", None),
        ("By a literal", "Package\\By a literal"),
        ("Below", "Package\\Outer"),
        ("In a handler", "Package.EventHandlers[OnError]"),
    ],
)
def test_what_is_disabled_says_by_what(name: str, because: str | None) -> None:
    """The outermost; an expression takes precedence over the property, and is kept in the model."""
    task = mail(package("disabled.dtsx"), name)
    assert (task.disabled, task.disabled_because) == (because is not None, because)
    assert ("Disable" in task.expressions) == name.startswith("By")


def test_mails_are_found_in_every_container_and_handler() -> None:
    """Nested ones too, with the innermost event handler, and ids that are their own although all are called Mail."""
    containers = package("containers.dtsx")
    found = [("\\".join(task.path), handler and handler.event_name) for task, handler in containers.walk_mail_tasks()]
    assert found == [
        ("Package\\A\\Mail", None),
        ("Package\\A.EventHandlers[OnTaskFailed]\\Mail", "OnTaskFailed"),
        ("Package\\B\\Mail", None),
        ("Package\\C\\D\\Mail", None),
        ("Package\\E\\Mail", None),
        ("Package\\Load.EventHandlers[OnPostExecute]\\Mail", "OnPostExecute"),
        ("Package.EventHandlers[OnError]\\Mail", "OnError"),
        ("Package.EventHandlers[OnError]\\Mail.EventHandlers[OnError]\\Mail", "OnError"),
        ("Package.EventHandlers[OnError].EventHandlers[OnWarning]\\Mail", "OnWarning"),
    ]
    assert len({task.id for task in containers.send_mail_tasks}) == len(found)
    assert [handler.owner for _, handler in containers.walk_mail_tasks() if handler][:2] == [
        ("Package", "A"),
        ("Package", "Load"),
    ]


def test_containers_keep_their_kind() -> None:
    """One that is not known but holds tasks is a task host; a data flow is a neighbor."""
    executables = package("containers.dtsx").root.executables
    kinds = [one.kind for one in executables if isinstance(one, Container)]
    assert kinds == [
        ContainerKind.SEQUENCE,
        ContainerKind.FOR_LOOP,
        ContainerKind.FOREACH_LOOP,
        ContainerKind.TASK_HOST,
    ]
    assert [one.kind for one in executables if isinstance(one, OtherTask)] == ["Microsoft.Pipeline"]


def test_a_text_comes_from_a_variable_or_a_file() -> None:
    """The File connection manager is found by its name or its GUID."""
    sources = package("sources.dtsx")
    assert mail(sources, "From a variable").message_source_type is MessageSourceType.VARIABLE
    assert mail(sources, "From a variable").message_source == "User::Body"
    for name in ("From a file by name", "From a file by GUID"):
        task = mail(sources, name)
        assert task.message_source_type is MessageSourceType.FILE_CONNECTION
        assert task.message_file is sources.file_connections[0]
        assert task.message_file.connection_string == "C:\\mail\\body.txt"


def test_a_source_that_is_not_there_is_a_finding() -> None:
    """So are a type that SSIS does not know, and a mail whose data is encrypted."""
    sources = package("sources.dtsx")
    assert [(one.code, one.where.rpartition("\\")[2]) for one in sources.findings] == [
        ("dangling-file-connection", "From a file that is not there"),
        ("unknown-message-source-type", "From elsewhere"),
        ("unreadable-mail", "Nothing left"),
    ]
    assert mail(sources, "Nothing left").has_unreadable_data
    assert mail(sources, "From elsewhere").priority == "0"


def test_a_mail_task_of_another_vendor_is_a_decision(tmp_path: Path) -> None:
    """It is not a Send Mail task, and without a finding its mail would be lost silently."""
    path = tmp_path / "p.dtsx"
    text = (PACKAGES / "mail_2014.dtsx").read_text(encoding="utf-8")
    path.write_text(text.replace('"STOCK:SQLTask"', '"Vendor.SendMailTaskPlus"'), encoding="utf-8")
    found = read_package(path)
    assert [(one.code, one.where) for one in found.findings] == [("other-mail-task", "Package\\Steps\\Load")]
    assert [task.name for task in found.send_mail_tasks] == ["Tell"]


def test_variables_of_every_scope_are_read() -> None:
    """An expression counts where SSIS evaluates it; an object has no text; System variables are not declarations."""
    variables = package("variables.dtsx")
    assert [(one.qualified_name, one.value, one.expression, one.scope) for one in variables.variables] == [
        ("User::To", "ops@corp.example", None, ("Package",)),
        ("User::Kept", "5", None, ("Package",)),
        ("User::Rows", None, None, ("Package",)),
        ("Own::To", "dba@corp.example", None, ("Package", "A")),
    ]
    (handler,) = variables.root.event_handlers
    assert handler.propagate is True
    assert [one.qualified_name for one in handler.variables] == ["User::Deep"]


def test_a_sensitive_value_is_never_kept() -> None:
    """Nor one that is encrypted."""
    parameters = package("variables.dtsx").parameters
    assert [(one.qualified_name, one.value, one.required, one.sensitive) for one in parameters] == [
        ("$Package::Count", "7", True, False),
        ("$Package::Secret", None, False, True),
        ("$Package::Cipher", None, False, False),
    ]


@pytest.mark.parametrize("name", ["configured.dtsx", "variables.dtsx", "project/Load – all.dtsx"])
def test_no_secret_is_shown(name: str) -> None:
    """Neither by a package nor by what was found in it."""
    assert "hunter2" not in repr(package(name))


def test_an_encrypted_package_says_how_to_decrypt_it() -> None:
    """Nothing of it can be read."""
    with pytest.raises(PackageError, match="completely encrypted") as caught:
        package("encrypted.dtsx")
    assert "dtutil" in caught.value.remedy


def test_a_constraint_that_leads_nowhere_is_left_out(tmp_path: Path) -> None:
    """A person must look at the order."""
    path = tmp_path / "p.dtsx"
    text = (PACKAGES / "mail_2014.dtsx").read_text(encoding="utf-8")
    path.write_text(text.replace('DTS:From="Package\\Steps"', 'DTS:From="Package\\Gone"'), encoding="utf-8")
    found = read_package(path)
    assert found.root.constraints == ()
    assert [(one.code, one.severity) for one in found.findings] == [
        ("dangling-precedence-constraint", Severity.DECISION)
    ]


def test_or_between_constraints_is_what_2012_does_not_write(tmp_path: Path) -> None:
    """LogicalAnd False is left out from 2012 on, as every False is."""
    path = tmp_path / "p.dtsx"
    text = (PACKAGES / "mail_2014.dtsx").read_text(encoding="utf-8")
    path.write_text(text.replace(' DTS:LogicalAnd="True"', ""), encoding="utf-8")
    assert [one.logical_and for one in read_package(path).root.constraints] == [False]


@pytest.mark.parametrize("name", ["mail_2008.dtsx", "mail_2014.dtsx"])
def test_whatever_depth_is_not_refused_is_read(tmp_path: Path, name: str) -> None:
    """As many nested containers as the limit of the XML allows."""
    old = "2008" in name
    head = '<DTS:Executable xmlns:DTS="www.microsoft.com/SqlServer/Dts">'
    head += f'<DTS:Property DTS:Name="PackageFormatVersion">{3 if old else 8}</DTS:Property>'
    before, after = ('<DTS:Executable DTS:ExecutableType="STOCK:SEQUENCE">', "</DTS:Executable>")
    if not old:
        before, after = f"<DTS:Executables>{before}", f"{after}</DTS:Executables>"
    depth = 98 if old else 49
    path = tmp_path / "p.dtsx"
    path.write_text(head + before * depth + after * depth + "</DTS:Executable>")
    package = read_package(path)
    assert sum(1 for _ in package.walk_executables()) == depth + 1
    assert repr(package)


def test_a_package_names_itself_after_its_file_where_it_has_no_name(tmp_path: Path) -> None:
    """Nothing else identifies it to a person."""
    path = tmp_path / "Nightly load.dtsx"
    path.write_text('<DTS:Executable xmlns:DTS="www.microsoft.com/SqlServer/Dts"/>')
    assert read_package(path).name == "Nightly load"
