"""Execute SQL, Expression and other tasks, loops and databases: what they set and read, in both dialects."""

from __future__ import annotations

import io
from typing import Any, TypeVar
from xml.sax.saxutils import quoteattr

import pytest

from airflow_provider_smtpcm.ssis.model import (
    Container,
    DatabaseKind,
    Executable,
    ExpressionTask,
    ForLoop,
    OtherTask,
    Package,
    ResultSetType,
    SqlParameter,
    SqlResult,
    SqlSourceType,
    SqlTask,
)
from airflow_provider_smtpcm.ssis.reading.packages import ReadOptions, build_package
from airflow_provider_smtpcm.ssis.reading.xml import read_document

NAMESPACE = 'xmlns:DTS="www.microsoft.com/SqlServer/Dts"'
SQL = 'xmlns:SQLTask="www.microsoft.com/sqlserver/dts/tasks/sqltask"'
GUID = "{11111111-0000-0000-0000-000000000001}"
OLD, NEW = 3, 8
DIALECTS = (OLD, NEW)
# The types of tasks in SSIS 2008 and 2014.
KINDS = {
    "Microsoft.ExecuteSQLTask": "Microsoft.SqlServer.Dts.Tasks.ExecuteSQLTask.ExecuteSQLTask, Microsoft.SqlServer.X",
    "Microsoft.ScriptTask": "Microsoft.SqlServer.Dts.Tasks.ScriptTask.ScriptTask, Microsoft.SqlServer.ScriptTask",
    "Microsoft.ExpressionTask": "Microsoft.SqlServer.Dts.Tasks.ExpressionTask.ExpressionTask, Microsoft.SqlServer.X",
    "Microsoft.Pipeline": "SSIS.Pipeline.2",
    "Microsoft.ExecuteProcess": "Microsoft.SqlServer.Dts.Tasks.ExecuteProcess.ExecuteProcess, Microsoft.SqlServer.X",
    "Microsoft.ExecutePackageTask": "SSIS.ExecutePackageTask.2",
}
T = TypeVar("T", bound=Executable)


def element(version: int, tag: str, properties: dict[str, str], inner: str = "") -> str:
    """Return an element with properties as children (2005, 2008) or as attributes."""
    if version < 6:
        written = "".join(
            f'<DTS:Property DTS:Name="{name}">{value}</DTS:Property>' for name, value in properties.items()
        )
        return f"<DTS:{tag}>{inner}{written}</DTS:{tag}>"
    attributes = " ".join(f"DTS:{name}={quoteattr(value)}" for name, value in properties.items())
    return f"<DTS:{tag} {attributes}>{inner}</DTS:{tag}>"


def collection(version: int, tag: str, inner: str) -> str:
    """Return the members of a collection, which SSIS 2005 and 2008 do not wrap."""
    return inner if version < 6 else f"<DTS:{tag}>{inner}</DTS:{tag}>"


def executable(version: int, kind: str, inner: str, name: str = "Task", **properties: str) -> str:
    """Return a task or a loop."""
    kind = KINDS.get(kind, kind) if version < 6 else kind
    text = element(version, "Executable", {"ObjectName": name, **properties}, inner)
    return text.replace("<DTS:Executable", f'<DTS:Executable DTS:ExecutableType="{kind}"', 1)


def task(version: int, kind: str, data: str, name: str = "Task", **properties: str) -> str:
    """Return a task with its ObjectData."""
    return executable(version, kind, f"<DTS:ObjectData>{data}</DTS:ObjectData>", name, **properties)


def read(version: int, *executables: str, managers: str = "") -> Package:
    """Return a package with these executables and connection managers."""
    root = "SSIS.Package.2" if version < 6 else "Microsoft.Package"
    text = (
        f'<DTS:Executable {NAMESPACE} DTS:ExecutableType="{root}">'
        f'<DTS:Property DTS:Name="PackageFormatVersion">{version}</DTS:Property>'
        f"{collection(version, 'ConnectionManagers', managers)}"
        f"{collection(version, 'Executables', ''.join(executables))}</DTS:Executable>"
    )
    return build_package(read_document(io.BytesIO(text.encode()), "p.dtsx").root, "p.dtsx", ReadOptions())


def read_one(version: int, text: str, kind: type[T], managers: str = "") -> T:
    """Return the only executable of a package."""
    (found,) = read(version, text, managers=managers).root.executables
    assert isinstance(found, kind)
    return found


