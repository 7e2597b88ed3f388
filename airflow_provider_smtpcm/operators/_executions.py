"""Tells the mails apart that one task sends by several calls of `execute`: of operators in its code, or in a callback.

The ledger and the Message-IDs of a task are made for one call of `execute`: that of its own operator. Every other call
gets a ledger and Message-IDs of its own, by the operator's `task_id` and the recipients. A further attempt of the task
finds them again as long as it passes the same arguments.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.errors import LedgerError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_provider_smtpcm.ledger.ledger import Ledger
    from airflow_provider_smtpcm.operators._task import TaskStateStore

# The attribute of Airflow's task instance that has the executions of this attempt. Callbacks get the same instance.
_ATTRIBUTE = "_smtpcm_executions"
# The functions of Airflow in which every callback runs: those of a task, and those that the DAG processor runs.
_CALLBACK_RUNNERS = ("_run_task_state_change_callbacks", "_execute_callbacks")
_OWN_PACKAGES = ("airflow", __name__.partition(".")[0])
_RECIPIENT_FIELDS = ("to", "cc", "bcc")
# Another connection may send the same mail.
_CONNECTION_FIELD = "smtpcm_conn_id"
_ROWS_FIELD = "rows"
# The keys, in a ledger, of the arguments, and of whether the task's own operator was executed again after its mail.
_ARGUMENTS, _REPEATED = "arguments", "repeated"
_lock = threading.Lock()


class Execution:
    """One call of `execute`.

    Args:
        task_id: that of the operator, which is not that of the task if the task's code executes the operator.
        key: a digest of the operator and its recipients.
        arguments: a digest of the arguments, and one of the rows of a merge; empty: the arguments may differ between
            attempts, since the task has no other mail of this operator.
        number: how many executions with this key were before; None: the first of the task's own operator.
        first: that first execution, if this is another one of the task's own operator.
        in_callback: whether a callback calls it, for an event that is not repeated. It has no ledger.
    """

    def __init__(
        self,
        task_id: str = "",
        *,
        key: str = "",
        arguments: Sequence[str] = (),
        number: int | None = None,
        first: Execution | None = None,
        in_callback: bool = False,
    ) -> None:
        self.task_id = task_id
        self.in_callback = in_callback
        self.has_failed = False
        #: Whether an earlier attempt may have delivered a mail with other arguments in place of this one.
        self.is_changed = False
        self._key = key
        self._arguments = list(arguments)
        self._number = number
        self._first = first

    @property
    def scope(self) -> tuple[str, ...]:
        """What distinguishes its Message-IDs from those of other executions; empty: they are those of the task."""
        if self.in_callback:
            return ("callback", self._key)
        return () if self._number is None else ("execution", self._format_number(self._number))

    def _format_number(self, number: int) -> str:
        return _digest([self._key, number])[:16]

    def is_repeated_by(self, key: str, arguments: Sequence[str]) -> bool:
        """Whether a further call, with this key and these arguments, repeats this one, which failed."""
        return self.has_failed and self._key == key and self._arguments in ([], arguments)

    def narrow(self, store: TaskStateStore) -> TaskStateStore:
        """Return the part of the task's state store that is for the ledger of this execution."""
        return store if self._number is None else self._narrow(store, self._number)

    def _narrow(self, store: TaskStateStore, number: int) -> TaskStateStore:
        return store.within(f"smtpcm/execution-{self._format_number(number)}/")

    def check_arguments(self, store: TaskStateStore, ledger: Ledger) -> None:
        """Check that the mail is the one that earlier attempts have recorded in its ledger, and record it.

        Args:
            store: the state store of the task.
            ledger: the ledger of this execution.

        Raises:
            LedgerError: it may be another one, so that a mail could be lost, or sent twice.
        """
        if not self._arguments:
            return
        from airflow_provider_smtpcm.ledger.record import LedgerStore

        record = LedgerStore(self.narrow(store))
        if self._first is not None:
            LedgerStore(store).set(_REPEATED, value=True)
        is_finished = ledger.finished_result is not None
        recorded = record.get(_ARGUMENTS) or []
        compared = slice(None if is_finished else 1)  # the ledger of a merge compares the rows itself
        if (is_finished or ledger.is_resumed) and recorded[compared] != self._arguments[compared]:
            if self._number is None:  # the task's own mail, which may change as long as the task sends no other
                if recorded and record.get(_REPEATED):
                    raise self._changed_error()
                self.is_changed = bool(recorded) and ledger.may_have_arrived
                if self.is_changed:
                    return
            elif ledger.may_have_arrived or LedgerStore(self._narrow(store, self._number + 1)).get(_ARGUMENTS):
                raise self._changed_error()  # the mails may have changed places
        if self._first is not None and self._first.is_changed:
            raise self._changed_error()
        record.set(_ARGUMENTS, self._arguments)

    def _changed_error(self) -> LedgerError:
        return LedgerError(
            f"The arguments of '{self.task_id}' are not those with which an earlier attempt of the task executed it: "
            "it is not known whether its mail is the same. It was not sent.",
            remedy="Give each operator that the task executes a task_id of its own, and the same arguments in every "
            "attempt; or set on_clear='send_again', and clear the task. Or send the mail in a mapped task, or with "
            "hook.send, which sends it in every attempt.",
        )


