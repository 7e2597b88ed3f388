"""Reads the control flow of a package: executables with their variables, precedence constraints and event handlers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from airflow_provider_smtpcm.ssis.model import (
    FORCED_RESULTS,
    ConstraintValue,
    Container,
    ContainerKind,
    EvalOp,
    EventHandler,
    Executable,
    ForeachLoop,
    ForLoop,
    PrecedenceConstraint,
    SendMailTask,
    Severity,
    Variable,
)
from airflow_provider_smtpcm.ssis.reading.configurations import ROOT
from airflow_provider_smtpcm.ssis.reading.context import CommonFields, Location, ReadContext
from airflow_provider_smtpcm.ssis.reading.tasks import read_mail, read_task
from airflow_provider_smtpcm.ssis.reading.xml import (
    Element,
    find_members,
    find_object_data,
    get_flag,
    get_integer,
    get_text,
    is_sensitive,
    is_true,
    normalize_id,
    parse_integer,
    read_expressions,
    read_ids,
)

_CONTAINERS = {
    "STOCK:SEQUENCE": ContainerKind.SEQUENCE,
    "STOCK:FORLOOP": ContainerKind.FOR_LOOP,
    "STOCK:FOREACHLOOP": ContainerKind.FOREACH_LOOP,
}
# SSIS writes a name or a number. The first value of each table is the default.
_CONSTRAINT_VALUES = {
    "0": ConstraintValue.SUCCESS,
    "success": ConstraintValue.SUCCESS,
    "1": ConstraintValue.FAILURE,
    "failure": ConstraintValue.FAILURE,
    "2": ConstraintValue.COMPLETION,
    "completion": ConstraintValue.COMPLETION,
}
_EVAL_OPS = {
    "2": EvalOp.CONSTRAINT,
    "constraint": EvalOp.CONSTRAINT,
    "1": EvalOp.EXPRESSION,
    "expression": EvalOp.EXPRESSION,
    "3": EvalOp.EXPRESSION_AND_CONSTRAINT,
    "expressionandconstraint": EvalOp.EXPRESSION_AND_CONSTRAINT,
    "4": EvalOp.EXPRESSION_OR_CONSTRAINT,
    "expressionorconstraint": EvalOp.EXPRESSION_OR_CONSTRAINT,
}
# PackageFormatVersion of SSIS 2012, the first one that omits properties with default values.
_FIRST_FORMAT_WITHOUT_DEFAULTS = 6

ConstraintEnum = TypeVar("ConstraintEnum", ConstraintValue, EvalOp)


def contains_mail_task(element: Element) -> bool:
    """Whether a package, or anything in it, is a Send Mail task, by its data or its kind."""
    if find_object_data(element, "SendMailTaskData") is not None or _is_send_mail_kind(_read_kind(element)):
        return True
    containers = [child for child in element.children if child.tag in {"Executables", "EventHandlers"}]
    members = [member for each in (element, *containers) for member in each.children]
    return any(contains_mail_task(each) for each in members if each.tag in {"Executable", "EventHandler"})


def read_root(element: Element, context: ReadContext) -> Container:
    """Return the package as a container.

    Args:
        element: the root element.
        context: collects the findings.
    """
    location = Location(path=(), overrides=context.overrides).enter(ROOT, element)
    executables, constraints = _read_members(element, location, context)
    return Container(
        **_read_common(element, location, context, name=get_text(element, "ObjectName") or ROOT),
        kind=ContainerKind.PACKAGE,
        executables=executables,
        constraints=constraints,
    )


def _read_executable(element: Element, parent: Location, context: ReadContext) -> Executable:
    kind = _read_kind(element)
    name = get_text(element, "ObjectName") or kind
    location = parent.enter(name, element)
    if _is_send_mail_kind(kind) or find_object_data(element, "SendMailTaskData") is not None:
        # Reserve the task's place: the Send Mail tasks in its event handlers are read first but come after it.
        index = len(context.mail_connections)
        context.mail_connections.append(None)
        common = _read_common(element, location, context, name=name)
        mail = read_mail(element, location.path, context, common)
        context.mail_connections[index] = mail["connection"]
        return SendMailTask(**common, **mail)
    has_members = next(find_members(element, "Executables", "Executable"), None) is not None
    container = _CONTAINERS.get(kind.upper(), ContainerKind.TASK_HOST if has_members else None)
    if container is None:
        if _is_other_mail_kind(kind):
            context.add_finding(
                "other-mail-task",
                Severity.NOTE if location.disabled_because else Severity.DECISION,
                location.path,
                f"{kind} is another vendor's mail task, which is not converted.",
                "Write a SendMailOperator for it.",
            )
        return read_task(element, kind, context, _read_common(element, location, context, name=name))
    executables, constraints = _read_members(element, location, context)
    return Container(
        **_read_common(element, location, context, name=name),
        kind=container,
        executables=executables,
        constraints=constraints,
        for_loop=_read_for_loop(element, location.path, context) if container is ContainerKind.FOR_LOOP else None,
        foreach_loop=(
            _read_foreach_loop(element, location.path, context) if container is ContainerKind.FOREACH_LOOP else None
        ),
    )


def _read_kind(element: Element) -> str:
    """Return the CreationName or the ExecutableType: a Send Mail task or container if either names one.

    SSIS 2005 to 2012 write a .NET type name, of which only the class is kept.
    """
    names = [get_text(element, name).partition(",")[0].strip() for name in ("CreationName", "ExecutableType")]
    mail_task = next((name for name in names if _is_send_mail_kind(name)), None)
    container = next((name for name in names if name.upper() in _CONTAINERS), None)
    return mail_task or container or next(filter(None, names), "")


def _is_send_mail_kind(kind: str) -> bool:
    """Whether a CreationName is that of SSIS's own Send Mail task, in any version."""
    return "sendmailtask" in kind.lower() and kind.lower().startswith(("microsoft.", "stock:"))