def manager(version: int, kind: str, string: str, more: str = "", name: str = "db") -> str:
    """Return a connection manager for a database."""
    data = element(version, "ConnectionManager", {"ConnectionString": string}, more)
    properties = {"CreationName": kind, "ObjectName": name, "DTSID": GUID}
    return element(version, "ConnectionManager", properties, f"<DTS:ObjectData>{data}</DTS:ObjectData>")


# --- Execute SQL and Expression tasks

OLD_SQL = (
    f'<SQLTask:SqlTaskData {SQL} SQLTask:Connection="{GUID}" SQLTask:TimeOut="0" SQLTask:IsStoredProc="False" '
    'SQLTask:BypassPrepare="True" SQLTask:SqlStmtSourceType="DirectInput" SQLTask:SqlStatementSource="SELECT 1" '
    'SQLTask:CodePage="1252" SQLTask:ResultType="ResultSetType_None"/>'
)
NEW_SQL = f'<SQLTask:SqlTaskData {SQL} SQLTask:Connection="{GUID}" SQLTask:SqlStatementSource="SELECT 1"/>'


@pytest.mark.parametrize(("version", "data"), [(OLD, OLD_SQL), (NEW, NEW_SQL)])
def test_defaults_are_the_same_whether_they_are_written_or_left_out(version: int, data: str) -> None:
    """2005 and 2008 write every attribute."""
    database = manager(version, "OLEDB", "Data Source=srv;Initial Catalog=sales;")
    found = read_one(version, task(version, "Microsoft.ExecuteSQLTask", data), SqlTask, database)
    assert (found.statement, found.source_type, found.result_set) == (
        "SELECT 1",
        SqlSourceType.DIRECT_INPUT,
        ResultSetType.NONE,
    )
    assert (found.results, found.parameters, found.is_stored_procedure, found.timeout) == ((), (), False, 0)
    assert found.connection is not None
    assert (found.connection.name, found.connection.kind) == ("db", DatabaseKind.OLE_DB)
    assert (found.kind.rpartition(".")[2], found.force_result, found.maximum_errors) == ("ExecuteSQLTask", "", 1)


@pytest.mark.parametrize("version", DIALECTS)
@pytest.mark.parametrize(
    ("written", "result_set"),
    [
        ("SingleRow", ResultSetType.SINGLE_ROW),
        ("Rowset", ResultSetType.FULL),
        ("XML", ResultSetType.XML),
        ("None", ResultSetType.NONE),
    ],
)
def test_bindings_are_read(version: int, written: str, result_set: ResultSetType) -> None:
    """Results by name or number, parameters with direction, type and size."""
    data = (
        f'<SQLTask:SqlTaskData {SQL} SQLTask:Connection="db" SQLTask:SqlStatementSource="EXEC p ?, ? OUTPUT" '
        f'SQLTask:ResultType="ResultSetType_{written}" SQLTask:TimeOut="30" SQLTask:IsStoredProc="True">'
        '<SQLTask:ResultBinding SQLTask:ResultName="0" SQLTask:DtsVariableName="User::Rows"/>'
        '<SQLTask:ResultBinding SQLTask:ResultName="name" SQLTask:DtsVariableName="User::Name"/>'
        '<SQLTask:ParameterBinding SQLTask:ParameterName="0" SQLTask:DtsVariableName="System::StartTime" '
        'SQLTask:ParameterDirection="Input" SQLTask:DataType="7" SQLTask:ParameterSize="-1"/>'
        '<SQLTask:ParameterBinding SQLTask:ParameterName="@n" SQLTask:DtsVariableName="User::N" '
        'SQLTask:ParameterDirection="Output" SQLTask:DataType="129" SQLTask:ParameterSize="50"/>'
        '<SQLTask:ParameterBinding SQLTask:ParameterName="2" SQLTask:DtsVariableName="User::Code" '
        'SQLTask:ParameterDirection="ReturnValue" SQLTask:DataType="3"/></SQLTask:SqlTaskData>'
    )
    found = read_one(version, task(version, "Microsoft.ExecuteSQLTask", data), SqlTask)
    assert found.result_set is result_set
    assert found.results == (SqlResult(name="0", variable="User::Rows"), SqlResult(name="name", variable="User::Name"))
    assert found.parameters == (
        SqlParameter(name="0", variable="System::StartTime", data_type=7),
        SqlParameter(name="@n", variable="User::N", direction="Output", data_type=129, size=50),
        SqlParameter(name="2", variable="User::Code", direction="ReturnValue", data_type=3),
    )
    assert (found.connection, found.connection_reference) == (None, "db")
    assert (found.is_stored_procedure, found.timeout) == (True, 30)