class _Executions:
    """The executions of one attempt of a task."""

    def __init__(self) -> None:
        self._first: Execution | None = None
        self._others: dict[str, list[Execution]] = {}

    def begin(self, operator: BaseOperator, *, is_own: bool) -> Execution:
        """Return the execution that begins now, or one that failed, if this call repeats it.

        Args:
            operator: the operator.
            is_own: whether it is the operator of the task.
        """
        key = _digest([type(operator).__qualname__, operator.task_id, *_get_values(operator, _RECIPIENT_FIELDS)])
        if is_own and self._first is None:
            arguments = _digest_arguments(operator) if _has_execute_of_author(operator) else ()
            self._first = Execution(operator.task_id, key=key, arguments=arguments)
            return self._first
        arguments, first = _digest_arguments(operator), self._first if is_own else None
        others = self._others.setdefault(key, [])
        for execution in (first, *others):
            if execution is not None and execution.is_repeated_by(key, arguments):
                execution.has_failed = False
                return execution
        others.append(Execution(operator.task_id, key=key, arguments=arguments, number=len(others), first=first))
        return others[-1]


@contextmanager
def begin_execution(operator: BaseOperator, context: Context) -> Iterator[Execution]:
    """Distinguish this call of `execute` from the others of the task.

    Args:
        operator: the operator whose `execute` is called.
        context: the context that it gets.
    """
    if _is_in_callback():
        yield Execution(operator.task_id, key=os.urandom(16).hex(), in_callback=True)
        return
    ti: Any = context["ti"]
    task = context.get("task")
    is_own = task is operator if task is not None else operator.task_id == ti.task_id
    with _lock:
        executions = getattr(ti, "__dict__", {}).setdefault(_ATTRIBUTE, _Executions())
        execution = executions.begin(operator, is_own=is_own)
    try:
        yield execution
    except BaseException:
        execution.has_failed = True
        raise


def _is_in_callback() -> bool:
    """Whether Airflow is running a callback, in this thread."""
    frame = inspect.currentframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if frame.f_code.co_name in _CALLBACK_RUNNERS and module.partition(".")[0] == "airflow":
            return True
        frame = frame.f_back
    return False


def _has_execute_of_author(operator: BaseOperator) -> bool:
    """Whether the operator has an `execute` of the author, which may call that of this package several times."""
    return type(operator).execute.__module__.partition(".")[0] not in _OWN_PACKAGES


def _digest_arguments(operator: BaseOperator) -> list[str]:
    names = [name for name in operator.template_fields if name not in (_CONNECTION_FIELD, _ROWS_FIELD)]
    return [_digest(_get_values(operator, names)), _digest(_get_values(operator, [_ROWS_FIELD]))]


def _get_values(operator: BaseOperator, names: Iterable[str]) -> list[object]:
    return [getattr(operator, name, None) for name in names]


def _digest(values: list[object]) -> str:
    """Return a digest; if the values have none, a random one, so that they do not pass for any others."""
    from airflow_provider_smtpcm.arguments.digest import digest  # every parse of a DAG imports this module

    try:
        return digest(values)
    except TypeError:
        return os.urandom(16).hex()
