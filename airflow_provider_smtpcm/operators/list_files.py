"""The files of a folder as rows: what a Foreach File enumerator of SSIS yields."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_smtpcm.arguments.values import check_choice
from airflow_provider_smtpcm.operators._rendering import RenderedOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class ListFilesOperator(RenderedOperator):
    """Return a mapping for each file of a folder, sorted by path: the rows of a merge or of a mapped task group.

    Args:
        folder: a folder on the worker.
        file_spec: a pattern of file names, such as `*.csv`, regardless of case; `*.*` is any name.
        recurse: whether subfolders count.
        field: the key in each mapping.
        retrieve: what is its value: the whole path (`path`), the name with its extension (`name`), or without (`stem`).

    Returns:
        The mappings; an empty list if no file matches.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    template_fields: Sequence[str] = ("folder", "file_spec")
    ui_color = "#e3ecf8"

    def __init__(
        self,
        *,
        folder: str,
        file_spec: str = "*",
        recurse: bool = False,
        field: str = "path",
        retrieve: Literal["path", "name", "stem"] = "path",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("retrieve", retrieve, ("path", "name", "stem"))
        self.folder = folder
        self.file_spec = file_spec
        self.recurse = recurse
        self.field = field
        self.retrieve = retrieve

    def execute(self, context: Context) -> list[dict[str, str]]:  # noqa: ARG002
        """Return the files."""
        folder = Path(self.folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder '{folder}' on this worker.")
        spec = "*" if self.file_spec.strip() in {"", "*.*"} else self.file_spec.strip().lower()
        names = folder.rglob("*") if self.recurse else folder.iterdir()
        files = sorted(path for path in names if fnmatch.fnmatchcase(path.name.lower(), spec) and path.is_file())
        log.info("%s files of '%s' match '%s'.", len(files), folder, self.file_spec)
        return [{self.field: str(path if self.retrieve == "path" else getattr(path, self.retrieve))} for path in files]