@pytest.mark.parametrize("version", DIALECTS)
def test_a_statement_can_come_from_a_variable_or_a_file(version: int) -> None:
    """By the name of the variable, or of the File connection manager."""

    def sql(kind: str, source: str) -> SqlTask:
        data = f'<x:SqlTaskData xmlns:x="s" x:SqlStmtSourceType="{kind}" x:SqlStatementSource="{source}"/>'
        file = manager(version, "FILE", r"C:\load.sql", name="Script")
        return read_one(version, task(version, "Microsoft.ExecuteSQLTask", data), SqlTask, file)

    by_variable = sql("Variable", "User::Statement")
    assert (by_variable.source_type, by_variable.statement) == (SqlSourceType.VARIABLE, "User::Statement")
    by_file = sql("FileConnection", "Script")
    assert by_file.source_type is SqlSourceType.FILE_CONNECTION
    assert by_file.statement_file is not None
    assert by_file.statement_file.connection_string == r"C:\load.sql"
    assert sql("FileConnection", "Other").statement_file is None


EXECUTION_VALUE = '<DTS:Property DTS:Name="ExecValueVariable">User::N</DTS:Property>'


@pytest.mark.parametrize("version", DIALECTS)
@pytest.mark.parametrize("more", [{"properties": {"ExecValueVariable": "User::N"}}, {"inner": EXECUTION_VALUE}])
def test_the_variable_for_the_execution_value_is_read(version: int, more: dict[str, Any]) -> None:
    """An attribute or a child, in both dialects: a task of any kind may have it."""

    def read_task(kind: str, data: str, of: type[T]) -> T:
        inner = f"<DTS:ObjectData>{data}</DTS:ObjectData>{more.get('inner', '')}"
        return read_one(version, executable(version, kind, inner, **more.get("properties", {})), of)

    sql = OLD_SQL if version == OLD else NEW_SQL
    assert read_task("Microsoft.ExecuteSQLTask", sql, SqlTask).row_count == "User::N"
    assert read_task("Microsoft.Pipeline", "<pipeline/>", OtherTask).sets == ("User::N",)
    script = '<ScriptProject Language="CSharp" ReadWriteVariables="User::A"/>'
    assert read_task("Microsoft.ScriptTask", script, OtherTask).sets == ("User::N", "User::A")


@pytest.mark.parametrize("version", DIALECTS)
def test_an_expression_task_keeps_its_assignment(version: int) -> None:
    """Its data has no namespace."""
    data = '<ExpressionTask Expression="@[User::Total] = @[User::A] + 1"/>'
    found = read_one(version, task(version, "Microsoft.ExpressionTask", data), ExpressionTask)
    assert found.expression == "@[User::Total] = @[User::A] + 1"


def test_a_maintenance_task_is_not_an_execute_sql_task() -> None:
    """Although its data has the same name."""
    kind = "Microsoft.SqlServer.Management.DatabaseMaintenance.DbMaintenanceReindexTask, X"
    data = f'<SQLTask:SqlTaskData {SQL} SQLTask:Connection="{GUID}"/>'
    assert read_one(OLD, task(OLD, kind, data), OtherTask).kind.endswith("DbMaintenanceReindexTask")


# --- Other tasks


def component(version: int, name: str, value: str) -> str:
    """Return a component of a data flow with one property, as the dialect has it."""
    more = 'id="7" state="default" isArray="false" typeConverter="" expressionType="Notify"' if version < 6 else ""
    return (
        '<component name="c"><properties>'
        f'<property dataType="System.Int32" name="Timeout" {more}>30</property>'
        f'<property dataType="System.String" name="{name}" {more}>{value}</property></properties></component>'
    )


