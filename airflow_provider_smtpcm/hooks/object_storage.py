"""Object storage: URLs as Airflow's `ObjectStoragePath`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.files import STORAGE_REMEDY


def to_storage_path(text: str) -> Any:
    """Return a `Path` for a path, and Airflow's `ObjectStoragePath` for a URL such as `s3://bucket/key`.

    Raises:
        MessageError: Airflow does not support this kind of storage.
    """
    if "://" not in text:
        return Path(text)
    from airflow.sdk import ObjectStoragePath

    try:
        return ObjectStoragePath(text)
    except (ValueError, ImportError) as error:
        raise MessageError(f"'{text}' is not a URL that Airflow can open: {error}.", remedy=STORAGE_REMEDY) from None
