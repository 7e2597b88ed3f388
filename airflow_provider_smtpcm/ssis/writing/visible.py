"""The variables and parameters that an executable sees: what they are in a template, and what is known of their values.

User variables and the package's parameters become `params` of the DAG, with their design-time values. A project's
parameters, which many packages share and each environment of a catalog sets anew, become Airflow Variables. A variable
that is worked out by an expression is put in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

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
from airflow_provider_smtpcm.ssis.expressions.nodes import Literal, Name, variables_of
from airflow_provider_smtpcm.ssis.expressions.variables import Place, is_system_variable, system_variable
from airflow_provider_smtpcm.ssis.package import Package, Parameter, Project, Variable
from airflow_provider_smtpcm.ssis.writing.declared import Declared, Scope, declared, is_secret, value_of
from airflow_provider_smtpcm.ssis.writing.names import dag_id_of
from airflow_provider_smtpcm.ssis.writing.outcome import Findings
from airflow_provider_smtpcm.ssis.writing.params import Params
from airflow_provider_smtpcm.ssis.writing.trees import replace_names

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
        for name in variables_of(tree):
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

    def resolver(self, scope: Scope, place: Place) -> Callable[[str], JinjaName]:
        """What `to_jinja` asks for the names of an expression."""

        def resolve(name: str) -> JinjaName:
            found = self.find(name, scope)
            if found is not None:
                return self.params.name_of(found)
            if is_system_variable(name):
                return system_variable(name, place, {"PackageID": self.package.id})
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
