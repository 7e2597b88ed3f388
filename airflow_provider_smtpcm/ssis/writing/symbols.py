"""The variables and parameters that an executable sees: what they are in a template, and what is known of their values.

User variables and the package's parameters become `params` of the DAG, with their design-time values. A project's
parameters, which many packages share and each environment of a catalog sets anew, become Airflow Variables. A variable
that is worked out by an expression is put in its place.
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
    evaluate,
    find_variables,
    is_system_variable,
    parse,
    quote_string,
    replace_names,
    resolve_system_variable,
)
from airflow_provider_smtpcm.ssis.model import Package, Parameter, Project, Variable
from airflow_provider_smtpcm.ssis.output import holds_account
from airflow_provider_smtpcm.ssis.writing.outcome import Findings
from airflow_provider_smtpcm.ssis.writing.secrets import password_line
from airflow_provider_smtpcm.ssis.writing.source import ascii_words, dag_id_of, listed

# folded: Variables and parameters by their names: which of them is meant, what its value is, and whether that is a
#   secret.

WHOLE_NUMBERS = {2, 3, 16, 17, 18, 19, 20, 21}
# `SmtpPass` and `MAIL_PW`, and neither `Passed` nor `Bypass`.
_SECRET_NAME = re.compile(
    r"(?i:passw|pwd|secret|token|credential|apikey|kennwort)|(?:^(?i:pass|pw)|Pass|Pw|PW|_(?i:pass|pw))$"
)

Declared = Variable | Parameter
Scope = Mapping[str, Declared]


def declared(found: Iterable[Declared], outer: Scope | None = None) -> dict[str, Declared]:
    """What is visible where these are declared; an inner one hides an outer one of the same name."""
    return {**(outer or {}), **{one.qualified_name: one for one in found}}


def value_of(one: Declared) -> str | bool | int | float | None:
    """The design-time value with its type of Python; None where there is none that may be shown."""
    if one.value is None or is_secret(one):
        return None
    text = one.value.strip()
    try:
        if one.data_type == 11:
            return text.lower() in {"true", "-1", "1"}
        if one.data_type in WHOLE_NUMBERS:
            return int(text)
        if one.data_type in {4, 5}:
            return float(text)
    except ValueError:
        return None
    return one.value


def is_secret(one: Declared) -> bool:
    """Whether its value may be an account."""
    if isinstance(one, Parameter) and one.sensitive:
        return True
    texts = [one.value, one.expression] if isinstance(one, Variable) else [one.value]
    return bool(_SECRET_NAME.search(one.name) or any(holds_account(text) for text in texts if text))


# folded: What variables and parameters become: params of the DAG with their defaults, and Airflow Variables.

_TYPES = {
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


@dataclass(slots=True, kw_only=True)
class Params:
    """The `params` that the templates of one package use so far.

    Args:
        project: the name of the package's project; empty where it has none.
        defaults: by their key.
    """

    project: str
    findings: Findings
    defaults: dict[str, object] = field(default_factory=dict)
    _keys: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)
    _suspected: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)

    def name_of(self, found: Declared) -> JinjaName:
        """What it is in a template."""
        if isinstance(found, Parameter) and found.scope == "Project":
            return self._of_project(found)
        return self._param(found)

    def suspect(self, found: Declared) -> None:
        """Show no value of it: it stands where a password does."""
        self._suspected.add(_identity(found))
        if (key := self._keys.get(_identity(found))) is not None:
            self._put(found, key)

    def keep_at(self, found: Declared, value: str) -> None:
        """Give a variable's param another default: where the path that it holds is on a worker."""
        key = self._keys.get(_identity(found))
        if key is not None:
            self.defaults[key] = value

    @contextmanager
    def given_up_whole(self) -> Iterator[None]:
        """Where a template comes to nothing, the params that it would have used and what was told of them do too."""
        defaults, keys, told = dict(self.defaults), dict(self._keys), len(self.findings)
        try:
            yield
        except (ExpressionError, NotTranslatable):
            secret = {key for known, key in self._keys.items() if known in self._suspected and key in defaults}
            self.defaults = {**defaults, **{key: self.defaults[key] for key in secret}}
            self._keys = keys
            self.findings.forget(told)
            raise

    def _of_project(self, found: Parameter) -> JinjaName:
        name = self.project
        key = "_".join(part for part in (ascii_words(name), ascii_words(found.name) or "parameter") if part)
        type_ = _TYPES.get(found.data_type, DataType.WSTR)
        value = None if self._is_secret(found) else value_of(found)
        where = found.qualified_name
        if value is None:
            code = f"var.value.get({quote_string(key)})"
            self.findings.decision(
                "variable-to-set",
                where,
                f"The value of the project's parameter {found.name} is not in the files, or is secret, so the Airflow "
                f"Variable {key} has no default, and a mail that needs it fails without it.",
                f"airflow variables set {key} VALUE",
            )
        else:
            code = f"var.value.get({quote_string(key)}, {quote_string(str(value))})"
            self.findings.note(
                "project-parameter",
                where,
                f"The project's parameter {found.name} is the Airflow Variable {key}; until that is set, the value "
                "of the project's files holds. What an environment of the SSIS catalog sets is not in them.",
            )
            self._tell_password(where, value, f"the default of the Airflow Variable {key!r}")
        self._tell_configured(found, f"Look up which of them is deployed, and: airflow variables set {key} VALUE")
        if type_ is DataType.WSTR:
            return JinjaName(text=code, type=type_)
        return JinjaName(text=f"ssis.cast({code}, '{type_}')", type=type_ if type_ is DataType.I4 else None)

    def _param(self, found: Declared) -> JinjaName:
        known = _identity(found)
        if known not in self._keys:
            key, count = found.name, 2
            while key in self.defaults:
                key, count = f"{found.name}_{count}", count + 1
            self._put(found, key)
        key = self._keys[known]
        return JinjaName(text=f"params[{quote_string(key)}]", type=_TYPES.get(found.data_type))

    def _put(self, found: Declared, key: str) -> None:
        self._keys[_identity(found)] = key
        self.defaults[key] = self._default(found, key)

    def _is_secret(self, found: Declared) -> bool:
        return is_secret(found) or _identity(found) in self._suspected

    def _tell_password(self, where: str, value: object, place: str) -> None:
        if isinstance(value, str) and password_line(value):
            self.findings.decision(
                "password-in-text",
                where,
                f"The value of {where} seems to tell a password; it is {place} in the DAG.",
                "Take it out of the DAG and from where secrets are kept; and change it, if it is still in use.",
            )

    def _tell_configured(self, found: Parameter, remedy: str) -> None:
        if found.configured_in:
            self.findings.decision(
                "project-configuration",
                found.qualified_name,
                f"The parameter has another value than the one that is used in {listed(found.configured_in)}, which "
                "the project has among its configurations.",
                remedy,
            )

    def _default(self, found: Declared, key: str) -> object:
        value = None if self._is_secret(found) else value_of(found)
        where = found.qualified_name
        set_by = (
            "If another task of the package sets it, put what computes it (an XCom, say) in its place."
            if isinstance(found, Variable)
            else "Whoever starts the package may give it another."
        )
        if value is None or value == "":
            why = (
                "may be secret" if self._is_secret(found) else "is empty in the package: something sets it in each run"
            )
            self.findings.decision(
                "param-without-value",
                where,
                f"{where} {why}; it is params[{key!r}] of the DAG, which is empty.",
                "Fill in the default in the DAG, pass it when the DAG is triggered, or put what computes it (an XCom, "
                "say) in its place.",
            )
        else:
            self.findings.note(
                "variable-became-param",
                where,
                f"{where} is params[{key!r}] of the DAG, with its design-time value. {set_by}",
            )
            self._tell_password(where, value, f"the default of params[{key!r}]")
        if isinstance(found, Parameter):
            self._tell_configured(
                found, f"Look up which of them is deployed, and set the default of {key!r} in the DAG."
            )
        empty: dict[int, object] = {11: False, **dict.fromkeys(WHOLE_NUMBERS, 0), 4: 0.0, 5: 0.0}
        return empty.get(found.data_type, "") if value is None else value