@pytest.mark.parametrize("version", DIALECTS)
@pytest.mark.parametrize(
    ("kind", "data", "sets", "reads"),
    [
        (
            "Microsoft.ScriptTask",
            (
                '<ScriptProject Name="s" ReadOnlyVariables="User::a, System::TaskName" '
                'ReadWriteVariables=" User::b,c ,,User::b"><ProjectItem Name="main.cs">'
                '<![CDATA[ReadWriteVariables="User::no"]]></ProjectItem></ScriptProject>'
            ),
            ("User::b", "c"),
            ("User::a", "System::TaskName"),
        ),
        (
            "Microsoft.ScriptTask",
            (
                "<ScriptProject><ReadOnlyVariables>a</ReadOnlyVariables><ReadWriteVariables>User::b,User::c"
                "</ReadWriteVariables></ScriptProject>"
            ),
            ("User::b", "User::c"),
            ("a",),
        ),
        ("Microsoft.ScriptTask", '<ScriptProject ReadOnlyVariables="" ReadWriteVariables=""/>', (), ()),
        (
            "Microsoft.ExecuteProcess",
            (
                '<ExecuteProcessData Executable="a.exe" StandardInputVariable="User::in" StandardOutputVariable='
                '"User::out" StandardErrorVariable="User::err"/>'
            ),
            ("User::out", "User::err"),
            ("User::in",),
        ),
        (
            "Microsoft.WebServiceTask",
            '<w:WebServiceTaskData xmlns:w="w" w:OutputType="Variable" w:OutputLocation="User::answer"/>',
            ("User::answer",),
            (),
        ),
        (
            "Microsoft.WebServiceTask",
            '<w:WebServiceTaskData xmlns:w="w" w:OutputType="File" w:OutputLocation="answer.xml"/>',
            (),
            (),
        ),
        (
            "Microsoft.WmiDataReaderTask",
            (
                '<WMIDRTaskData WQLQuerySourceType="Variable" WQLQuerySource="User::q" DestinationType="Variable" '
                'Destination="User::disks"/>'
            ),
            ("User::disks",),
            ("User::q",),
        ),
        (
            "Microsoft.XMLTask",
            (
                '<XMLTaskData OperationType="Diff" SourceType="Variable" Source="User::x" DestinationType="Variable" '
                'Destination="User::y" DiffGramDestinationType="Variable" DiffGramDestination="User::z"/>'
            ),
            ("User::y", "User::z"),
            ("User::x",),
        ),
        ("Microsoft.XMLTask", '<XMLTaskData DestinationType="FileConnection" Destination="User::y"/>', (), ()),
        (
            "Microsoft.FtpTask",
            '<FtpData TaskOperationType="Receive" TaskIsRemotePathVar="True" TaskRemotePath="User::remote"/>',
            (),
            ("User::remote",),
        ),
        (
            "Microsoft.FileSystemTask",
            '<FileSystemData TaskIsSourceVariable="True" TaskSourcePath="User::old" TaskDestinationPath="file"/>',
            (),
            ("User::old",),
        ),
        ("Attunity.CdcControlTask", '<CDCControlTask StateVariable="User::State"/>', ("User::State",), ()),
        (
            "Vendor.HttpTask",
            (
                '<InnerObject><Url Type="8" Value="http://x"/><Response Type="8" Value="User::response"/>'
                '<InputFile Type="8" Value="User::file"/><Status Variable="User::status"/><Text>@[User::e]</Text>'
                '<Owner Value="System::UserName"/></InnerObject>'
            ),
            ("User::response", "User::status"),
            ("User::file",),
        ),
    ],
)
def test_a_task_names_what_it_sets_and_reads(
    version: int, kind: str, data: str, sets: tuple[str, ...], reads: tuple[str, ...]
) -> None:
    """In attributes of its data; the task of another vendor in any attribute that is a variable's name."""
    found = read_one(version, task(version, kind, data), OtherTask)
    assert (found.sets, found.reads) == (sets, reads)


@pytest.mark.parametrize("version", DIALECTS)
@pytest.mark.parametrize(
    ("name", "value", "sets", "reads"),
    [
        ("VariableName", "User::Rows", ("User::Rows",), ()),
        ("VariableName", "rs", ("rs",), ()),
        ("VariableName", "", (), ()),
        ("ReadWriteVariables", "User::a, b", ("User::a", "b"), ()),
        ("ReadOnlyVariables", "User::a", (), ("User::a",)),
        ("SqlCommandVariable", "User::q", (), ("User::q",)),
        ("OpenRowsetVariable", "User::t", (), ("User::t",)),
        ("StateVariable", "User::s", (), ("User::s",)),
        ("SomeVariable", "User::x", ("User::x",), ()),
    ],
)
def test_a_data_flow_sets_what_its_components_name(
    version: int, name: str, value: str, sets: tuple[str, ...], reads: tuple[str, ...]
) -> None:
    """Row Count, recordset destination, script component; sources read."""
    components = component(version, name, value) + component(version, "Other", "User::other")
    data = f'<pipeline id="0"><components>{components}</components><paths/></pipeline>'
    found = read_one(version, task(version, "Microsoft.Pipeline", data), OtherTask)
    assert (found.sets, found.reads) == (sets, reads)


