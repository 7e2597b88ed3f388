"""The symbol table of a package: its variables and parameters, their design-time values, and their names in the DAG.

A user variable or a package parameter becomes one of the DAG's `params`, with its design-time value, unless a task sets
it while the package runs. A project parameter becomes an Airflow Variable, since many packages share it, and SSIS
catalog environments may override it. A variable that is defined by an expression is replaced by that expression.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from airflow_provider_smtpcm.ssis.expressions import (
    DataType,
    Expression,
    ExpressionError,
    JinjaName,
    Literal,
    Name,
    NotTranslatable,
    TemplateContext,
    TypeSpec,
    cast,
    evaluate,
    find_variables,
    is_system_variable,
    parse,
    quote_string,
    reads_clock,
    replace_names,
    resolve_system_variable,
    to_value,
)
from airflow_provider_smtpcm.ssis.findings import KEEP, Findings, Question
from airflow_provider_smtpcm.ssis.model import Package, Parameter, Project, Variable
from airflow_provider_smtpcm.ssis.writing.flow import Flow
from airflow_provider_smtpcm.ssis.writing.live_variables import LiveVariables, ReadPoint, VariableSetters, resolve_name
from airflow_provider_smtpcm.ssis.writing.loops import find_mapped_loops
from airflow_provider_smtpcm.ssis.writing.python_source import ascii_words, quoted_list
from airflow_provider_smtpcm.ssis.writing.secrets import find_password_line, has_credentials, sanitize

#: The types by their number in the package file, which is a VARENUM of OLE Automation.
TYPES = {
    2: DataType.I2,
    3: DataType.I4,
    4: DataType.R4,
    5: DataType.R8,
    6: DataType.CY,
    7: DataType.DATE,
    8: DataType.WSTR,
    11: DataType.BOOL,
    14: DataType.DECIMAL,
    16: DataType.I1,
    17: DataType.UI1,
    18: DataType.UI2,
    19: DataType.UI4,
    20: DataType.I8,
    21: DataType.UI8,
}
_BOOL, _FLOATS, _INTEGERS = 11, {4, 5}, {2, 3, 16, 17, 18, 19, 20, 21}
_DATE, _EXACT = 7, {6, 14}
# What SSIS has for a variable without a value, as a param has it; the date is day 0 of OLE Automation.
_EMPTY: dict[int, object] = {
    _BOOL: False,
    _DATE: "1899-12-30",
    **dict.fromkeys(_INTEGERS, 0),
    **dict.fromkeys(_FLOATS, 0.0),
    **dict.fromkeys(_EXACT, "0"),
}
# Matches `SmtpPass` and `MAIL_PW`, but neither `Passed` nor `Bypass`.
_SECRET_NAME = re.compile(
    r"(?i:passw|pwd|secret|token|credential|apikey|kennwort)|(?:^(?i:pass|pw)|Pass|Pw|PW|_(?i:pass|pw))$"
)
_MAX_INLINE_DEPTH = 20
# Variables inlined per expression. If each of them uses another one twice, their number doubles with each level.
_MAX_INLINED = 1000

Symbol = Variable | Parameter
Scope = Mapping[str, Symbol]  # by qualified name
_Identity = tuple[str, tuple[str, ...]]
# The defaults, which SSIS 2012 and later omit: their files have no VersionMajor of 1, which 2005 and 2008 always write.
_VERSION_DEFAULTS: dict[str, str | int] = {
    "VersionMajor": 1,
    "VersionMinor": 0,
    "VersionBuild": 0,
    "VersionComment": "",
}


def open_scope(symbols: Iterable[Symbol], outer: Scope | None = None) -> dict[str, Symbol]:
    """Return the outer scope with these symbols added; they shadow those of the same name."""
    return {**(outer or {}), **{symbol.qualified_name: symbol for symbol in symbols}}


def design_value(symbol: Symbol) -> str | bool | int | float | None:
    """Return the design-time value as a Python value; None if the package has none or if it may be secret."""
    text = (symbol.value or "").strip()
    has_value = text if symbol.data_type in {_DATE, *_EXACT} else symbol.value is not None
    if symbol.value is None or not has_value or is_secret(symbol):
        return None
    try:
        if symbol.data_type == _BOOL:
            return text.lower() in {"true", "-1", "1"}
        if symbol.data_type in _INTEGERS:
            return int(text)
        if symbol.data_type in _FLOATS:
            return float(text)
    except ValueError:
        return None
    return symbol.value


def _is_missing(symbol: Symbol) -> bool:
    """Whether a symbol is a parameter that SSIS requires, without a value in the files."""
    return isinstance(symbol, Parameter) and symbol.required and not (symbol.value or "").strip()


def _is_unreadable(symbol: Symbol) -> bool:
    """Whether the design-time value is in no known form of its type, such as the date `Jan 5 2023`."""
    if not (symbol.value or "").strip() or is_secret(symbol):
        return False
    value = design_value(symbol)
    if symbol.data_type not in {_DATE, *_EXACT}:
        return value is None
    try:
        cast(to_value(value), TypeSpec(TYPES[symbol.data_type]))
    except ExpressionError:
        return True
    return False


def _parse_value(text: str, data_type: int) -> str | bool | int | float:
    """Return an answer as a value of a variable's type; text that has another form stays text."""
    value = design_value(Variable(namespace="User", name="answer", data_type=data_type, value=text))
    return text if value is None else value


