"""One package, written by four versions of SSIS, is one model; and so is any package that could be written."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis import read_package
from airflow_provider_smtpcm.ssis.model import (
    ConstraintValue,
    Container,
    ContainerKind,
    DatabaseConnection,
    DatabaseKind,
    EvalOp,
    EventHandler,
    Executable,
    ExpressionTask,
    ForeachLoop,
    ForLoop,
    MessageSourceType,
    OtherTask,
    Package,
    PrecedenceConstraint,
    ResultSetType,
    SendMailTask,
    SmtpConnection,
    SqlParameter,
    SqlResult,
    SqlSourceType,
    SqlTask,
    Variable,
)
from airflow_provider_smtpcm.ssis.reading.packages import ReadOptions, build_package
from airflow_provider_smtpcm.ssis.reading.xml import read_document
from tests.ssis.writing_packages import Writer

PACKAGES = Path(__file__).parent.parent / "packages"
VERSIONS = (2, 3, 6, 8)
# What XML can hold and what does not depend on how a dialect keeps blanks.
characters = st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
words = st.text(characters, max_size=12)
names = st.text(st.characters(categories=("L", "N"), include_characters=" /-_&<"), min_size=1, max_size=8).map(
    lambda name: f"n{name}"
)
lines = st.text(st.one_of(characters, st.just("\n")), max_size=20)
expression_maps = st.dictionaries(
    st.sampled_from(["ToLine", "Subject", "MessageSource", "Priority"]), lines.filter(str.strip), max_size=2
)
variable_lists = st.lists(
    st.sampled_from(["User::Rows", "User::größe", "Rows", "System::TaskName", "Audit::Id"]), max_size=3, unique=True
).map(tuple)
stripped = lines.map(str.strip)
for_loops = st.builds(ForLoop, initialize=stripped, condition=stripped, assign=stripped)
mappings = st.lists(st.tuples(st.integers(0, 5), st.just("User::Rows")), max_size=3).map(sorted).map(tuple)
foreach_loops = st.one_of(
    st.builds(
        ForeachLoop,
        enumerator=st.just("ADO"),
        enumeration=st.sampled_from(["EnumerateRowsInFirstTable", "EnumerateAllRows"]),
        variable=st.just("User::People"),
        mappings=mappings,
    ),
    st.builds(
        ForeachLoop,
        enumerator=st.just("File"),
        folder=words,
        file_spec=words,
        recurse=st.booleans(),
        file_name_retrieval=st.integers(0, 2),
        mappings=mappings,
        expressions=st.dictionaries(st.just("Directory"), lines.filter(str.strip), max_size=1),
    ),
    st.builds(
        ForeachLoop,
        enumerator=st.just("Item"),
        items=st.lists(st.lists(words, min_size=1, max_size=2).map(tuple), max_size=2).map(tuple),
        mappings=mappings,
    ),
)
sources = st.sampled_from([MessageSourceType.DIRECT_INPUT, MessageSourceType.VARIABLE])


class Shape:
    """Draws a package, with ids that count up."""

    def __init__(self, draw: Callable[..., object]) -> None:
        self.draw = draw
        self.count = 0
        self.connection = SmtpConnection(
            name=draw(names),
            id=self.guid(),
            description=draw(words),
            connection_string=draw(words),
            expressions=draw(st.dictionaries(st.just("SmtpServer"), words.filter(str.strip), max_size=1)),
            source="p.dtsx",
        )
        self.database = DatabaseConnection(
            name=f"database {draw(names)}",
            id=self.guid(),
            kind=draw(st.sampled_from(list(DatabaseKind))),
            connection_string=f"Data Source={draw(names)};",
            expressions=draw(st.dictionaries(st.just("ServerName"), words.filter(str.strip), max_size=1)),
            source="p.dtsx",
            provider=draw(st.sampled_from(["", "SQL"])),
        )

    def guid(self) -> str:
        self.count += 1
        return f"{{ABCDEF00-0000-0000-0000-{self.count:012}}}"

    def variables(self, scope: tuple[str, ...]) -> tuple[Variable, ...]:
        found = self.draw(st.lists(st.tuples(names, lines, st.none() | words.filter(str.strip)), max_size=2))
        return tuple(
            Variable(namespace="User", name=name, value=value, expression=expression, scope=scope)
            for name, value, expression in found
        )

    def handlers(self, path: tuple[str, ...], because: str | None, depth: int) -> tuple[EventHandler, ...]:
        if depth > 2 or not self.draw(st.booleans()):
            return ()
        inner = (*path[:-1], f"{path[-1]}.EventHandlers[OnError]")
        executables, constraints = self.inside(inner, because, depth + 1)
        handler = EventHandler(
            event_name="OnError",
            owner=path,
            id=self.guid(),
            executables=executables,
            constraints=constraints,
            variables=self.variables(inner),
            event_handlers=self.handlers(inner, because, depth + 2),
            disabled=because is not None,
            disabled_because=because,
        )
        return (handler,)

    def inside(
        self, path: tuple[str, ...], because: str | None, depth: int
    ) -> tuple[tuple[Executable, ...], tuple[PrecedenceConstraint, ...]]:
        count = self.draw(st.integers(0, 3 if depth < 3 else 1))
        executables = tuple(self.executable(path, number, because, depth) for number in range(count))
        constraints = tuple(
            PrecedenceConstraint(
                before=before.id,
                after=after.id,
                name=self.draw(names),
                value=self.draw(st.sampled_from(list(ConstraintValue))),
                eval_op=self.draw(st.sampled_from(list(EvalOp))),
                expression=self.draw(st.none() | words.filter(str.strip)),
                logical_and=self.draw(st.booleans()),
            )
            for before, after in pairwise(executables)
        )
        return executables, constraints

    def executable(self, around: tuple[str, ...], number: int, because: str | None, depth: int) -> Executable:
        name = f"{self.draw(names)}{number}"
        path = (*around, name)
        because = because or ("\\".join(path) if self.draw(st.integers(0, 4)) == 0 else None)
        common = {
            "name": name,
            "id": self.guid(),
            "path": path,
            "description": self.draw(words),
            "expressions": self.draw(expression_maps),
            "disabled": because is not None,
            "disabled_because": because,
            "variables": self.variables(path),
            "event_handlers": self.handlers(path, because, depth + 1),
            "force_result": self.draw(st.sampled_from(["", "", "", "success", "failure", "completion"])),
            "maximum_errors": self.draw(st.sampled_from([1, 1, 0, 5])),
        }
        tasks = ["mail", "mail", "sql", "expression", "other"]
        kind = self.draw(st.sampled_from([*tasks, "container"] if depth < 3 else tasks))
        if kind == "sql":
            return self.sql_task(common)
        if kind == "expression":
            return ExpressionTask(**common, expression=self.draw(lines))
        if kind == "other":
            kind = self.draw(st.sampled_from(["Microsoft.Pipeline", "Microsoft.ScriptTask"]))
            reads = self.draw(variable_lists) if kind == "Microsoft.ScriptTask" else ()
            sets = tuple(name for name in self.draw(variable_lists) if name not in reads)
            updates = sets if kind == "Microsoft.ScriptTask" else ()  # without its code
            return OtherTask(**common, kind=kind, sets=sets, reads=reads, updates=updates)
        if kind == "container":
            executables, constraints = self.inside(path, because, depth + 1)
            kinds = [ContainerKind.SEQUENCE, ContainerKind.FOR_LOOP, ContainerKind.FOREACH_LOOP]
            container = self.draw(st.sampled_from(kinds))
            return Container(
                **common,
                kind=container,
                executables=executables,
                constraints=constraints,
                for_loop=self.draw(for_loops) if container is ContainerKind.FOR_LOOP else None,
                foreach_loop=self.draw(foreach_loops) if container is ContainerKind.FOREACH_LOOP else None,
            )
        return SendMailTask(
            **common,
            connection=self.connection,
            connection_reference=self.connection.id.lower(),
            from_line=self.draw(words),
            to_line=self.draw(words),
            cc_line=self.draw(words),
            bcc_line=self.draw(words),
            subject=self.draw(words),
            message_source_type=self.draw(sources),
            message_source=self.draw(lines),
            priority=self.draw(st.sampled_from(["High", "Normal", "Low", "0"])),
            file_attachments=self.draw(words.filter(lambda text: not text or text.strip())),
        )

    def sql_task(self, common: dict[str, Any]) -> SqlTask:
        known = self.draw(st.booleans())
        return SqlTask(
            **common,
            connection=self.database if known else None,
            connection_reference=self.database.id.lower() if known else "{no}",
            source_type=self.draw(st.sampled_from([SqlSourceType.DIRECT_INPUT, SqlSourceType.VARIABLE])),
            statement=self.draw(lines),
            result_set=self.draw(st.sampled_from(list(ResultSetType))),
            results=tuple(SqlResult(name="0", variable=name) for name in self.draw(variable_lists)),
            parameters=tuple(
                SqlParameter(
                    name=str(number),
                    variable=name,
                    direction=self.draw(st.sampled_from(["Input", "Output", "ReturnValue"])),
                    data_type=self.draw(st.integers(0, 200)),
                    size=self.draw(st.integers(-1, 50)),
                )
                for number, name in enumerate(self.draw(variable_lists))
            ),
            is_stored_procedure=self.draw(st.booleans()),
            timeout=self.draw(st.integers(0, 90)),
        )


@st.composite
def packages(draw: Callable[..., object]) -> Package:
    """Any package, small."""
    shape = Shape(draw)
    because = "Package" if draw(st.integers(0, 9)) == 0 else None
    executables, constraints = shape.inside(("Package",), because, 0)
    root = Container(
        name=draw(names),
        id=shape.guid(),
        path=("Package",),
        kind=ContainerKind.PACKAGE,
        executables=executables,
        constraints=constraints,
        variables=shape.variables(("Package",)),
        event_handlers=shape.handlers(("Package",), because, 0),
        disabled=because is not None,
        disabled_because=because,
    )
    return Package(
        name=root.name,
        id=root.id,
        path="p.dtsx",
        root=root,
        connection_managers=(shape.connection,),
        database_connections=(shape.database,),
        format_version=8,
    )


def read_text(text: str | bytes, path: str = "p.dtsx") -> Package:
    """A package from its text."""
    octets = text if isinstance(text, bytes) else text.encode()
    return build_package(read_document(io.BytesIO(octets), path).root, path, ReadOptions())


@pytest.mark.parametrize("version", VERSIONS)
@given(package=packages())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_what_is_written_is_read(version: int, package: Package) -> None:
    """In every dialect: defaults left out or written, properties before or after the children."""
    assert read_text(Writer(version).package(package)) == replace(package, format_version=version)


@given(package=packages(), version=st.sampled_from(VERSIONS), data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_damaged_package_is_an_error_or_a_package(version: int, package: Package, data: st.DataObject) -> None:
    """Never anything else, wherever octets are lost, changed or put in."""
    octets = bytearray(Writer(version).package(package).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(octets) - 1))
        octets[at : at + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=6))
        if not octets:
            break
    with suppress(PackageError):
        read_text(bytes(octets))


@given(octets=st.binary(max_size=300))
@settings(deadline=None)
def test_any_octets_are_an_error(octets: bytes) -> None:
    """By the file's name, with what to do."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "noise.dtsx")
        path.write_bytes(octets)
        with pytest.raises(PackageError, match=r"noise\.dtsx"):
            read_package(path)