def test_what_follows_a_data_flow_is_read() -> None:
    """Text between properties belongs to none of them."""
    flow = f"<pipeline><components>{component(NEW, 'VariableName', 'User::Rows')} noise </components></pipeline>"
    script = '<ScriptProject ReadWriteVariables="User::Body"/>'
    package = read(NEW, task(NEW, "Microsoft.Pipeline", flow, "a"), task(NEW, "Microsoft.ScriptTask", script, "b"))
    assert [one.sets for one in package.root.executables if isinstance(one, OtherTask)] == [
        ("User::Rows",),
        ("User::Body",),
    ]


@pytest.mark.parametrize("version", DIALECTS)
def test_code_that_locks_a_variable_sets_it(version: int) -> None:
    """Without listing it, in a Script task and in a script component, however long the code is."""
    lines = "// and so on\n" * 5000
    code = (
        f'{lines}Dts.VariableDispenser.LockOneForWrite("User::Body", ref found);\n{lines}'
        f'Dts.VariableDispenser.LockForWrite( @"Rows" );\nDts.VariableDispenser.LockForRead("User::no");\n{lines}'
        "Dts.VariableDispenser.LockForWrite(name);"
    )
    script = (
        f'<ScriptProject ReadWriteVariables="User::a"><ProjectItem><![CDATA[{code}]]></ProjectItem></ScriptProject>'
    )
    found = read_one(version, task(version, "Microsoft.ScriptTask", script), OtherTask)
    assert found.sets == ("User::a", "User::Body", "Rows")
    property_text = (
        f'<property name="SourceCode" isArray="true"><arrayElement><![CDATA[{code}]]></arrayElement></property>'
    )
    flow = (
        f"<pipeline><components><component><properties>{property_text}</properties></component></components></pipeline>"
    )
    assert read_one(version, task(version, "Microsoft.Pipeline", flow), OtherTask).sets == ("User::Body", "Rows")


_CODE = {
    # The language, and whether the script may use the value that `Text` has before it.
    'Dts.Variables["User::Text"].Value = "a";': ("CSharp", False),
    'Variables[@"Text"].Value=Ask("Text of a"); // if Dts.Variables["Text"].Value': ("CSharp", False),
    'if (late) { Dts.Variables["Text"].Value = "a"; }': ("CSharp", False),
    'Dts.Variables["Text"].Value = "it\'s"; // $"{\n#if DEBUG "': ("CSharp", False),
    'Dts.Variables["User::Text"].Value += "a";': ("CSharp", True),
    'string s = Dts.Variables["Text"].Value.ToString(); Dts.Variables["Text"].Value = s + "a";': ("CSharp", True),
    'if (Dts.Variables["Text"].Value == null) { Dts.Variables["Text"].Value = "a"; }': ("CSharp", True),
    'Dts.VariableDispenser.LockOneForWrite("User::Text", ref found); found[0].Value = "a";': ("CSharp", True),
    "Dts.Variables[0].Value = 1;": ("CSharp", True),
    'dts.Variables("User::Text").Value = "a" \' If Dts.Variables("Text").Value': ("VisualBasic", False),
    'Dim n = 1 : Dts.Variables("User::Text").Value = "a"': ("VisualBasic", False),
    'If late Then Dts.Variables("User::Text").Value = "a"': ("VisualBasic", False),
    'If Dts.Variables("User::Text").Value = "a" Then Stop': ("VisualBasic", True),
    'Dim same = Dts.Variables("User::Text").Value = "a"': ("VisualBasic", True),
    'Me.Dts.Variables.Item("Text").Value() = "a"': ("VisualBasic", False),
    'If Dts.Variables("Text").Value = "" Then\n Dts.Variables("Text").Value = "a"': ("VisualBasic", True),
    'Dts.Variables("Text").Value = Dts.Variables("Text").Value & "a"': ("VisualBasic", True),
    'Dts.Variables["Text"].Value = "a";': ("", True),
    "": ("CSharp", True),
}


@pytest.mark.parametrize("code", _CODE)
@pytest.mark.parametrize("version", DIALECTS)
def test_a_script_updates_a_variable_unless_its_code_only_sets_it(version: int, code: str) -> None:
    """Code that is missing, or that is not understood, may use the value from before the script."""
    language, updates = _CODE[code]
    script = (
        f'<ScriptProject Language="{language}" ReadWriteVariables="User::Text">'
        f'<ProjectItem Name="ScriptMain.cs"><![CDATA[\n{code}\n]]></ProjectItem></ScriptProject>'
    )
    found = read_one(version, task(version, "Microsoft.ScriptTask", script), OtherTask)
    assert (found.sets, found.reads) == (("User::Text",), ())
    assert found.updates == (("User::Text",) if updates else ())