def is_secret(symbol: Symbol) -> bool:
    """Whether the value may be a credential, by its Sensitive property, its name, or the value itself."""
    if isinstance(symbol, Parameter) and symbol.sensitive:
        return True
    texts = [symbol.value, symbol.expression] if isinstance(symbol, Variable) else [symbol.value]
    return bool(_SECRET_NAME.search(symbol.name) or any(has_credentials(text) for text in texts if text))


@dataclass(slots=True, kw_only=True)
class DagParams:
    """The `params` of a DAG: those that its templates have used so far.

    Args:
        project: the name of the package's project; empty if it has none.
        findings: a finding is added for each new param and Airflow Variable.
        defaults: the default value of each param, by its key.
    """

    project: str
    findings: Findings
    defaults: dict[str, object] = field(default_factory=dict)
    # The key of each param, by the identity of its symbol.
    _keys: dict[_Identity, str] = field(default_factory=dict)
    _secrets: set[_Identity] = field(default_factory=set)

    def jinja_name(self, symbol: Symbol) -> JinjaName:
        """Return the Jinja expression for a symbol: a param, or an Airflow Variable for a project parameter."""
        if isinstance(symbol, Parameter) and symbol.scope == "Project":
            return self._airflow_variable(symbol)
        return self._param(symbol)

    def mark_secret(self, symbol: Symbol) -> None:
        """Never write the value of this symbol; if it already is a param, empty its default."""
        self._secrets.add(symbol.identity)
        if (key := self._keys.get(symbol.identity)) is not None:
            self._add(symbol, key)

    def default_of(self, symbol: Symbol) -> object:
        """Return the design-time value, or the empty value of the type if the package has none or it may be secret."""
        value = None if self._is_secret(symbol) else design_value(symbol)
        return _EMPTY.get(symbol.data_type, "") if value is None else value

    def set_default(self, symbol: Symbol, value: str) -> None:
        """Replace the default of a symbol's param, if it has one."""
        key = self._keys.get(symbol.identity)
        if key is not None:
            self.defaults[key] = value

    def report_unreadable(self, variable: Variable) -> None:
        """Report a design-time value in no known form, for a variable that tasks set: it may never be needed."""
        if _is_unreadable(variable):
            self.findings.note(
                "variable-set-at-run-time",
                variable.qualified_name,
                f"The design-time value of {variable.qualified_name}, {sanitize(variable.value or '')!r}, is in no "
                "known form of its type: what reads it before a task has set it fails.",
            )

    @contextmanager
    def rollback_on_failure(self) -> Iterator[None]:
        """Undo the params and findings of a template that turns out not to be translatable."""
        defaults, keys, findings = dict(self.defaults), dict(self._keys), len(self.findings)
        try:
            yield
        except (ExpressionError, NotTranslatable):
            # A param that was found to be secret meanwhile keeps its empty default.
            secret = {key for known, key in self._keys.items() if known in self._secrets and key in defaults}
            self.defaults = {**defaults, **{key: self.defaults[key] for key in secret}}
            self._keys = keys
            self.findings.truncate(findings)
            raise

    def _airflow_variable(self, parameter: Parameter) -> JinjaName:
        words = (ascii_words(self.project), ascii_words(parameter.name) or "parameter")
        key = "_".join(word for word in words if word)
        type_ = TYPES.get(parameter.data_type, DataType.WSTR)
        question = self._ask_for(parameter)
        is_missing = _is_missing(parameter)
        known = None if is_missing or _is_unreadable(parameter) else design_value(parameter)
        value = None if self._is_secret(parameter) else self.findings.value(question.key) or known
        where = parameter.qualified_name
        if value is None:
            code = f"var.value.get({quote_string(key)})"
            self.findings.decision(
                "variable-to-set",
                where,
                f"The value of the project parameter {parameter.name} is not in the files, "
                f"{'and SSIS requires one' if is_missing else 'or may be secret'}. The Airflow Variable {key} has no "
                "default; a mail that needs it fails until it is set.",
                f"Run: airflow variables set {key} VALUE",
                question,
            )
        else:
            code = f"var.value.get({quote_string(key)}, {quote_string(str(value))})"
            self.findings.note(
                "project-parameter",
                where,
                f"The project parameter {parameter.name} became the Airflow Variable {key}; its default is the value "
                + (
                    f"in {parameter.environment}."
                    if parameter.environment
                    else "in the project's files. The environments of the SSIS catalog, which are not in the files, "
                    "may set another one."
                ),
            )
            self._report_password(where, value, f"the default of the Airflow Variable {key!r}")
        self._report_configured(
            parameter, f"Look up which of them is deployed, then run: airflow variables set {key} VALUE", question
        )
        if type_ is DataType.WSTR:
            return JinjaName(code=code, type=type_)
        # Without a scale, a cast rounds a decimal number.
        macro = "convert" if type_ in {DataType.DECIMAL, DataType.NUMERIC} else "cast"
        return JinjaName(code=f"ssis.{macro}({code}, '{type_}')", type=type_ if type_ is DataType.I4 else None)

    def _ask_for(self, parameter: Parameter) -> Question:
        """Return the question for the value of a project parameter."""
        if self._is_secret(parameter):
            return Question(
                key=f"secret project parameter {parameter.name}",
                text=f"The project parameter {parameter.name} may be secret, so its Airflow Variable has no default. "
                f"Set it in Airflow, and answer {KEEP}.",
                guess=KEEP,
            )
        return Question(
            key=f"project parameter {parameter.name}",
            text=f"Which value does the project parameter {parameter.name} have where the project is deployed? Answer "
            f"with it, or {KEEP} if you set the Airflow Variable or the guess is right.",
            guess=parameter.value or "",
        )

    def _param(self, symbol: Symbol) -> JinjaName:
        identity = symbol.identity
        if identity not in self._keys:
            key, number = symbol.name, 2
            while key in self.defaults:
                key, number = f"{symbol.name}_{number}", number + 1
            self._add(symbol, key)
        key = self._keys[identity]
        return JinjaName(code=f"params[{quote_string(key)}]", type=TYPES.get(symbol.data_type))

    def _add(self, symbol: Symbol, key: str) -> None:
        self._keys[symbol.identity] = key
        self.defaults[key] = self._choose_default(symbol, key)

    def _is_secret(self, symbol: Symbol) -> bool:
        return is_secret(symbol) or symbol.identity in self._secrets

    def _choose_default(self, symbol: Symbol, key: str) -> object:
        where = symbol.qualified_name
        value = self.default_of(symbol)
        if self._is_secret(symbol):
            self.findings.decision(
                "param-without-value",
                where,
                f"{where} may be secret; it became params[{key!r}] of the DAG, which is empty.",
                "Replace the param with a template that reads the value from a secrets backend.",
            )
            return value
        question = Question(
            key=f"variable {where}",
            text=f"Which value does {where} have in production? Answer with it, or {KEEP} for the guess.",
            guess="" if _is_missing(symbol) else str(value),
        )
        if (answer := self.findings.answer(question.key)) is not None and answer.strip().lower() != KEEP:
            value = _parse_value(answer, symbol.data_type)
        elif _is_unreadable(symbol):
            self.findings.decision(
                "param-without-value",
                where,
                f"The value of {where}, {sanitize(symbol.value or '')!r}, is in no known form of its type "
                f"{TYPES[symbol.data_type]}; it became params[{key!r}] of the DAG.",
                "Set the default in the DAG; write a date as yyyy-mm-dd hh:mm:ss, and a number with a decimal point.",
                replace(question, guess=""),
            )
            return symbol.value
        elif _is_missing(symbol):
            self.findings.decision(
                "param-without-value",
                where,
                f"{where} has no value in the files, and SSIS requires one; it became params[{key!r}] of the DAG.",
                "Set the default in the DAG, or pass the value when you trigger the DAG.",
                question,
            )
            return value
        if value == "":
            text = f"{where} is empty in the package, and no task of the control flow sets it before it is read; it "
            text += f"became params[{key!r}] of the DAG, which is empty unless a run sets it."
        else:
            text = f"{where} became params[{key!r}] of the DAG, with its design-time value: no task sets it "
            text += "before it is read."
        if answer is None:
            self.findings.note("variable-became-param", where, text)
        else:
            self.findings.decision("variable-became-param", where, text, "", question)
        self._report_password(where, value, f"the default of params[{key!r}]")
        if isinstance(symbol, Parameter):
            self._report_configured(
                symbol, f"Look up which of them is deployed, and set the default of {key!r} in the DAG.", question
            )
        return value

    def _report_password(self, where: str, value: object, location: str) -> None:
        if isinstance(value, str) and find_password_line(value):
            self.findings.decision(
                "password-in-text",
                where,
                f"The value of {where} seems to contain a password; it is {location} in the DAG.",
                "Remove it from the DAG, and read it from a secrets backend. If it is still in use, change it.",
            )

    def _report_configured(self, parameter: Parameter, remedy: str, question: Question) -> None:
        if parameter.configured_in:
            self.findings.decision(
                "project-configuration",
                parameter.qualified_name,
                "These configurations of the project set a value other than the one used here: "
                f"{quoted_list(parameter.configured_in)}.",
                remedy,
                question,
            )


