"""Package configurations and project parameters that set properties of tasks, loops and databases."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest

from airflow_provider_smtpcm.ssis import Package, read_package, read_project
from airflow_provider_smtpcm.ssis.model import Container, ExpressionTask, ForLoop, SqlSourceType, SqlTask
from tests.ssis.reading.test_parameters import dtproj, manifest, parameters
from tests.ssis.reading.test_tasks import (
    DIALECTS,
    NAMESPACE,
    NEW,
    NEW_SQL,
    collection,
    executable,
    foreach,
    manager,
    task,
)


def configured(folder: Path, version: int, values: dict[str, str], *executables: str, managers: str = "") -> Package:
    """Return a package with these executables, to whose properties a configuration file assigns values."""
    items = "".join(
        f'<Configuration ConfiguredType="Property" Path={quoteattr(path)} ValueType="String">'
        f"<ConfiguredValue>{escape(value)}</ConfiguredValue></Configuration>"
        for path, value in values.items()
    )
    config = folder / "all.dtsConfig"
    config.write_text(f"<DTSConfiguration>{items}</DTSConfiguration>", encoding="utf-8")
    path = folder / "p.dtsx"
    path.write_text(
        f'<DTS:Executable {NAMESPACE} DTS:ExecutableType="Microsoft.Package">'
        f'<DTS:Property DTS:Name="PackageFormatVersion">{version}</DTS:Property>'
        f"{collection(version, 'ConnectionManagers', managers)}"
        f"{collection(version, 'Executables', ''.join(executables))}</DTS:Executable>",
        encoding="utf-8",
    )
    return read_package(path, configurations=[config])


@pytest.mark.parametrize("version", DIALECTS)
def test_a_configuration_sets_properties_of_tasks_and_loops(tmp_path: Path, version: int) -> None:
    """By SSIS's names of the properties, which are not always those in the file."""
    package = configured(
        tmp_path,
        version,
        {
            r"\Package\Sql.Properties[SqlStatementSource]": "User::Statement",
            r"\Package\Sql.Properties[SqlStatementSourceType]": "3",
            r"\Package\Sql.Properties[TimeOut]": "60",
            r"\Package\Sql.Properties[ForceExecutionResult]": "0",
            r"\Package\Sql.Properties[MaximumErrorCount]": "7",
            r"\Package\Set.Properties[Expression]": "@A = 1",
            r"\Package\For.Properties[EvalExpression]": "@i < 9",
            r"\Package\Each.ForEachEnumerator.Properties[Directory]": r"\\srv\in",
            r"\Package\Off.Properties[Disable]": "-1",
            r"\Package\On.Properties[Disable]": "False",
        },
        task(version, "Microsoft.ExecuteSQLTask", NEW_SQL, "Sql"),
        task(version, "Microsoft.ExpressionTask", '<ExpressionTask Expression="@A = 0"/>', "Set"),
        executable(version, "STOCK:FORLOOP", "", "For", EvalExpression="@i == 3"),
        foreach(version, "Microsoft.ForEachFileEnumerator", "").replace("Task", "Each"),
        executable(version, "STOCK:SEQUENCE", "", "Off"),
        executable(version, "STOCK:SEQUENCE", "", "On", Disabled="-1"),
    )
    sql, expression, for_loop, foreach_loop, off, on = package.root.executables
    assert isinstance(sql, SqlTask)
    assert (sql.statement, sql.source_type, sql.timeout) == ("User::Statement", SqlSourceType.VARIABLE, 60)
    assert (sql.force_result, sql.maximum_errors) == ("success", 7)
    assert isinstance(expression, ExpressionTask)
    assert expression.expression == "@A = 1"
    assert isinstance(for_loop, Container)
    assert for_loop.for_loop == ForLoop(condition="@i < 9")
    assert isinstance(foreach_loop, Container)
    assert foreach_loop.foreach_loop is not None
    assert foreach_loop.foreach_loop.folder == r"\\srv\in"
    assert (off.disabled, off.disabled_because, on.disabled) == (True, r"Package\Off", False)


@pytest.mark.parametrize("version", DIALECTS)
def test_a_configuration_sets_properties_of_a_database(tmp_path: Path, version: int) -> None:
    """A password is not kept, wherever it stands."""
    package = configured(
        tmp_path,
        version,
        {
            r"\Package.Connections[db].Properties[ServerName]": "prod",
            r"\Package.Connections[db].Properties[InitialCatalog]": "sales",
            r"\Package.Connections[other].Properties[ConnectionString]": "Data Source=prod;Password=hunter2;",
        },
        managers=manager(version, "OLEDB", "Data Source=dev;Provider=X;")
        + manager(version, "OLEDB", "Data Source=dev;", name="other"),
    )
    database, other = package.database_connections
    assert database.connection_string == "Data Source=prod;Provider=X;Initial Catalog=sales;"
    assert (other.connection_string, other.has_password) == ("Data Source=prod;", True)


def test_a_project_parameter_sets_properties_of_its_databases(tmp_path: Path) -> None:
    """As it does for the project's SMTP connection managers; a package finds them by their GUID."""
    text = manager(NEW, "OLEDB", "Data Source=dev;Initial Catalog=sales;").replace(
        "<DTS:ConnectionManager", f"<DTS:ConnectionManager {NAMESPACE}", 1
    )
    (tmp_path / "db.conmgr").write_text(text, encoding="utf-8")
    values = {"CM.db.ServerName": "prod", "CM.db.InitialCatalog": "sales", "CM.db.UserName": "etl"}
    (tmp_path / "p.dtproj").write_text(dtproj(manifest(parameters(values))), encoding="utf-8")
    configured(tmp_path, NEW, {}, task(NEW, "Microsoft.ExecuteSQLTask", NEW_SQL))
    project = read_project(tmp_path)
    (database,) = project.database_connections
    assert database.connection_string == "Data Source=prod;Initial Catalog=sales;User ID=etl;"
    assert [setting.source for setting in database.set_by] == [str(tmp_path / "p.dtproj")]
    (package,) = project.packages
    (found,) = package.root.executables
    assert isinstance(found, SqlTask)
    assert found.connection is database
    assert package.database_connections == ()


def test_what_is_unread_and_in_effect_is_listed() -> None:
    """Not what was read; nothing where configurations are switched off."""
    packages = Path(__file__).parent.parent / "packages"
    package = read_package(packages / "configured.dtsx")
    names = [configuration.name for configuration in package.unread_configurations]
    assert names == ["Table", "Environment", "Registry", "Parent", "Indirect"]