def test_a_script_component_and_a_cdc_task_update_a_variable() -> None:
    """Other components of a data flow only set theirs."""
    components = component(NEW, "ReadWriteVariables", "User::a, b") + component(NEW, "VariableName", "User::Rows")
    flow = f"<pipeline><components>{components}</components></pipeline>"
    assert read_one(NEW, task(NEW, "Microsoft.Pipeline", flow), OtherTask).updates == ("User::a", "b")
    state = '<CDCControlTask StateVariable="User::State"/>'
    assert read_one(NEW, task(NEW, "Attunity.CdcControlTask", state), OtherTask).updates == ("User::State",)


@pytest.mark.parametrize("levels", [5, 50, 5000])
def test_data_of_a_task_may_be_deep(levels: int) -> None:
    """Only its first levels are read, so that the package is."""
    deep = '<a Out="User::x">' * levels + "</a>" * levels
    package = read(NEW, task(NEW, "Vendor.Task", deep, "a"), task(NEW, "Microsoft.SendMailTask", "", "b"))
    other, mail = package.root.executables
    assert isinstance(other, OtherTask)
    assert other.sets == ("User::x",)
    assert mail.name == "b"


@pytest.mark.parametrize("version", DIALECTS)
def test_an_execute_package_task_says_what_its_child_gets(version: int) -> None:
    """The parameters of the child; nothing in this package is set."""
    data = (
        "<ExecutePackageTask><UseProjectReference>True</UseProjectReference><PackageName>Child.dtsx</PackageName>"
        '<PackagePassword Sensitive="1">secret</PackagePassword>'
        "<ParameterAssignment><ParameterName>Day</ParameterName><BindedVariableOrParameterName>User::Day"
        "</BindedVariableOrParameterName></ParameterAssignment></ExecutePackageTask>"
    )
    found = read_one(version, task(version, "Microsoft.ExecutePackageTask", data), OtherTask)
    assert (found.child_package, found.child_parameters) == ("Child.dtsx", (("Day", "User::Day"),))
    assert (found.sets, found.reads) == ((), ("User::Day",))


# --- Loops


@pytest.mark.parametrize("version", DIALECTS)
def test_a_for_loop_keeps_its_expressions(version: int) -> None:
    """Those that it has."""
    text = executable(version, "STOCK:FORLOOP", "", InitExpression="@i = 0", EvalExpression="@i &lt; 3")
    text = text if version < 6 else text.replace("&amp;lt;", "&lt;")
    assert read_one(version, text, Container).for_loop == ForLoop(initialize="@i = 0", condition="@i < 3")


def foreach(version: int, kind: str, data: str, expressions: str = "", mappings: str = "") -> str:
    """Return a Foreach loop."""
    enumerator = element(
        version, "ForEachEnumerator", {"CreationName": kind}, f"{expressions}<DTS:ObjectData>{data}</DTS:ObjectData>"
    )
    return executable(version, "STOCK:FOREACHLOOP", enumerator + mappings)


@pytest.mark.parametrize("version", DIALECTS)
@pytest.mark.parametrize(
    ("kind", "data", "enumerator", "variable"),
    [
        ("Microsoft.ForEachADOEnumerator", '<FEEADO EnumType="EnumerateAllRows" VarName="User::r"/>', "ADO", "User::r"),
        (
            "Microsoft.SqlServer.Dts.Runtime.Enumerators.ADO.ForEachADOEnumerator, Microsoft.SqlServer.X, Version=10.0",
            '<FEEADO EnumType="EnumerateRowsInFirstTable" VarName="r"/>',
            "ADO",
            "r",
        ),
        ("Microsoft.ForEachFromVarEnumerator", '<FEEFVE VariableName="User::list"/>', "Variable", "User::list"),
        (
            "Microsoft.ForEachNodeListEnumerator",
            '<FEENODELIST EnumerationType="NodeText" SourceType="Variable" SourceDocument="User::xml"/>',
            "NodeList",
            "User::xml",
        ),
        (
            "Microsoft.ForEachNodeListEnumerator",
            '<FEENODELIST EnumerationType="NodeText" SourceType="FileConnection" SourceDocument="a.xml"/>',
            "NodeList",
            "",
        ),
        ("DTS.ForEachFileEnumerator.2", "", "File", ""),
        ("DTS.ForEachItemEnumerator.2", "<FEIEItems/>", "Item", ""),
        ("Microsoft.ForEachSMOEnumerator", '<FEESMO EnumURN="x"/>', "SMO", ""),
        ("Microsoft.ForEachSchemaRowsetEnumerator", "<x/>", "SchemaRowset", ""),
        ("ForEachBlobEnumerator", '<FEECloudEnumerator Container="c"/>', "ForEachBlobEnumerator", ""),
    ],
)
def test_every_enumerator_has_its_name_in_the_designer(
    version: int, kind: str, data: str, enumerator: str, variable: str
) -> None:
    """Another one is called as the package calls it."""
    loop = read_one(version, foreach(version, kind, data), Container).foreach_loop
    assert loop is not None
    assert (loop.enumerator, loop.variable) == (enumerator, variable)