@dataclass(slots=True, kw_only=True)
class SymbolTable:
    """The symbols of one package, and the `params` of its DAG.

    Args:
        project: the package's project, for its parameters; None if it has none.
        findings: findings about the symbols are added here.
        dag_id: the id of its DAG; empty if it has none.
    """

    package: Package
    project: Project | None
    findings: Findings
    dag_id: str = ""
    params: DagParams = field(init=False)
    flow: Flow = field(init=False)
    live: LiveVariables = field(init=False)
    # Symbols that a symbol of the same name hides where they are read, by an unambiguous name.
    _shadowed: dict[str, Symbol] = field(default_factory=dict)
    _inlined_count: int = 0

    def __post_init__(self) -> None:
        project = "" if self.project is None else self.project.name
        self.params = DagParams(project=project, findings=self.findings)
        self.flow = Flow(self.package)
        setters = VariableSetters(self.package)
        loops = find_mapped_loops(self.package, self.flow, setters, design_value)
        if loops:
            self.flow = Flow(self.package, {key for key, mapped in loops.items() if mapped.mail is not None})
        self.live = LiveVariables(
            package=self.package, setters=setters, flow=self.flow, findings=self.findings, loops=loops
        )

    def root_scope(self) -> dict[str, Symbol]:
        """Return the scope of the package."""
        project_parameters = self.project.parameters if self.project is not None else ()
        return open_scope((*project_parameters, *self.package.parameters, *self.package.root.variables))

    def lookup(self, name: str, scope: Scope) -> Symbol | None:
        """Return the symbol for a name; `inline` and templates reject one that is ambiguous without its namespace."""
        return self._shadowed.get(name) or resolve_name(name, scope)

    def mark_secret(self, names: Iterable[str], scope: Scope) -> None:
        """Never write the values of the symbols with these names."""
        for name in names:
            if (symbol := self.lookup(name, scope)) is not None:
                self.params.mark_secret(symbol)

    def evaluate(self, expression: str, scope: Scope, *, is_guess: bool = False) -> str:
        """Return the value of an expression that uses design-time values only.

        Args:
            expression: the expression.
            scope: resolves the names in it.
            is_guess: whether a value will do that reads the clock, and differs from run to run.

        Raises:
            ExpressionError: it cannot be parsed, or needs a value that the files do not contain or a task sets.
        """
        tree = self.inline(parse(expression), scope)
        if reads_clock(tree) and not is_guess:
            raise ExpressionError("It reads the clock in each run.")
        for name in find_variables(tree):
            symbol = self.lookup(name, scope)
            if isinstance(symbol, Variable) and (setters := self.live.describe_setters(symbol)):
                raise ExpressionError(f"{setters} in each run.")
            if symbol is not None and symbol.value and is_secret(symbol):
                raise ExpressionError(f"{symbol.qualified_name} may be secret, so its value is not used.")
        symbols = {name: self.lookup(name, scope) for name in find_variables(tree)}
        values = {name: design_value(symbol) for name, symbol in symbols.items() if symbol is not None}
        known = {name: value for name, value in values.items() if value is not None}
        return str(evaluate(tree, {**known, "System::PackageName": self.package.name}))

    def configured_parameters(self, expression: str, scope: Scope) -> Iterator[Parameter]:
        """Yield the parameters in an expression that have another value in a configuration of the project."""
        tree = self.inline(parse(expression), scope)
        for name in find_variables(tree):
            symbol = self.lookup(name, scope)
            if isinstance(symbol, Parameter) and symbol.configured_in:
                yield symbol

    def inline(self, tree: Expression, scope: Scope, task_name: str | None = None, depth: int = 0) -> Expression:
        """Return the tree with variables replaced by the expressions that define them.

        `System::TaskName` becomes a literal, and so does `System::PackageName` if it is not the DAG id.

        Args:
            scope: resolves the names in the tree.
            task_name: the value of `System::TaskName`; None leaves the name in the tree.
            depth: the nesting of definitions so far; for internal use.

        Raises:
            ExpressionError: a definition is recursive, too large, or cannot be parsed.
        """
        self._inlined_count = self._inlined_count if depth else 0

        def inline_name(node: Name) -> Expression:
            if node.name in {"System::PackageName", "PackageName"} and self.lookup(node.name, scope) is None:
                return node if self.package.name == self.dag_id else _text_literal(self.package.name)
            if node.name in {"System::TaskName", "TaskName"} and task_name is not None:
                return node if self.lookup(node.name, scope) else _text_literal(task_name)
            symbol = self.lookup(node.name, scope)
            _reject_ambiguous(node.name, symbol, scope)
            if not isinstance(symbol, Variable) or symbol.expression is None or is_secret(symbol):
                return node
            self._inlined_count += 1
            if depth >= _MAX_INLINE_DEPTH:
                raise ExpressionError(
                    f"{symbol.qualified_name} is defined in terms of itself.", remedy="Write its value instead."
                )
            if self._inlined_count > _MAX_INLINED:
                message = f"{symbol.qualified_name} depends on more than {_MAX_INLINED:,} other variables."
                raise ExpressionError(message, remedy="Write its value instead.")
            definition = self._bind(parse(symbol.expression), symbol, scope)
            return self.inline(definition, scope, task_name, depth + 1)

        return replace_names(tree, inline_name)

    def _bind(self, tree: Expression, variable: Variable, scope: Scope) -> Expression:
        """Bind the names in a variable's definition to the scope of its declaration instead of the scope of its use."""
        declaring_scope = self.scope_at(variable.scope)

        def bind_name(node: Name) -> Expression:
            symbol = self.lookup(node.name, declaring_scope)
            if symbol is None or symbol is self.lookup(node.name, scope):
                return node
            path = "\\".join(symbol.scope) if isinstance(symbol, Variable) else symbol.scope
            name = f"{symbol.qualified_name} of {path}"
            self._shadowed[name] = symbol
            return replace(node, name=name)

        return replace_names(tree, bind_name)

    def scope_at(self, path: tuple[str, ...]) -> Scope:
        """Return the variables and parameters that are visible at a path."""
        visible = [variable for variable in self.package.variables if _is_visible(variable.scope, path)]
        return open_scope(sorted(visible, key=lambda variable: len(variable.scope)), self.root_scope())

    def is_live(self, symbol: Symbol, reader: ReadPoint) -> bool:
        """Whether a task of the package may have set a symbol when it is read."""
        return isinstance(symbol, Variable) and self.live.is_live(symbol, reader)

    def jinja_resolver(
        self, scope: Scope, template_context: TemplateContext, reader: ReadPoint
    ) -> Callable[[str], JinjaName]:
        """Return the function that `to_jinja` calls for each name in an expression.

        It raises NotTranslatable for a name that neither the package nor SSIS has.

        Args:
            template_context: what renders the template: a task or a callback.
            reader: where the variables are read.
        """

        def resolve(name: str) -> JinjaName:
            symbol = self.lookup(name, scope)
            _reject_ambiguous(name, symbol, scope, in_event_handler=template_context is TemplateContext.CALLBACK)
            if isinstance(symbol, Variable):
                default = self.params.default_of(symbol)
                live = self.live.jinja_name(symbol, reader, TYPES.get(symbol.data_type), default)
                if live is not None:
                    self.params.report_unreadable(symbol)
                    return live
            if symbol is not None:
                return self.params.jinja_name(symbol)
            if is_system_variable(name):
                properties = {"PackageID": self.package.id, **_VERSION_DEFAULTS, **self.package.properties}
                return resolve_system_variable(name, template_context, properties)
            similar = next((known for known in scope if known.lower() == name.lower()), None)
            if similar is not None:
                raise NotTranslatable(
                    f"{name} is not in the package, but {similar} is; names in SSIS are case-sensitive.",
                    remedy="Write the name as it is declared, or write the value in the DAG.",
                )
            raise NotTranslatable(
                f"{name} is not in the package" + (", nor in its project." if name.startswith("$Project") else "."),
                remedy="Import the package together with its project, or write the value in the DAG.",
            )

        return resolve


def _reject_ambiguous(name: str, symbol: Symbol | None, scope: Scope, *, in_event_handler: bool = False) -> None:
    """Raise ExpressionError for a name without a namespace that variables of several namespaces have."""
    if "::" in name or symbol is None:
        return
    known = [each.qualified_name for each in scope.values() if isinstance(each, Variable) and each.name == name]
    if is_system_variable(name, in_event_handler=in_event_handler):
        known.append(f"System::{name}")
    if len(known) > 1:
        raise ExpressionError(
            f"{name} is ambiguous, since there are {' and '.join(known)}; SSIS fails here, too.",
            remedy="Write the name with its namespace.",
        )


def _is_visible(declared_at: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Whether a variable that is declared at one path is visible at another; an event handler is inside its owner."""
    pairs = zip(path, declared_at, strict=False)
    return len(declared_at) <= len(path) and all(
        inner == outer or inner.startswith(f"{outer}.EventHandlers[") for inner, outer in pairs
    )


def _text_literal(text: str) -> Literal:
    return Literal(type=TypeSpec(DataType.WSTR), value=text)