def _is_other_mail_kind(kind: str) -> bool:
    """Whether a CreationName looks like another vendor's mail task."""
    return any(word in kind.lower() for word in ("sendmail", "smtp", "email"))


def _read_common(element: Element, location: Location, context: ReadContext, *, name: str) -> CommonFields:
    handlers = find_members(element, "EventHandlers", "EventHandler")
    owner = location.for_handlers(element)
    return CommonFields(
        name=name,
        id=context.make_unique_id(read_ids(element), location.path),
        path=location.path,
        description=get_text(element, "Description"),
        expressions=read_expressions(element),
        disabled=location.disabled_because is not None,
        disabled_because=location.disabled_because,
        force_result=_read_force_result(element, location.path, context),
        maximum_errors=_read_maximum_errors(element, location.path, context),
        event_handlers=tuple(_read_handler(handler, owner, context) for handler in handlers),
        variables=_read_variables(element, location),
    )


def _read_force_result(element: Element, path: tuple[str, ...], context: ReadContext) -> str:
    name = "ForceExecutionResult"
    return FORCED_RESULTS.get(context.overrides.task_property(path, name, get_text(element, name)).strip().lower(), "")


def _read_maximum_errors(element: Element, path: tuple[str, ...], context: ReadContext) -> int:
    value = context.overrides.task_property(path, "MaximumErrorCount", get_text(element, "MaxErrorCount"))
    count = parse_integer(value)
    return 1 if count is None else count


def _read_members(
    element: Element, location: Location, context: ReadContext
) -> tuple[tuple[Executable, ...], tuple[PrecedenceConstraint, ...]]:
    """Return the executables of a container, and the precedence constraints between them."""
    id_by_reference: dict[str, str] = {}
    executables = []
    for child in find_members(element, "Executables", "Executable"):
        executable = _read_executable(child, location, context)
        executables.append(executable)
        for reference in (*read_ids(child), "\\".join(executable.path), executable.name):
            if reference:
                id_by_reference.setdefault(reference, executable.id)
    return tuple(executables), _read_constraints(element, location.path, id_by_reference, context)


def _read_handler(element: Element, owner: Location, context: ReadContext) -> EventHandler:
    event_name = get_text(element, "EventName") or get_text(element, "CreationName") or get_text(element, "ObjectName")
    location = owner.enter_handler(event_name, element)
    executables, constraints = _read_members(element, location, context)
    nested = find_members(element, "EventHandlers", "EventHandler")
    nested_owner = location.for_handlers(element)
    return EventHandler(
        event_name=event_name,
        owner=owner.path,
        id=context.make_unique_id(read_ids(element), location.path),
        executables=executables,
        constraints=constraints,
        variables=_read_variables(element, location),
        event_handlers=tuple(_read_handler(handler, nested_owner, context) for handler in nested),
        expressions=read_expressions(element),
        disabled=location.disabled_because is not None,
        disabled_because=location.disabled_because,
        force_result=_read_force_result(element, location.path, context),
        maximum_errors=_read_maximum_errors(element, location.path, context),
        propagate=_read_propagate(element),
    )