def bare(package: Package) -> Package:
    """Without the name of the file that it came from."""
    return read_text(Path(package.path).read_bytes())


@pytest.mark.parametrize(("year", "version"), [(2005, 2), (2008, 3), (2012, 6), (2014, 8)])
def test_every_version_of_ssis_says_the_same(year: int, version: int) -> None:
    """But for the name that it gives to an Execute SQL task, all is equal."""
    newest = bare(read_package(PACKAGES / "mail_2014.dtsx"))
    package = read_package(PACKAGES / f"mail_{year}.dtsx")
    assert package.format_version == version
    assert replace(bare(package), format_version=8) == newest


def test_the_values_in_the_package_are_read() -> None:
    """So that four equal readings are not four equal mistakes."""
    package = read_package(PACKAGES / "mail_2008.dtsx")
    (task,) = package.send_mail_tasks
    assert task.connection is package.connection_managers[0]
    assert task.connection.connection_string.startswith("SmtpServer=mail.corp.example;")
    assert task.connection.expressions == {"SmtpServer": "@[User::Server]"}
    assert task.to_line == "ops@corp.example;dba@corp.example;"
    assert task.message_source == "One\ntwo"
    assert task.file_attachments == "\\\\srv\\a.csv|c:\\b.txt|"
    assert task.expressions == {"MessageSource": "@[System::ErrorDescription]"}
    assert (task.priority, task.cc_line, task.disabled) == ("Normal", "", False)
    (constraint,) = package.root.constraints
    assert (constraint.value, constraint.eval_op) == (ConstraintValue.FAILURE, EvalOp.EXPRESSION_AND_CONSTRAINT)
    assert constraint.after == task.id
    assert package.root.event_handlers[0].propagate is False
    assert [variable.expression for variable in package.variables] == ['"mail" + ".corp.example"']
    assert package.findings == ()


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("utf-8", "utf-8-sig"),
        ("utf-8", "utf-16"),
        ("utf-16", "utf-16"),
        ("utf-16", "utf-8"),
        ("utf-16", "utf-8-sig"),
        ("UTF-16", "utf-16-le"),
        ("iso-8859-1", "iso-8859-1"),
        ("windows-1252", "cp1252"),
    ],
)
def test_every_encoding_that_occurs_is_read(declared: str, encoding: str) -> None:
    """Whatever encoding is declared: exports from msdb and PowerShell declare a wrong one."""
    text = (PACKAGES / "mail_2014.dtsx").read_text(encoding="utf-8").partition("?>")[2]
    text = text.replace("Load failed", "Größe")
    octets = f'<?xml version="1.0" encoding="{declared}"?>{text}'.encode(encoding)
    assert read_text(octets).send_mail_tasks[0].subject == "Größe"
