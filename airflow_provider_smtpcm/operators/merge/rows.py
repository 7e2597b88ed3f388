"""Where the rows of a merge come from: a list, a file or a data frame. Knows no mail and no template."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.operators.merge.row import LIST, Rows, rows_of_frame, rows_of_mappings
from airflow_provider_smtpcm.operators.merge.row_files import FORMATS, STORAGE, open_file


def open_rows(rows: Any, *, encoding: str, delimiter: str | None = None) -> Rows:
    """Open the rows.

    Args:
        rows: a list or another iterable of mappings; the path of a file, as text (a URL is an ObjectStoragePath) or as
            an object with `open`; or a pandas DataFrame, whose missing values become None.
        encoding: of a CSV or JSON Lines file.
        delimiter: between the cells of a CSV file; None: a comma, and a tab where the name ends in .tsv.

    Raises:
        MessageError: they cannot be opened, or their columns have no names of their own.
    """
    if is_path(rows):
        return open_file(_path(rows), encoding, delimiter)
    if hasattr(rows, "itertuples") and hasattr(rows, "columns"):
        return rows_of_frame(rows)
    if rows is None:
        raise MessageError("'rows' is None.", remedy="The task that it comes from has to return the rows.")
    if isinstance(rows, Mapping | bytes | bytearray) or not isinstance(rows, Iterable):
        raise MessageError(f"'rows' is a list or a path, not {type(rows).__name__}.", remedy=LIST)
    return rows_of_mappings(rows)


def is_path(rows: Any) -> bool:
    """Whether it says where the rows are; by its class, since a data frame may have a column `open`."""
    return isinstance(rows, str | os.PathLike) or hasattr(type(rows), "open")


def storage_path(text: str) -> Any:
    """A path as somebody wrote it: a URL such as `s3://bucket/key` is Airflow's ObjectStoragePath.

    Raises:
        MessageError: Airflow knows no storage of that kind.
    """
    if "://" not in text:
        return Path(text)
    from airflow.sdk import ObjectStoragePath

    try:
        return ObjectStoragePath(text)
    except (ValueError, ImportError) as error:
        raise MessageError(f"'{text}' is no URL of a storage: {error}.", remedy=STORAGE) from None


def _path(rows: Any) -> Any:
    if not isinstance(rows, str):
        return rows if hasattr(rows, "open") else Path(rows)
    from airflow_provider_smtpcm.mail.tainted import checked_path

    text = checked_path(rows, "rows").strip()
    if text[:1] in ("[", "{") and text[-1:] in ("]", "}"):
        raise MessageError(
            "'rows' is a list that was turned into text.",
            remedy="Pass rows=the_other_task.output, or give the DAG render_template_as_native_obj=True.",
        )
    if not text:
        raise MessageError("'rows' is empty text.", remedy=FORMATS)
    return storage_path(text)
