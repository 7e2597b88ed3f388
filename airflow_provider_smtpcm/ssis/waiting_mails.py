"""Which mails of a package wait for a decision.

These are the mails at the place of the finding or below it, and the mails that use the variable, the connection manager
or the query that the finding is about.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from airflow_provider_smtpcm.ssis.findings import CONNECTION_MANAGERS, Finding
from airflow_provider_smtpcm.ssis.model import (
    Container,
    EventHandler,
    Executable,
    ExpressionTask,
    ForeachLoop,
    ForLoop,
    MessageSourceType,
    Package,
    PrecedenceConstraint,
    SendMailTask,
    SqlTask,
)

_NAME = re.compile(r"@\[\s*([^\]]+?)\s*\]|@([A-Za-z_]\w*)")


class WaitingMails:
    """Finds the mails that wait for a decision about one package.

    Args:
        package: the package.
    """

    def __init__(self, package: Package) -> None:
        self._paths = ["\\".join(task.path) for task in package.send_mail_tasks if not task.disabled]
        self._definitions = {
            variable.qualified_name.lower(): _find_names([variable.expression])
            for variable in package.variables
            if variable.expression is not None
        }
        # The mails that use a variable or a connection manager, by its name.
        self._by_variable: dict[str, set[str]] = defaultdict(set)
        self._by_connection: dict[str, set[str]] = defaultdict(set)
        # The mails that use what an Execute SQL task sets, by the path of the task.
        self._by_query: dict[str, set[str]] = defaultdict(set)
        if self._paths:
            self._add_usage(package.root)
            self._add_queries(package)

    def find(self, finding: Finding) -> set[str]:
        """Return the paths of the enabled mails that wait for a decision: all if it is about no mail in particular."""
        return self.find_at(finding.where) or set(self._paths)

    def find_at(self, where: str) -> set[str]:
        r"""Return the paths of the enabled mails that use a variable or a connection manager, or are at a place.

        Args:
            where: the `where` of a finding: `User::To`, `Connection managers\SMTP`, or the path of an executable.
        """
        if where.startswith(CONNECTION_MANAGERS):
            return self._by_connection[where.removeprefix(CONNECTION_MANAGERS).lower()]
        if "::" in where and "\\" not in where:
            return self._by_variable[where.lower()]
        return self._below(where) | self._by_query.get(where.lower(), set())

    def _below(self, where: str) -> set[str]:
        """Return the mails at a place or below it, also in event handlers."""
        where = where.lower()
        inside = (f"{where}\\", f"{where}.eventhandlers[")
        return {path for path in self._paths if path.lower() == where or path.lower().startswith(inside)}

    def _add_usage(self, executable: Executable) -> None:
        """Add what an executable and everything inside uses."""
        below = self._below("\\".join(executable.path))
        self._add_names(_find_names(_expressions(executable)), below)
        if isinstance(executable, SendMailTask):
            if executable.connection is not None:
                self._by_connection[executable.connection.name.lower()] |= below
                self._add_names(_find_names(executable.connection.expressions.values()), below)
            if executable.message_source_type is MessageSourceType.VARIABLE:
                self._add_names([executable.message_source.strip()], below)
            if executable.message_file is not None:
                self._by_connection[executable.message_file.name.lower()] |= below
                self._add_names(_find_names(executable.message_file.expressions.values()), below)
        if isinstance(executable, Container):
            self._add_members(executable.executables, executable.constraints)
        self._add_handlers(executable.event_handlers)

    def _add_queries(self, package: Package) -> None:
        """For each Execute SQL task, add the mails that use a variable that it sets; also for its connection."""
        for task, _ in package.walk_executables():
            if not isinstance(task, SqlTask) or task.disabled:
                continue
            names = [result.variable for result in task.results]
            names += [parameter.variable for parameter in task.parameters if parameter.direction != "Input"]
            for name in (*names, task.row_count):
                mails = self._by_variable.get((name if "::" in name else f"User::{name}").lower(), set())
                self._by_query["\\".join(task.path).lower()] |= mails
                if task.connection is not None:
                    self._by_connection[task.connection.name.lower()] |= mails

    def _add_handlers(self, handlers: Iterable[EventHandler]) -> None:
        for handler in handlers:
            members = {path for each in handler.executables for path in self._below("\\".join(each.path))}
            self._add_names(_find_names(handler.expressions.values()), members)
            self._add_members(handler.executables, handler.constraints)
            self._add_handlers(handler.event_handlers)

    def _add_members(self, executables: Iterable[Executable], constraints: Iterable[PrecedenceConstraint]) -> None:
        """Add the executables of a container.

        A variable that decides whether an executable runs also decides it for those that follow by constraints.
        """
        by_id = {executable.id: executable for executable in executables}
        following: dict[str, list[str]] = defaultdict(list)
        for constraint in constraints:
            following[constraint.before].append(constraint.after)

        def mails_from(start: str) -> set[str]:
            reached, pending = {start}, [start]
            while pending:
                new = [each for each in following[pending.pop()] if each not in reached]
                reached.update(new)
                pending += new
            return {path for each in reached if each in by_id for path in self._below("\\".join(by_id[each].path))}

        for constraint in constraints:
            if constraint.expression and "expression" in constraint.eval_op:
                self._add_names(_find_names([constraint.expression]), mails_from(constraint.after))
        for executable in by_id.values():
            if not isinstance(executable, SendMailTask):
                names = [*_find_names(_expressions(executable)), *_variables(executable)]
                if names:
                    self._add_names(names, mails_from(executable.id))
            self._add_usage(executable)

    def _add_names(self, names: Iterable[str], mails: set[str]) -> None:
        """Add the use of names, and of the variables in their definitions."""
        seen: set[str] = set()
        pending = list(names) if mails else []
        while pending:
            name = pending.pop()
            name = (name if "::" in name else f"User::{name}").lower()
            if name not in seen:
                seen.add(name)
                self._by_variable[name] |= mails
                pending += self._definitions.get(name, ())


def _find_names(expressions: Iterable[str | None]) -> list[str]:
    return [bracketed or bare for text in expressions if text is not None for bracketed, bare in _NAME.findall(text)]


def _expressions(executable: Executable) -> Iterator[str]:
    yield from executable.expressions.values()
    if isinstance(executable, ExpressionTask):
        yield executable.expression
    if isinstance(executable, Container):
        if isinstance(executable.for_loop, ForLoop):
            loop = executable.for_loop
            yield from (loop.initialize, loop.condition, loop.assign)
        if isinstance(executable.foreach_loop, ForeachLoop):
            yield from executable.foreach_loop.expressions.values()


def _variables(executable: Executable) -> Iterator[str]:
    """Yield the names of the variables that an executable reads without an expression."""
    if isinstance(executable, SqlTask):
        yield from (parameter.variable for parameter in executable.parameters)
        if executable.source_type == "Variable":
            yield executable.statement.strip()
    if isinstance(executable, Container) and executable.foreach_loop is not None and executable.foreach_loop.variable:
        yield executable.foreach_loop.variable