@pytest.mark.parametrize("version", DIALECTS)
def test_a_foreach_loop_maps_values_to_variables(version: int) -> None:
    """In the order of their index, whatever the order in the file."""
    mappings = collection(
        version,
        "ForEachVariableMappings",
        element(version, "ForEachVariableMapping", {"VariableName": "User::Email", "ValueIndex": "1"})
        + element(version, "ForEachVariableMapping", {"VariableName": "Name", "ValueIndex": "0"}),
    )
    items = (
        '<FEIEItems><FEIEItem><FEIEItemValue Type="8" Value="a"/><FEIEItemValue Type="3" Value="1"/></FEIEItem>'
        '<FEIEItem><FEIEItemValue Type="8" Value="b"/><FEIEItemValue Type="3" Value="2"/></FEIEItem></FEIEItems>'
    )
    text = foreach(version, "DTS.ForEachItemEnumerator.2", items, mappings=mappings)
    loop = read_one(version, text, Container).foreach_loop
    assert loop is not None
    assert loop.mappings == ((0, "Name"), (1, "User::Email"))
    assert loop.items == (("a", "1"), ("b", "2"))


@pytest.mark.parametrize("version", DIALECTS)
def test_a_file_enumerator_keeps_its_properties_and_expressions(version: int) -> None:
    """One element for each property."""
    data = (
        r'<ForEachFileEnumeratorProperties><FEFEProperty Folder="C:\in"/><FEFEProperty FileSpec="*.csv"/>'
        '<FEFEProperty FileNameRetrievalType="1"/><FEFEProperty Recurse="-1"/></ForEachFileEnumeratorProperties>'
    )
    expression = '<DTS:PropertyExpression DTS:Name="Directory">@[User::In]</DTS:PropertyExpression>'
    text = foreach(version, "Microsoft.ForEachFileEnumerator", data, expression)
    container = read_one(version, text, Container)
    loop = container.foreach_loop
    assert loop is not None
    assert (loop.folder, loop.file_spec, loop.file_name_retrieval, loop.recurse) == (r"C:\in", "*.csv", 1, True)
    assert loop.expressions == {"Directory": "@[User::In]"}
    assert container.expressions == {}


# --- What all executables have


@pytest.mark.parametrize("version", DIALECTS)
@pytest.mark.parametrize(
    ("written", "force_result"),
    [("-1", ""), ("0", "success"), ("1", "failure"), ("2", "completion"), ("Failure", "failure"), ("None", "")],
)
def test_a_forced_result_is_read(version: int, written: str, force_result: str) -> None:
    """Of tasks and containers alike; and the number of errors at which they fail."""
    properties = {"ForceExecutionResult": written, "MaxErrorCount": "3"}
    package = read(
        version,
        task(version, "Microsoft.ScriptTask", "", "a", **properties),
        executable(version, "STOCK:SEQUENCE", "", "b", **properties),
        task(version, "Microsoft.SendMailTask", "", "c", **properties),
        task(version, "Microsoft.ExecuteSQLTask", "", "d", **properties),
    )
    assert {one.force_result for one in package.root.executables} == {force_result}
    assert {one.maximum_errors for one in package.root.executables} == {3}
    assert (package.root.force_result, package.root.maximum_errors) == ("", 1)


@pytest.mark.parametrize("version", DIALECTS)
def test_disabled_event_handlers_are_disabled(version: int) -> None:
    """All those of the owner, with all that they contain; not those of its neighbors."""

    def handler(name: str) -> str:
        inner = collection(version, "Executables", task(version, "Microsoft.SendMailTask", "", name))
        return collection(version, "EventHandlers", element(version, "EventHandler", {"EventName": "OnError"}, inner))

    off = "-1" if version < 6 else "True"
    package = read(
        version,
        executable(version, "STOCK:SEQUENCE", handler("never"), "a", DisableEventHandlers=off),
        executable(version, "STOCK:SEQUENCE", handler("ever"), "b"),
    )
    assert [(mail.name, mail.disabled_because) for mail in package.send_mail_tasks] == [
        ("never", r"Package\a"),
        ("ever", None),
    ]
    assert not package.root.executables[0].disabled


