"""A tree of SSIS packages like that of a company, made from a seed: all formats, projects, builds, and mail in some.

All names, servers and texts are invented. `benchmarks.ssis_spoilt` damages what is made here.
"""

from __future__ import annotations

import random
import uuid
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

DTS = "www.microsoft.com/SqlServer/Dts"
MAIL = "www.microsoft.com/sqlserver/dts/tasks/sendmailtask"
OLD = "Microsoft.SqlServer.Dts.Tasks.SendMailTask.SendMailTask, Microsoft.SqlServer.SendMailTask, Version=10.0.0.0"
_TABLES = ("orders", "customers", "Rückläufer", "stock", "prices", "ledger", "shipments", "Überweisungen")
_VERBS = ("Load", "Export", "Check", "Archive", "Merge")
_TO = ("operations@corp.example", "dba@corp.example; finance@corp.example;", "ops@corp.example;dba@corp.example")
_STRINGS = (
    "SmtpServer=mail.corp.example;UseWindowsAuthentication=True;EnableSsl=False;",
    "SmtpServer=relay.corp.example;UseWindowsAuthentication=False;EnableSsl=False;",
    "SmtpServer=exchange.corp.example;UseWindowsAuthentication=True;EnableSsl=True;Timeout=30;",
    "SmtpServer=192.0.2.25;UseWindowsAuthentication=False;EnableSsl=True;",
    "SmtpServer=;UseWindowsAuthentication=True;EnableSsl=False;",
)
_EXPRESSIONS: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("Subject", '"Failed: " + @[System::PackageName]'), ("MessageSource", "@[System::ErrorDescription]")),
    (("ToLine", "@[User::MailTo]"),),
    (("MessageSource", '"Rows: " + (DT_WSTR, 12)@[User::Rows] + "\\nDate: " + (DT_WSTR, 10)(DT_DBDATE)GETDATE()'),),
    (
        ("Disable", "@[User::Rows] > 0 ? FALSE : TRUE"),
        ("ToLine", '@[User::Rows] == 0 ? "a@corp.example" : @[User::MailTo]'),
    ),
    (("FileAttachments", '"\\\\\\\\files\\\\loads\\\\" + @[User::Table] + ".csv"'),),
    (("Subject", "UPPER(@[User::Table]) + CODEPOINT(@[User::Table])"),),
    (("Subject", '"unfinished " + @[User::Nobody'),),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The counts of a tree."""

    folder: Path
    packages: int = 0
    with_mail: int = 0
    octets: int = 0
    files: tuple[Path, ...] = field(default=(), repr=False)


def make_tree(folder: Path, count: int, *, seed: int = 1, with_mail: float = 0.12, big: int = 0) -> Tree:
    """Write packages, in projects of about twenty.

    Args:
        with_mail: the share of packages that send mail.
        big: how many packages contain a data flow of 4 MB.
    """
    chance = random.Random(seed)  # noqa: S311
    files: list[Path] = []
    mails = octets = 0
    project = folder
    shared: str | None = None
    for number in range(count):
        if number % 20 == 0:
            project = folder / f"team {number // 200:02}" / f"Project{number // 20:04}"
            project.mkdir(parents=True)
            shared = None
            if chance.random() < 0.4:
                (project / f"{project.name}.dtproj").write_text("<Project/>", encoding="utf-8")
                shared = _guid(chance)
                manager = _manager(shared, "Mail of the project", chance.choice(_STRINGS), root=True)
                (project / "Mail.conmgr").write_text(f'<?xml version="1.0"?>\n{manager}', encoding="utf-8")
        has_mail = chance.random() < with_mail
        version = chance.choices((2, 3, 6, 8), weights=(2, 13, 18, 67))[0]
        name = f"{chance.choice(_VERBS)} {chance.choice(_TABLES)} {number}"
        text = package(
            chance,
            name=name,
            version=version,
            mails=chance.choice((1, 1, 1, 2, 3, 8)) if has_mail else 0,
            shared=shared,
            filling=4_000_000 if number < big else chance.choice((2_000, 20_000, 60_000)),
        )
        path = project / f"{name}.dtsx"
        data = text.encode("utf-8-sig" if chance.random() < 0.3 else "utf-8")
        path.write_bytes(data)
        files.append(path)
        mails += has_mail
        octets += len(data)
        if number % 20 == 19 and shared and chance.random() < 0.5:
            _build(project)
    return Tree(folder=folder, packages=count, with_mail=mails, octets=octets, files=tuple(files))


def package(
    chance: random.Random, *, name: str, version: int = 8, mails: int = 1, shared: str | None = None, filling: int = 0
) -> str:
    """Return a package of that format; `filling` is the size of its data flow in characters."""
    own = _guid(chance)
    manager = (
        "" if shared and chance.random() < 0.5 else _manager(own, "SMTP", chance.choice(_STRINGS), old=version < 6)
    )
    reference = own if manager else (shared or own)
    if chance.random() < 0.04:
        reference = _guid(chance)  # leads nowhere
    steps, arrows = [_other(_guid(chance), "Load", old=version < 6, parent="Package")], []
    handlers = ""
    for number in range(mails):
        guid = _guid(chance)
        title = f"Send Mail {number}" if number else "Send Mail"
        where = chance.choice(("flow", "flow", "container", "handler"))
        if where == "handler":
            inner = _mail(chance, guid, title, reference, version=version, parent="Package.EventHandlers[OnError]")
            handlers += _handler(inner, old=version < 6)
        elif where == "container":
            box = f"Sequence {number}"
            inner = _mail(chance, guid, title, reference, version=version, parent=f"Package\\{box}")
            steps.append(_container(_guid(chance), box, inner, old=version < 6))
        else:
            steps.append(_mail(chance, guid, title, reference, version=version, parent="Package"))
            arrows.append(_arrow(title, guid, steps[0], chance.choice((0, 1, 2)), old=version < 6))
    variables = "".join(
        _variable(one, value, kind, old=version < 6)
        for one, value, kind in (
            ("MailTo", "ops@corp.example", 8),
            ("Rows", "12", 3),
            ("Table", chance.choice(_TABLES), 8),
        )
    )
    other = _data_flow(chance, filling, old=version < 6)
    if version < 6:
        return (
            f'<?xml version="1.0"?>\n'
            f'<DTS:Executable xmlns:DTS="{DTS}" DTS:ExecutableType="MSDTS.Package.{version - 1}">'
            f"{_property('PackageFormatVersion', version)}{manager}{variables}{''.join(steps)}{other}{''.join(arrows)}"
            f"{handlers}{_property('ObjectName', name)}{_property('DTSID', _guid(chance))}</DTS:Executable>"
        )
    wrap = f"<DTS:EventHandlers>{handlers}</DTS:EventHandlers>" if handlers else ""
    return (
        f'<?xml version="1.0"?>\n<DTS:Executable xmlns:DTS="{DTS}" DTS:refId="Package" '
        f'DTS:CreationName="Microsoft.Package" '
        f'DTS:DTSID="{_guid(chance)}" DTS:ExecutableType="Microsoft.Package" DTS:ObjectName={quoteattr(name)}>'
        f"{_property('PackageFormatVersion', version)}<DTS:ConnectionManagers>{manager}</DTS:ConnectionManagers>"
        f"<DTS:Variables>{variables}</DTS:Variables><DTS:Executables>{''.join(steps)}{other}</DTS:Executables>"
        f"<DTS:PrecedenceConstraints>{''.join(arrows)}</DTS:PrecedenceConstraints>{wrap}</DTS:Executable>"
    )


def _guid(chance: random.Random) -> str:
    text = str(uuid.UUID(int=chance.getrandbits(128)))
    return "{" + (text.upper() if chance.random() < 0.7 else text) + "}"


def _property(name: str, value: object) -> str:
    return f'<DTS:Property DTS:Name="{name}">{escape(str(value))}</DTS:Property>'


def _manager(guid: str, name: str, string: str, *, old: bool = False, root: bool = False) -> str:
    data = f"<DTS:ObjectData><SmtpConnectionManager ConnectionString={quoteattr(string)}/></DTS:ObjectData>"
    namespace = f' xmlns:DTS="{DTS}"' if root else ""
    if old:
        told = _property("ObjectName", name) + _property("DTSID", guid) + _property("CreationName", "SMTP")
        return f"<DTS:ConnectionManager{namespace}>{told}{data}</DTS:ConnectionManager>"
    return (
        f'<DTS:ConnectionManager{namespace} DTS:refId="Package.ConnectionManagers[{name}]" DTS:CreationName="SMTP" '
        f'DTS:DTSID="{guid}" DTS:ObjectName="{name}">{data}</DTS:ConnectionManager>'
    )


def _variable(name: str, value: str, kind: int, *, old: bool) -> str:
    inner = f'<DTS:VariableValue DTS:DataType="{kind}">{escape(value)}</DTS:VariableValue>'
    if old:
        told = _property("Namespace", "User") + _property("EvaluateAsExpression", 0)
        return f"<DTS:Variable>{told}{inner}{_property('ObjectName', name)}</DTS:Variable>"
    return f'<DTS:Variable DTS:Namespace="User" DTS:ObjectName="{name}">{inner}</DTS:Variable>'


def _executable(guid: str, name: str, inner: str, *, kind: str, parent: str, old: bool, disabled: bool = False) -> str:
    if old:
        told = _property("Disabled", -1 if disabled else 0) + _property("ObjectName", name) + _property("DTSID", guid)
        return f'<DTS:Executable DTS:ExecutableType="{kind}">{inner}{told}</DTS:Executable>'
    off = ' DTS:Disabled="True"' if disabled else ""
    ref = quoteattr(rf"{parent}\{name}")
    return (
        f'<DTS:Executable DTS:refId={ref} DTS:CreationName="{kind}" DTS:DTSID="{guid}" '
        f'DTS:ExecutableType="{kind}" DTS:ObjectName={quoteattr(name)}{off}>{inner}</DTS:Executable>'
    )


def _other(guid: str, name: str, *, old: bool, parent: str) -> str:
    return _executable(guid, name, "<DTS:ObjectData/>", kind="Microsoft.ExecuteSQLTask", parent=parent, old=old)


def _container(guid: str, name: str, inner: str, *, old: bool) -> str:
    kind = "STOCK:SEQUENCE"
    inner = inner if old else f"<DTS:Executables>{inner}</DTS:Executables>"
    return _executable(guid, name, inner, kind=kind, parent="Package", old=old)


def _handler(inner: str, *, old: bool) -> str:
    if old:
        return f"<DTS:EventHandler>{_property('EventName', 'OnError')}{inner}</DTS:EventHandler>"
    return (
        '<DTS:EventHandler DTS:refId="Package.EventHandlers[OnError]" DTS:EventName="OnError">'
        f"<DTS:Executables>{inner}</DTS:Executables></DTS:EventHandler>"
    )


def _arrow(title: str, guid: str, _first: str, value: int, *, old: bool) -> str:
    if old:
        first = _first.rpartition('"DTSID">')[2].partition("<")[0]
        return (
            f'<DTS:PrecedenceConstraint><DTS:Executable IDREF="{first}" DTS:IsFrom="-1"/>'
            f'<DTS:Executable IDREF="{guid}" DTS:IsFrom="0"/>{_property("Value", value)}{_property("EvalOp", 2)}'
            "</DTS:PrecedenceConstraint>"
        )
    to = quoteattr(rf"Package\{title}")
    return (
        f'<DTS:PrecedenceConstraint DTS:From="Package\\Load" DTS:To={to} '
        f'DTS:LogicalAnd="True" DTS:ObjectName="Constraint" DTS:Value="{value}"/>'
    )


def _mail(chance: random.Random, guid: str, name: str, reference: str, *, version: int, parent: str) -> str:
    told = {
        "SMTPServer": reference,
        "From": "ETL <etl@corp.example>",
        "To": chance.choice(_TO),
        "CC": chance.choice(("", "audit@corp.example")),
        "BCC": "",
        "Subject": f"{name}: {{{{ done }}}} 100 %",
        "Priority": chance.choice(("Normal", "High", "Low", "0")),
        "MessageSourceType": chance.choice(("DirectInput", "DirectInput", "Variable")),
        "MessageSource": "All rows were loaded.\nRegards,\nETL",
    }
    if told["MessageSourceType"] == "Variable":
        told["MessageSource"] = "User::Table"
    written = "".join(
        f" SendMailTask:{key}={quoteattr(value, {chr(10): '&#xA;'})}"
        for key, value in told.items()
        if value or version < 6
    )
    files = chance.choice(("", "", r"\\files\loads\rows.csv|c:\temp\log.txt|", r"d:\out\report.html"))
    files = f"<SendMailTask:Attachments SendMailTask:FileName={quoteattr(files)}/>" if files else ""
    data = (
        f'<DTS:ObjectData><SendMailTask:SendMailTaskData xmlns:SendMailTask="{MAIL}"{written}>{files}'
        "</SendMailTask:SendMailTaskData></DTS:ObjectData>"
    )
    expressions = "".join(
        f'<DTS:PropertyExpression DTS:Name="{key}">{escape(text)}</DTS:PropertyExpression>'
        for key, text in chance.choice(_EXPRESSIONS)
    )
    kind = OLD if version < 8 else "Microsoft.SendMailTask"
    disabled = chance.random() < 0.15
    return _executable(guid, name, expressions + data, kind=kind, parent=parent, old=version < 6, disabled=disabled)


def _data_flow(chance: random.Random, octets: int, *, old: bool) -> str:
    column = (
        '<outputColumn refId="Package\\Flow\\Source.Outputs[Out].Columns[{0}]" dataType="wstr" length="50" '
        'lineageId="Package\\Flow\\Source.Outputs[Out].Columns[{0}]" name="{0}" errorRowDisposition="FailComponent"/>'
    )
    count = octets // len(column)
    inner = "".join(column.format(f"c{number}") for number in range(count))
    data = (
        f"<DTS:ObjectData><pipeline><components><component>{inner}</component></components></pipeline></DTS:ObjectData>"
    )
    return _executable(_guid(chance), "Flow", data, kind="Microsoft.Pipeline", parent="Package", old=old)


def _build(project: Path) -> None:
    """Write what a build in Visual Studio leaves: the project as one file, and copies."""
    output = project / "bin" / "Development"
    output.mkdir(parents=True)
    with zipfile.ZipFile(output / f"{project.name}.ispac", "w", zipfile.ZIP_DEFLATED) as ispac:
        ispac.writestr("@Project.manifest", "<SSIS:Project xmlns:SSIS='www.microsoft.com/SqlServer/SSIS'/>")
        for path in sorted(project.glob("*.dtsx")):
            ispac.write(path, quote(path.name))