# --- Variables. Sensitive values are not kept

# OLE VARTYPEs, the data types of variables.
_STRING = 8
_OBJECTS = {12, 13}  # VT_VARIANT and VT_UNKNOWN


def _read_variables(executable: Element, location: Location) -> tuple[Variable, ...]:
    """Return the variables that an executable or event handler declares, without System variables."""
    variables = []
    for element in find_members(executable, "Variables", "Variable"):
        namespace = get_text(element, "Namespace", "User")
        name = get_text(element, "ObjectName")
        if namespace == "System" or not name:
            continue
        value_element = element.find("VariableValue")
        attributes: Mapping[str, str] = value_element.attributes if value_element is not None else {}
        data_type = parse_integer(attributes.get("DataType"))
        expression = get_text(element, "Expression")
        is_secret = value_element is not None and is_sensitive(value_element)
        is_object = value_element is not None and (data_type in _OBJECTS or bool(value_element.children))
        value = None if value_element is None or is_secret or is_object else value_element.text
        if not is_secret:
            value = location.overrides.variable_value(location.path, f"{namespace}::{name}", value)
        variables.append(
            Variable(
                namespace=namespace,
                name=name,
                data_type=_STRING if data_type is None else data_type,
                value=value,
                expression=expression if expression.strip() and get_flag(element, "EvaluateAsExpression") else None,
                scope=location.path,
            )
        )
    return tuple(variables)


def _read_propagate(handler: Element) -> bool | None:
    """Return the design-time value of System::Propagate in an event handler; None if the file has none."""
    for element in find_members(handler, "Variables", "Variable"):
        if get_text(element, "Namespace") == "System" and get_text(element, "ObjectName") == "Propagate":
            value_element = element.find("VariableValue")
            return None if value_element is None else is_true(value_element.text)
    return None


# --- Loops

# The names of enumerators in SSIS's designer. All versions have them in the CreationName.
_ENUMERATORS = {
    "foreachadoenumerator": "ADO",
    "foreachfileenumerator": "File",
    "foreachfromvarenumerator": "Variable",
    "foreachitemenumerator": "Item",
    "foreachnodelistenumerator": "NodeList",
    "foreachschemarowset": "SchemaRowset",
    "foreachsmoenumerator": "SMO",
}
# The elements that hold the properties of an enumerator.
_TAGS = {
    "FEEADO": "ADO",
    "ForEachFileEnumeratorProperties": "File",
    "FEEFVE": "Variable",
    "FEIEItems": "Item",
    "FEENODELIST": "NodeList",
}


def _read_for_loop(element: Element, path: tuple[str, ...], context: ReadContext) -> ForLoop:
    """Return the expressions of a For loop."""

    def read(name: str) -> str:
        return context.overrides.task_property(path, name, get_text(element, name)).strip()

    return ForLoop(initialize=read("InitExpression"), condition=read("EvalExpression"), assign=read("AssignExpression"))


def _read_foreach_loop(element: Element, path: tuple[str, ...], context: ReadContext) -> ForeachLoop:
    """Return the enumerator of a Foreach loop and its variable mappings."""
    enumerator = element.find("ForEachEnumerator") or Element(tag="ForEachEnumerator")
    data = enumerator.find("ObjectData")
    properties = next(iter(data.children), None) if data is not None else None
    if properties is None:
        properties = Element(tag="")
    # A file enumerator has an element for each property.
    values = dict(properties.attributes)
    for child in properties.find_all("FEFEProperty"):
        values.update(child.attributes)

    def read(attribute: str, property_name: str) -> str:
        value = values.get(attribute, "")
        return context.overrides.task_property((*path[:-1], f"{path[-1]}.ForEachEnumerator"), property_name, value)

    kind = _read_enumerator(get_text(enumerator, "CreationName"), properties.tag)
    return ForeachLoop(
        enumerator=kind,
        mappings=_read_mappings(element),
        variable=_read_enumerated_variable(kind, values),
        enumeration=values.get("EnumType") or values.get("EnumerationType") or "",
        folder=read("Folder", "Directory"),
        file_spec=read("FileSpec", "FileSpec"),
        recurse=is_true(read("Recurse", "Recurse")),
        file_name_retrieval=parse_integer(read("FileNameRetrievalType", "FileNameRetrieval")) or 0,
        items=tuple(
            tuple(value.attributes.get("Value", "") for value in item.find_all("FEIEItemValue"))
            for item in properties.find_all("FEIEItem")
        ),
        expressions=read_expressions(enumerator),
    )