# --- Databases


@pytest.mark.parametrize("version", DIALECTS)
@pytest.mark.parametrize(
    ("creation_name", "kind", "provider"),
    [
        ("OLEDB", DatabaseKind.OLE_DB, ""),
        ("ADO", DatabaseKind.OLE_DB, ""),
        ("ODBC", DatabaseKind.ODBC, ""),
        ("ADO.NET:SQL", DatabaseKind.ADO_NET, "SQL"),
        (
            "ADO.NET:System.Data.SqlClient.SqlConnection, System.Data, Version=4.0.0.0",
            DatabaseKind.ADO_NET,
            "System.Data.SqlClient.SqlConnection, System.Data, Version=4.0.0.0",
        ),
    ],
)
def test_every_kind_of_database_is_read(version: int, creation_name: str, kind: DatabaseKind, provider: str) -> None:
    """With its connection string."""
    (found,) = read(version, managers=manager(version, creation_name, "Dsn=x;uid=y;")).database_connections
    assert (found.kind, found.provider, found.connection_string) == (kind, provider, "Dsn=x;uid=y;")
    assert not found.has_password


@pytest.mark.parametrize("version", DIALECTS)
@pytest.mark.parametrize(
    ("string", "more", "kept"),
    [
        ("Data Source=s;User ID=u;Password=hunter2;", "", "Data Source=s;User ID=u;"),
        ("Data Source=s;PWD='hun;ter2';Uid=u", "", "Data Source=s;Uid=u;"),
        (
            "Data Source=s;",
            '<DTS:Password DTS:Name="Password" Sensitive="1" Encrypted="1">hunter2</DTS:Password>',
            "Data Source=s;",
        ),
        ("Data Source=s;", "<EncryptedData><CipherData/></EncryptedData>", "Data Source=s;"),
    ],
)
def test_a_password_is_never_kept(version: int, string: str, more: str, kept: str) -> None:
    """The model only says that there is one."""
    (found,) = read(version, managers=manager(version, "OLEDB", string, more)).database_connections
    assert (found.connection_string, found.has_password) == (kept, True)


def test_an_empty_password_is_none() -> None:
    """The designer of 2019 writes empty properties."""
    string = "Data Source=.;User ID=;Password=;Access Token=;Initial Catalog=sales;"
    (found,) = read(NEW, managers=manager(NEW, "OLEDB", string)).database_connections
    assert (found.connection_string, found.has_password) == (string, False)


@pytest.mark.parametrize(
    ("version", "language", "file", "code"),
    [
        (OLD, "Microsoft Visual Basic .NET", "dts://Scripts/ScriptTask_1/ScriptMain.vsaitem", "basic"),
        (OLD, "CSharp", "\\scriptmain.cs", "c#"),
        (NEW, "VisualBasic", "ScriptMain.vb", "basic"),
        (NEW, "CSharp", "ScriptMain.cs", "c#"),
    ],
)
def test_the_source_of_a_script_that_only_sets_variables_is_read(
    version: int, language: str, file: str, code: str
) -> None:
    """Among the files of its project, of which the others are not."""
    source = {
        "c#": 'public void Main() { Dts.Variables["Text"].Value = "<" + Dts.Variables["In"].Value; }',
        "basic": 'Public Sub Main()\n Dts.Variables("Text").Value = "<" & Dts.Variables("In").Value\nEnd Sub',
    }[code]
    data = (
        f'<ScriptProject Language="{language}" ReadOnlyVariables="User::In" ReadWriteVariables="User::Text">'
        f'<ProjectItem Name="Project" Encoding="UTF8"><![CDATA[void Main() {{ }}]]></ProjectItem>'
        f'<ProjectItem Name="{file}" Encoding="UTF8"><![CDATA[{source}]]></ProjectItem>'
        '<BinaryItem Name="ST_1.dll">TVqQ</BinaryItem></ScriptProject>'
    )
    script = task(version, "Microsoft.ScriptTask", data)
    found = read(version, script, task(version, "Microsoft.SendMailTask", "", "Mail")).root.executables[0]
    assert isinstance(found, OtherTask)
    assert found.assignments == (("User::Text", '"<" + (DT_WSTR,4000)@[User::In]'),)
    without_mail = read_one(version, script, OtherTask)
    assert (without_mail.assignments, without_mail.sets) == (None, ("User::Text",))
