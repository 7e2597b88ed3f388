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

from airflow_provider_smtpcm.ssis.clean import holds_account
from airflow_provider_smtpcm.ssis.expressions import (
    DataType,
    Expression,
    ExpressionError,
    JinjaName,
    NotTranslatable,
    TypeSpec,
    evaluate,
    parse,
)
from airflow_provider_smtpcm.ssis.expressions.nodes import Call, Cast, Conditional, Literal, Name, Operation, Unary
from airflow_provider_smtpcm.ssis.expressions.template_text import quoted
from airflow_provider_smtpcm.ssis.expressions.variables import Place, is_system_variable, system_variable
from airflow_provider_smtpcm.ssis.package import Package, Parameter, Project, Variable
from airflow_provider_smtpcm.ssis.writing.names import ascii_words, dag_id_of
from airflow_provider_smtpcm.ssis.writing.outcome import Findings

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
_WHOLE = {2, 3, 16, 17, 18, 19, 20, 21}
_DEEPEST = 20
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
        if one.data_type in _WHOLE:
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


@dataclass(slots=True, kw_only=True)
class Names:
    """The names of one package, and the `params` that its templates use so far.

    Args:
        params: by their key, with the default.
    """

    package: Package
    project: Project | None
    findings: Findings
    params: dict[str, object] = field(default_factory=dict)
    _keys: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)

    def root(self) -> dict[str, Declared]:
        """What is visible in the whole package."""
        of_project = self.project.parameters if self.project is not None else ()
        return declared((*of_project, *self.package.parameters, *self.package.root.variables))

    def find(self, name: str, scope: Scope) -> Declared | None:
        """What a name of an expression means."""
        return scope.get(name) or (None if "::" in name else scope.get(f"User::{name}"))

    def known(self, expression: str, scope: Scope) -> str:
        """The text that an expression gives with what the package itself says.

        Raises:
            ExpressionError: it cannot be read, or needs what is not known.
        """
        tree = self.inlined(parse(expression), scope)
        values = {key: value_of(one) for key, one in scope.items()}
        system = {"System::PackageName": self.package.name}
        return str(evaluate(tree, {**{key: value for key, value in values.items() if value is not None}, **system}))

    def inlined(self, tree: Expression, scope: Scope, task_name: str | None = None, depth: int = 0) -> Expression:
        """With the expressions of variables in their place, and with names that are known and would differ."""

        def inline(node: Name) -> Expression:
            if node.name in {"System::PackageName", "PackageName"} and self.find(node.name, scope) is None:
                name = self.package.name
                return node if dag_id_of(name) == name else _text(name)
            if node.name in {"System::TaskName", "TaskName"} and task_name is not None:
                return node if self.find(node.name, scope) else _text(task_name)
            found = self.find(node.name, scope)
            if not isinstance(found, Variable) or found.expression is None or is_secret(found):
                return node
            if depth >= _DEEPEST:
                raise ExpressionError(f"{found.qualified_name} is defined by itself.", remedy="Write its value.")
            return self.inlined(parse(found.expression), scope, task_name, depth + 1)

        return replace_names(tree, inline)

    def resolver(self, scope: Scope, place: Place) -> Callable[[str], JinjaName]:
        """What `to_jinja` asks for the names of an expression."""

        def resolve(name: str) -> JinjaName:
            found = self.find(name, scope)
            if found is not None:
                if isinstance(found, Parameter) and found.scope == "Project":
                    return self._of_project(found)
                return self._param(found)
            if is_system_variable(name):
                return system_variable(name, place, {"PackageID": self.package.id})
            raise NotTranslatable(
                f"{name} is not in the package" + (", nor in its project." if name.startswith("$Project") else "."),
                remedy="Import the package together with its project, or write the value into the DAG.",
            )

        return resolve

    @contextmanager
    def given_up_whole(self) -> Iterator[None]:
        """Where a template comes to nothing, the params that it would have used and what was told of them do too."""
        params, keys, told = dict(self.params), dict(self._keys), len(self.findings)
        try:
            yield
        except (ExpressionError, NotTranslatable):
            self.params, self._keys = params, keys
            self.findings.forget(told)
            raise

    def keep_at(self, found: Declared, value: str) -> None:
        """Give a variable's param another default: where the path that it holds is on a worker."""
        key = self._keys.get(_identity(found))
        if key is not None:
            self.params[key] = value

    def _of_project(self, found: Parameter) -> JinjaName:
        name = self.project.name if self.project is not None else ""
        key = "_".join(part for part in (ascii_words(name), ascii_words(found.name) or "parameter") if part)
        type_ = _TYPES.get(found.data_type, DataType.WSTR)
        value = value_of(found)
        where = found.qualified_name
        if value is None:
            code = f"var.value.get({quoted(key)})"
            self.findings.decision(
                "variable-to-set",
                where,
                f"The value of the project's parameter {found.name} is not in the files, or is secret, so the Airflow "
                f"Variable {key} has no default, and a mail that needs it fails without it.",
                f"airflow variables set {key} VALUE",
            )
        else:
            code = f"var.value.get({quoted(key)}, {quoted(str(value))})"
            self.findings.note(
                "project-parameter",
                where,
                f"The project's parameter {found.name} is the Airflow Variable {key}; until that is set, the value "
                "of the project's files holds. What an environment of the SSIS catalog sets is not in them.",
            )
        if type_ is DataType.WSTR:
            return JinjaName(text=code, type=type_)
        return JinjaName(text=f"ssis.cast({code}, '{type_}')", type=type_ if type_ is DataType.I4 else None)

    def _param(self, found: Declared) -> JinjaName:
        known = _identity(found)
        if known not in self._keys:
            key, count = found.name, 2
            while key in self.params:
                key, count = f"{found.name}_{count}", count + 1
            self._keys[known] = key
            self.params[key] = self._default(found, key)
        key = self._keys[known]
        return JinjaName(text=f"params[{quoted(key)}]", type=_TYPES.get(found.data_type))

    def _default(self, found: Declared, key: str) -> object:
        value = value_of(found)
        where = found.qualified_name
        set_by = (
            "If another task of the package sets it, put what computes it (an XCom, say) in its place."
            if isinstance(found, Variable)
            else "Whoever starts the package may give it another."
        )
        if value is None or value == "":
            why = "may be secret" if is_secret(found) else "is empty in the package: something sets it in each run"
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
        empty: dict[int, object] = {11: False, **dict.fromkeys(_WHOLE, 0), 4: 0.0, 5: 0.0}
        return empty.get(found.data_type, "") if value is None else value


