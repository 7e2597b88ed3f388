"""Writes a package model as SSIS would, in the dialect of 2005 and 2008 or in that of 2012 and later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from xml.sax.saxutils import escape, quoteattr

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
    OtherTask,
    Package,
    PrecedenceConstraint,
    ResultSetType,
    SendMailTask,
    SmtpConnection,
    SqlTask,
    Variable,
)

_TYPES = {
    ContainerKind.SEQUENCE: "STOCK:SEQUENCE",
    ContainerKind.FOR_LOOP: "STOCK:FORLOOP",
    ContainerKind.FOREACH_LOOP: "STOCK:FOREACHLOOP",
}
_VALUES = {ConstraintValue.SUCCESS: "0", ConstraintValue.FAILURE: "1", ConstraintValue.COMPLETION: "2"}
_OPERATIONS = {
    EvalOp.EXPRESSION: "1",
    EvalOp.CONSTRAINT: "2",
    EvalOp.EXPRESSION_AND_CONSTRAINT: "3",
    EvalOp.EXPRESSION_OR_CONSTRAINT: "4",
}
_DATABASES = {DatabaseKind.OLE_DB: "OLEDB", DatabaseKind.ODBC: "ODBC", DatabaseKind.ADO_NET: "ADO.NET"}
_RESULT_SETS = {
    ResultSetType.NONE: "ResultSetType_None",
    ResultSetType.SINGLE_ROW: "ResultSetType_SingleRow",
    ResultSetType.FULL: "ResultSetType_Rowset",
    ResultSetType.XML: "ResultSetType_XML",
}
_FORCED_RESULTS = {"": "-1", "success": "0", "failure": "1", "completion": "2"}
_DEFAULTS = {"Disabled": "0", "Description": "", "Value": "0", "EvalOp": "2", "Expression": "", "Priority": "Normal"}
_DEFAULTS |= {"ForceExecutionResult": "-1", "MaxErrorCount": "1"}
_DEFAULTS |= {"InitExpression": "", "EvalExpression": "", "AssignExpression": ""}
_TAIL = {"ObjectName", "DTSID"}


def _attribute(text: str) -> str:
    return quoteattr(text, {"\n": "&#xA;", "\r": "&#xD;", "\t": "&#x9;"})


def _body(text: str) -> str:
    return escape(text, {"\r": "&#xD;"})


class Writer:
    """Writes in the dialect of a PackageFormatVersion."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.old = version < 6

    def package(self, package: Package) -> str:
        """The whole document."""
        inner = "".join(self._connection(one) for one in package.connection_managers)
        inner += "".join(self._database(one) for one in package.database_connections)
        inner = self._collection("ConnectionManagers", inner)
        root = package.root
        version = f'<DTS:Property DTS:Name="PackageFormatVersion">{self.version}</DTS:Property>'
        return '<?xml version="1.0"?>' + self._element(
            "Executable",
            {"ObjectName": root.name, "DTSID": root.id, "Disabled": self._flag(on=root.disabled_because == "Package")},
            version + inner + self._inside(root),
            plain=f'xmlns:DTS="www.microsoft.com/SqlServer/Dts" DTS:ExecutableType="SSIS.Package.{self.version}"',
        )

    def _flag(self, *, on: bool) -> str:
        return ("-1" if on else "0") if self.old else str(on)

    def _element(self, tag: str, properties: Mapping[str, str], inner: str, plain: str = "") -> str:
        if self.old:
            written = {
                name: f'<DTS:Property DTS:Name="{name}">{_body(text)}</DTS:Property>'
                for name, text in properties.items()
            }
            # Properties stand before and after the children that they belong to.
            before = "".join(text for name, text in written.items() if name not in _TAIL)
            after = "".join(text for name, text in written.items() if name in _TAIL)
            return f"<DTS:{tag} {plain}>{before}{inner}{after}</DTS:{tag}>"
        usual = {**_DEFAULTS, "Disabled": "False", "LogicalAnd": "False", "EvaluateAsExpression": "False"}
        attributes = " ".join(
            f"DTS:{name}={_attribute(text)}" for name, text in properties.items() if usual.get(name) != text
        )
        return f"<DTS:{tag} {plain} {attributes}>{inner}</DTS:{tag}>"

    def _collection(self, tag: str, inner: str) -> str:
        return inner if self.old else f"<DTS:{tag}>{inner}</DTS:{tag}>"

    def _expressions(self, expressions: Mapping[str, str]) -> str:
        return "".join(
            f'<DTS:PropertyExpression DTS:Name="{name}">{_body(text)}</DTS:PropertyExpression>'
            for name, text in expressions.items()
        )

    def _connection(self, connection: SmtpConnection) -> str:
        data = f"<SmtpConnectionManager ConnectionString={_attribute(connection.connection_string)}/>"
        return self._element(
            "ConnectionManager",
            {
                "CreationName": "SMTP",
                "ObjectName": connection.name,
                "DTSID": connection.id,
                "Description": connection.description,
            },
            f"{self._expressions(connection.expressions)}<DTS:ObjectData>{data}</DTS:ObjectData>",
        )

    def _database(self, connection: DatabaseConnection) -> str:
        kind = _DATABASES[connection.kind]
        data = self._element("ConnectionManager", {"ConnectionString": connection.connection_string}, "")
        return self._element(
            "ConnectionManager",
            {
                "CreationName": f"{kind}:{connection.provider}" if connection.provider else kind,
                "ObjectName": connection.name,
                "DTSID": connection.id,
            },
            f"{self._expressions(connection.expressions)}<DTS:ObjectData>{data}</DTS:ObjectData>",
        )

    def _variables(self, variables: Iterable[Variable]) -> str:
        written = "".join(
            self._element(
                "Variable",
                {
                    "Namespace": one.namespace,
                    "Expression": one.expression or "",
                    "EvaluateAsExpression": self._flag(on=one.expression is not None),
                    "ObjectName": one.name,
                },
                f'<DTS:VariableValue DTS:DataType="{one.data_type}">{_body(one.value or "")}</DTS:VariableValue>',
            )
            for one in variables
        )
        return self._collection("Variables", written)

    def _inside(self, container: Container | EventHandler) -> str:
        executables = "".join(self._executable(one) for one in container.executables)
        refs = {one.id: "\\".join(one.path) for one in container.executables}
        constraints = "".join(self._constraint(one, refs) for one in container.constraints)
        return (
            self._hung(container)
            + self._collection("Executables", executables)
            + self._collection("PrecedenceConstraints", constraints)
        )

    def _hung(self, owner: Executable | EventHandler) -> str:
        handlers = "".join(
            self._element("EventHandler", {"EventName": one.event_name, "DTSID": one.id}, self._inside(one))
            for one in owner.event_handlers
        )
        return (
            self._variables(owner.variables)
            + self._expressions(owner.expressions)
            + self._collection("EventHandlers", handlers)
        )

    def _executable(self, one: Executable) -> str:
        properties = {
            "Description": one.description,
            "Disabled": self._flag(on=one.disabled_because == "\\".join(one.path)),
            "ForceExecutionResult": _FORCED_RESULTS[one.force_result],
            "MaxErrorCount": str(one.maximum_errors),
            "ObjectName": one.name,
            "DTSID": one.id,
        }
        ref = "" if self.old else "DTS:refId=" + _attribute("\\".join(one.path))
        if isinstance(one, SendMailTask):
            kind = "Microsoft.SqlServer.Dts.Tasks.SendMailTask.SendMailTask, Microsoft.SqlServer.SendMailTask"
            kind = kind if self.version < 8 else "Microsoft.SendMailTask"
            inner = self._hung(one) + f"<DTS:ObjectData>{self._mail(one)}</DTS:ObjectData>"
        elif not isinstance(one, Container):
            kind = one.kind
            inner = self._hung(one) + f"<DTS:ObjectData>{self._data(one)}</DTS:ObjectData>"
        else:
            kind = _TYPES[one.kind]
            inner = self._inside(one)
            if one.for_loop is not None:
                loop = one.for_loop
                properties |= {
                    "InitExpression": loop.initialize,
                    "EvalExpression": loop.condition,
                    "AssignExpression": loop.assign,
                }
            if one.foreach_loop is not None:
                inner += self._foreach(one.foreach_loop)
        return self._element("Executable", properties, inner, plain=f"{ref} DTS:ExecutableType={_attribute(kind)}")

    def _data(self, task: SqlTask | ExpressionTask | OtherTask) -> str:
        """The data of a task; of another one it is a script, or a data flow that only sets variables."""
        if isinstance(task, SqlTask):
            return self._sql(task)
        if isinstance(task, ExpressionTask):
            return f"<ExpressionTask Expression={_attribute(task.expression)}/>"
        if task.kind == "Microsoft.ScriptTask":
            lists = {"ReadOnlyVariables": ", ".join(task.reads), "ReadWriteVariables": ",".join(task.sets)}
            attributes = " ".join(f"{name}={_attribute(text)}" for name, text in lists.items() if self.old or text)
            return f"<ScriptProject {attributes}><ProjectItem><![CDATA[code]]></ProjectItem></ScriptProject>"
        components = "".join(
            f'<component><properties><property name="VariableName">{_body(name)}</property></properties></component>'
            for name in task.sets
        )
        return f"<pipeline><components>{components}</components></pipeline>"

    def _sql(self, task: SqlTask) -> str:
        fields = {
            "Connection": task.connection_reference,
            "TimeOut": str(task.timeout),
            "IsStoredProc": str(task.is_stored_procedure),
            "SqlStmtSourceType": str(task.source_type),
            "SqlStatementSource": task.statement,
            "ResultType": _RESULT_SETS[task.result_set],
        }
        usual = {"TimeOut": "0", "IsStoredProc": "False", "SqlStmtSourceType": "DirectInput"}
        usual["ResultType"] = "ResultSetType_None"
        attributes = " ".join(
            f"s:{name}={_attribute(text)}" for name, text in fields.items() if self.old or text != usual.get(name)
        )
        bindings = "".join(
            f"<s:ResultBinding s:ResultName={_attribute(one.name)} s:DtsVariableName={_attribute(one.variable)}/>"
            for one in task.results
        ) + "".join(
            f"<s:ParameterBinding s:ParameterName={_attribute(one.name)} s:DtsVariableName={_attribute(one.variable)} "
            f's:ParameterDirection="{one.direction}" s:DataType="{one.data_type}" s:ParameterSize="{one.size}"/>'
            for one in task.parameters
        )
        namespace = 'xmlns:s="www.microsoft.com/sqlserver/dts/tasks/sqltask"'
        return f"<s:SqlTaskData {namespace} {attributes}>{bindings}</s:SqlTaskData>"

    def _foreach(self, loop: ForeachLoop) -> str:
        if loop.enumerator == "ADO":
            data = f"<FEEADO EnumType={_attribute(loop.enumeration)} VarName={_attribute(loop.variable)}/>"
        elif loop.enumerator == "File":
            properties = {
                "Folder": loop.folder,
                "FileSpec": loop.file_spec,
                "FileNameRetrievalType": str(loop.file_name_retrieval),
                "Recurse": "-1" if loop.recurse else "0",
            }
            data = "".join(f"<FEFEProperty {name}={_attribute(text)}/>" for name, text in properties.items())
            data = f"<ForEachFileEnumeratorProperties>{data}</ForEachFileEnumeratorProperties>"
        else:
            rows = (
                "".join(f'<FEIEItemValue Type="8" Value={_attribute(value)}/>' for value in row) for row in loop.items
            )
            data = f"<FEIEItems>{''.join(f'<FEIEItem>{row}</FEIEItem>' for row in rows)}</FEIEItems>"
        enumerator = self._element(
            "ForEachEnumerator",
            {"CreationName": f"Microsoft.ForEach{loop.enumerator}Enumerator", "ObjectName": "{x}"},
            f"{self._expressions(loop.expressions)}<DTS:ObjectData>{data}</DTS:ObjectData>",
        )
        mappings = "".join(
            self._element("ForEachVariableMapping", {"VariableName": name, "ValueIndex": str(index)}, "")
            for index, name in loop.mappings
        )
        return enumerator + self._collection("ForEachVariableMappings", mappings)

    def _mail(self, task: SendMailTask) -> str:
        fields = {
            "SMTPServer": task.connection_reference,
            "From": task.from_line,
            "To": task.to_line,
            "CC": task.cc_line,
            "BCC": task.bcc_line,
            "Subject": task.subject,
            "Priority": task.priority,
            "MessageSourceType": str(task.message_source_type),
            "MessageSource": task.message_source,
        }
        usual = {"Priority": "Normal", "MessageSourceType": "DirectInput"}
        attributes = " ".join(
            f"m:{name}={_attribute(text)}" for name, text in fields.items() if self.old or text != usual.get(name, "")
        )
        files = f"<m:Attachments m:FileName={_attribute(task.file_attachments)}/>" if task.file_attachments else ""
        namespace = 'xmlns:m="www.microsoft.com/sqlserver/dts/tasks/sendmailtask"'
        return f"<m:SendMailTaskData {namespace} {attributes}>{files}</m:SendMailTaskData>"

    def _constraint(self, one: PrecedenceConstraint, refs: Mapping[str, str]) -> str:
        properties = {
            "ObjectName": one.name,
            "Value": _VALUES[one.value],
            "EvalOp": _OPERATIONS[one.eval_op],
            "Expression": one.expression or "",
            "LogicalAnd": self._flag(on=one.logical_and),
        }
        if self.old:
            ends = (
                f'<DTS:Executable IDREF="{one.before.lower()}" DTS:IsFrom="-1"/>'
                f'<DTS:Executable IDREF="{one.after}" DTS:IsFrom="0"/>'
            )
            return self._element("PrecedenceConstraint", properties, ends)
        return self._element(
            "PrecedenceConstraint", {**properties, "From": refs[one.before], "To": refs[one.after]}, ""
        )