def _read_enumerator(creation_name: str, tag: str) -> str:
    name = creation_name.partition(",")[0].strip()
    known = (kind for word, kind in _ENUMERATORS.items() if word in name.lower())
    return _TAGS.get(tag) or next(known, name)


def _read_enumerated_variable(kind: str, values: dict[str, str]) -> str:
    if kind == "NodeList":
        is_variable = values.get("SourceType", "").strip().lower() == "variable"
        return values.get("SourceDocument", "").strip() if is_variable else ""
    return (values.get("VarName") or values.get("VariableName") or "").strip()


def _read_mappings(element: Element) -> tuple[tuple[int, str], ...]:
    mappings = []
    for mapping in find_members(element, "ForEachVariableMappings", "ForEachVariableMapping"):
        variable = get_text(mapping, "VariableName").strip()
        if variable:
            mappings.append((get_integer(mapping, "ValueIndex") or 0, variable))
    return tuple(sorted(mappings))


# --- Precedence constraints. Their ends are refIds in attributes, or GUIDs in two child elements (2005, 2008)


def _read_constraints(
    element: Element, path: tuple[str, ...], id_by_reference: Mapping[str, str], context: ReadContext
) -> tuple[PrecedenceConstraint, ...]:
    """Return the precedence constraints of a container.

    Args:
        element: the container.
        path: the path of the container.
        id_by_reference: the ids of its executables, by every reference that a constraint may use.
        context: collects the findings.
    """
    constraints = []
    for constraint in find_members(element, "PrecedenceConstraints", "PrecedenceConstraint"):
        before, after = (id_by_reference.get(normalize_id(reference)) for reference in _read_ends(constraint))
        name = get_text(constraint, "ObjectName")
        if before is None or after is None:
            context.add_finding(
                "dangling-precedence-constraint",
                Severity.DECISION,
                path,
                f"The precedence constraint {name!r} begins or ends at a missing executable; it was left out.",
                "Check the order of the tasks around it.",
            )
            continue
        expression = get_text(constraint, "Expression")
        # A missing LogicalAnd means False in formats that omit default values, and True in older ones.
        default = context.format_version < _FIRST_FORMAT_WITHOUT_DEFAULTS
        constraints.append(
            PrecedenceConstraint(
                name=name,
                before=before,
                after=after,
                value=_read_enum(constraint, "Value", _CONSTRAINT_VALUES, path, context),
                eval_op=_read_enum(constraint, "EvalOp", _EVAL_OPS, path, context),
                expression=expression if expression.strip() else None,
                logical_and=get_flag(constraint, "LogicalAnd", default=default),
            )
        )
    return tuple(constraints)


def _read_ends(element: Element) -> tuple[str, str]:
    before, after = get_text(element, "From"), get_text(element, "To")
    for end in element.find_all("Executable"):
        if get_flag(end, "IsFrom"):
            before = end.attributes.get("IDREF", "")
        else:
            after = end.attributes.get("IDREF", "")
    return before, after


def _read_enum(
    element: Element, name: str, members: Mapping[str, ConstraintEnum], path: tuple[str, ...], context: ReadContext
) -> ConstraintEnum:
    """Return a property of a precedence constraint; the first of `members` if it is missing or unknown."""
    value = get_text(element, name).strip().lower()
    default = next(iter(members.values()))
    if value and value not in members:
        constraint = get_text(element, "ObjectName")
        context.add_finding(
            "unknown-precedence",
            Severity.DECISION,
            path,
            f"{name} of the precedence constraint {constraint!r} is {value!r}, which SSIS does not define; "
            f"{default.value!r} was used.",
            "Check the order of the tasks around it.",
        )
    return members.get(value, default)