def _identity(found: Declared) -> tuple[str, tuple[str, ...]]:
    return found.qualified_name, found.scope if isinstance(found, Variable) else ("$Package",)


# folded: here began the module itself

_DEEPEST = 20
# Of variables in one expression: each may name another one twice.
_MOST = 1000


@dataclass(slots=True, kw_only=True)
class Names:
    """The names of one package, and what became of those that its templates use."""

    package: Package
    project: Project | None
    findings: Findings
    params: Params = field(init=False)
    # Variables by a name of their own, where an inner one of the same name hides them.
    _hidden: dict[str, Declared] = field(default_factory=dict)
    _inlined: int = 0

    def __post_init__(self) -> None:
        project = "" if self.project is None else self.project.name
        self.params = Params(project=project, findings=self.findings)

    def root(self) -> dict[str, Declared]:
        """What is visible in the whole package."""
        of_project = self.project.parameters if self.project is not None else ()
        return declared((*of_project, *self.package.parameters, *self.package.root.variables))

    def find(self, name: str, scope: Scope) -> Declared | None:
        """What a name of an expression means."""
        return self._hidden.get(name) or scope.get(name) or (None if "::" in name else scope.get(f"User::{name}"))

    def suspect(self, names: Iterable[str], scope: Scope) -> None:
        """Show no value of these: each stands where a password does."""
        for name in names:
            if (found := self.find(name, scope)) is not None:
                self.params.suspect(found)

    def known(self, expression: str, scope: Scope) -> str:
        """The text that an expression gives with what the package itself says.

        Raises:
            ExpressionError: it cannot be read, or needs what is not known.
        """
        tree = self.inlined(parse(expression), scope)
        values = {key: value_of(one) for key, one in {**scope, **self._hidden}.items()}
        system = {"System::PackageName": self.package.name}
        return str(evaluate(tree, {**{key: value for key, value in values.items() if value is not None}, **system}))

    def configured(self, expression: str, scope: Scope) -> Iterator[Parameter]:
        """The parameters in an expression to which a configuration of the project gives another value."""
        tree = self.inlined(parse(expression), scope)
        for name in find_variables(tree):
            found = self.find(name, scope)
            if isinstance(found, Parameter) and found.configured_in:
                yield found

    def inlined(self, tree: Expression, scope: Scope, task_name: str | None = None, depth: int = 0) -> Expression:
        """With the expressions of variables in their place, and with names that are known and would differ."""
        self._inlined = self._inlined if depth else 0

        def inline(node: Name) -> Expression:
            if node.name in {"System::PackageName", "PackageName"} and self.find(node.name, scope) is None:
                name = self.package.name
                return node if dag_id_of(name) == name else _text(name)
            if node.name in {"System::TaskName", "TaskName"} and task_name is not None:
                return node if self.find(node.name, scope) else _text(task_name)
            found = self.find(node.name, scope)
            if not isinstance(found, Variable) or found.expression is None or is_secret(found):
                return node
            self._inlined += 1
            if depth >= _DEEPEST:
                raise ExpressionError(f"{found.qualified_name} is defined by itself.", remedy="Write its value.")
            if self._inlined > _MOST:
                said = f"{found.qualified_name} is worked out of more than {_MOST:,} other variables."
                raise ExpressionError(said, remedy="Write its value.")
            own = self._as_declared(parse(found.expression), found, scope)
            return self.inlined(own, scope, task_name, depth + 1)

        return replace_names(tree, inline)

    def _as_declared(self, tree: Expression, variable: Variable, scope: Scope) -> Expression:
        """The expression of a variable, with the names that it sees: not those of the place where it is used."""
        there = self._visible_at(variable.scope)

        def resolve(node: Name) -> Expression:
            found = self.find(node.name, there)
            if found is None or found is self.find(node.name, scope):
                return node
            where = "\\".join(found.scope) if isinstance(found, Variable) else found.scope
            name = f"{found.qualified_name} of {where}"
            self._hidden[name] = found
            return replace(node, name=name)

        return replace_names(tree, resolve)

    def _visible_at(self, path: tuple[str, ...]) -> Scope:
        found = [one for one in self.package.variables if _holds(one.scope, path)]
        return declared(sorted(found, key=lambda one: len(one.scope)), self.root())

    def resolver(self, scope: Scope, place: TemplateContext) -> Callable[[str], JinjaName]:
        """What `to_jinja` asks for the names of an expression."""

        def resolve(name: str) -> JinjaName:
            found = self.find(name, scope)
            if found is not None:
                return self.params.name_of(found)
            if is_system_variable(name):
                return resolve_system_variable(name, place, {"PackageID": self.package.id})
            other = next((one for one in scope if one.lower() == name.lower()), None)
            if other is not None:
                raise NotTranslatable(
                    f"{name} is not in the package; {other} is, and SSIS tells capital letters from small ones.",
                    remedy="Write the name as it is declared, or the value into the DAG.",
                )
            raise NotTranslatable(
                f"{name} is not in the package" + (", nor in its project." if name.startswith("$Project") else "."),
                remedy="Import the package together with its project, or write the value into the DAG.",
            )

        return resolve


def _holds(scope: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Whether what is declared there is visible here; an event handler is within what it hangs on."""
    pairs = zip(path, scope, strict=False)
    return len(scope) <= len(path) and all(
        here == there or here.startswith(f"{there}.EventHandlers[") for here, there in pairs
    )


def _text(text: str) -> Literal:
    return Literal(type=TypeSpec(DataType.WSTR), value=text)
