"""Operators of imported SSIS packages: Expression tasks, Foreach File enumerators, tasks that were not translated."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseOperator

from airflow_provider_smtpcm.arguments import check_choice
from airflow_provider_smtpcm.operators._rendering import RenderedOperator
from airflow_provider_smtpcm.operators._task import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class ExpressionOperator(RenderedOperator):
    """Set variables, as an Expression task of SSIS does: push an XCom for each, with its name as key.

    Args:
        variables: values by the name of the variable, such as `User::Total`. A value is usually a
            `ssis.live_values.TypedTemplate`, which keeps the type that the variable has in SSIS; a plain template
            renders to text.

    Raises:
        AirflowFailException: a value is null, which a variable of SSIS cannot be. Tasks that read the variable would
            silently get its previous value.
    """

    template_fields: Sequence[str] = ("variables",)
    ui_color = "#e3ecf8"

    def __init__(self, *, variables: Mapping[str, object], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.variables = dict(variables)

    def execute(self, context: Context) -> None:
        """Push the values."""
        from airflow_provider_smtpcm.ssis.live_values import to_json

        if empty := [name for name, value in self.variables.items() if value is None]:
            raise AirflowFailException(
                f"The value for {', '.join(empty)} is NULL, which a variable of SSIS cannot be. Let the expression "
                "return another value, for example with REPLACENULL."
            )
        for name, value in self.variables.items():
            context["ti"].xcom_push(key=name, value=to_json(value))
            log.info("%s is set.", name)


class ListFilesOperator(RenderedOperator):
    r"""Return a mapping for each file of a folder, sorted by path, as a Foreach File enumerator of SSIS yields them.

    The mappings are the rows of a merge or of a mapped task group.

    Args:
        folder: a folder on the worker.
        file_spec: a pattern of file names, such as `*.csv`, regardless of case; `*.*` is any name.
        recurse: whether files in subfolders match too (default: no).
        field: the only key of each mapping (default: `path`).
        retrieve: the value for this key: `path` (default) is the whole path, `name` the file name with its extension,
            `stem` the file name without it.
        windows_folder: the folder as SSIS knows it, such as `C:\in`. The whole paths then begin with it and have
            backslashes, so that expressions see what they see in SSIS. By default, or if this is no Windows path, they
            are paths on the worker.

    Returns:
        The mappings; an empty list if no file matches.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    template_fields: Sequence[str] = ("folder", "file_spec", "windows_folder")
    ui_color = "#e3ecf8"

    def __init__(
        self,
        *,
        folder: str,
        file_spec: str = "*",
        recurse: bool = False,
        field: str = "path",
        retrieve: Literal["path", "name", "stem"] = "path",
        windows_folder: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("retrieve", retrieve, ("path", "name", "stem"))
        self.folder = folder
        self.file_spec = file_spec
        self.recurse = recurse
        self.field = field
        self.retrieve = retrieve
        self.windows_folder = windows_folder

    def execute(self, context: Context) -> list[dict[str, str]]:  # noqa: ARG002
        """Return the mappings."""
        folder = Path(self.folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder '{folder}' on this worker.")
        spec = "*" if self.file_spec.strip() in {"", "*.*"} else self.file_spec.strip().lower()
        names = folder.rglob("*") if self.recurse else folder.iterdir()
        files = sorted(path for path in names if fnmatch.fnmatchcase(path.name.lower(), spec) and path.is_file())
        log.info("%s files of '%s' match '%s'.", len(files), folder, self.file_spec)
        return [{self.field: self._describe(path, folder)} for path in files]

    def _describe(self, path: Path, folder: Path) -> str:
        from airflow_provider_smtpcm.ssis.windows_paths import is_windows_path

        if self.retrieve != "path":
            return str(getattr(path, self.retrieve))
        root = self.windows_folder.strip()
        if not is_windows_path(root):
            return str(path)
        return "\\".join((root.rstrip("\\/"), *path.relative_to(folder).parts))


class PlaceholderOperator(BaseOperator):
    """Fail, and say which SSIS task this one stands for and what has to take its place.

    If it succeeded, the DAG could report success of a load that never ran.

    Args:
        ssis_kind: the kind of the SSIS task, such as `Microsoft.Pipeline`.
        sets: the variables that the SSIS task sets, such as `User::Rows`. The task that takes its place pushes an XCom
            for each of them, with the name of the variable as key.
        read_by: the names of the SSIS tasks that read these variables.
        passes: whether to succeed all the same, for a walk-through of the DAG. Tasks that read the variables then get
            the variables' design-time values.

    Raises:
        AirflowFailException: always, unless `passes`; the task is not retried.
    """

    ui_color = "#f6c6c2"

    def __init__(
        self,
        *,
        ssis_kind: str = "",
        sets: Sequence[str] = (),
        read_by: Sequence[str] = (),
        passes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ssis_kind = ssis_kind
        self.sets = list(sets)
        self.read_by = list(read_by)
        self.passes = passes

    def execute(self, context: Context) -> None:  # noqa: ARG002
        """Fail, or log what the task stands for."""
        description = f"{self.task_id!r} stands for an SSIS task"
        description += f" ({self.ssis_kind})" if self.ssis_kind else ""
        description += ", which the import could not translate. "
        if self.passes:
            log.warning("%sIt does nothing, and succeeds because of passes=True.%s", description, self._describe_sets())
            return
        raise AirflowFailException(
            f"{description}Replace it with a task that does the same work.{self._describe_sets()} To let it succeed "
            "although it does nothing, set passes=True."
        )

    def _describe_sets(self) -> str:
        if not self.sets:
            return ""
        text = f" The SSIS task sets {_join(self.sets)}"
        text += f", which {_join(self.read_by)} " if self.read_by else ", which other tasks may "
        text += "reads: " if len(self.read_by) == 1 else "read: "
        keys = "that key" if len(self.sets) == 1 else "these keys"
        return f"{text}push an XCom with {keys}."


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(map(repr, names[:-1])), repr(names[-1])]))