def _identity(found: Declared) -> tuple[str, tuple[str, ...]]:
    return found.qualified_name, found.scope if isinstance(found, Variable) else ("$Package",)


def _text(text: str) -> Literal:
    return Literal(type=TypeSpec(DataType.WSTR), value=text)


def replace_names(node: Expression, change: Callable[[Name], Expression]) -> Expression:
    """The tree with other nodes in place of its names."""
    match node:
        case Name():
            return change(node)
        case Cast() | Unary():
            return replace(node, operand=replace_names(node.operand, change))
        case Operation():
            rest = tuple((sign, replace_names(right, change), position) for sign, right, position in node.rest)
            return replace(node, first=replace_names(node.first, change), rest=rest)
        case Conditional():
            arms = tuple((replace_names(test, change), replace_names(chosen, change)) for test, chosen in node.arms)
            return replace(node, arms=arms, otherwise=replace_names(node.otherwise, change))
        case Call():
            return replace(node, arguments=tuple(replace_names(one, change) for one in node.arguments))
        case _:
            return node


def without_account(node: Expression) -> Expression:
    """The tree as it is.

    Raises:
        NotTranslatable: a literal in it holds an account.
    """

    def look(text: str) -> str:
        if holds_account(text):
            raise NotTranslatable(
                "It holds an account, which is not repeated.", remedy="Take it from where secrets are kept."
            )
        return text

    return replace_texts(node, look)


def replace_texts(node: Expression, change: Callable[[str], str]) -> Expression:
    """The tree with other texts in place of its literals."""
    match node:
        case Literal(value=str() as value):
            return replace(node, value=change(value))
        case Cast() | Unary():
            return replace(node, operand=replace_texts(node.operand, change))
        case Operation():
            rest = tuple((sign, replace_texts(right, change), position) for sign, right, position in node.rest)
            return replace(node, first=replace_texts(node.first, change), rest=rest)
        case Conditional():
            arms = tuple((test, replace_texts(chosen, change)) for test, chosen in node.arms)
            return replace(node, arms=arms, otherwise=replace_texts(node.otherwise, change))
        case Call():
            return replace(node, arguments=tuple(replace_texts(one, change) for one in node.arguments))
        case _:
            return node
