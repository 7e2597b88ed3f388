"""Files in arguments: URLs and wildcards have a meaning where the author of the DAG wrote them, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.attachment import Attachment
from airflow_provider_smtpcm.mail.files import WILDCARDS, FilePattern
from airflow_provider_smtpcm.mail.tainted import TaintedStr, check_path, short_repr

# Fields that may be several files; the others are one, which is no attachment.
_COLLECTIONS = ("attachments", "inline_images")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
# Has a meaning in the patterns of object storage.
_REMOTE_WILDCARDS = "*?["


def locate_files(name: str, text: str, *, item: bool, to_path: Callable[[str], Any]) -> Any:
    """Return paths in object storage and patterns in place of the URLs and wildcards that the author wrote.

    Args:
        name: the name of the field.
        text: as rendered. In a `TaintedStr`, only what its mask shows was written by the author; else everything.
        item: whether it is an item of a list or a mapping, and so exactly one file.
        to_path: turns a URL into an object with `open`.

    Returns:
        The text itself if there is nothing to replace; the object; or a list with one item for each file.

    Raises:
        MessageError: a value contains a wildcard that cannot be told from the author's; or `to_path` failed.
    """
    if "://" not in text and not any(wildcard in text for wildcard in WILDCARDS):
        return text
    tainted = text if isinstance(text, TaintedStr) else TaintedStr(text, text)
    is_single = item or name not in _COLLECTIONS
    parts = [tainted.strip_slice(0, len(text))] if is_single else tainted.split_untainted("|")
    files = [_locate(name, part, to_path) for part in parts]
    if all(file is part for file, part in zip(files, parts, strict=True)):
        return text
    return files[0] if len(files) == 1 else files


def locate_object(name: str, value: Any, to_path: Callable[[str], Any]) -> Any:
    """Return an attachment that the author wrote with a path in object storage if its path is a URL.

    Args:
        name: the name of the field.
        value: any value; anything but such an attachment is returned unchanged.
        to_path: as in `locate_files`.
    """
    if name not in _COLLECTIONS or not isinstance(value, Attachment) or not isinstance(value.path, str):
        return value
    if not _SCHEME.match(value.path):
        return value
    from dataclasses import replace

    return replace(value, path=to_path(value.path))


def _locate(name: str, part: TaintedStr, to_path: Callable[[str], Any]) -> Any:
    has_pattern = name in _COLLECTIONS and any(wildcard in part.mask for wildcard in WILDCARDS)
    if not _SCHEME.match(part.mask):
        return FilePattern(part) if has_pattern else part
    url = str(check_path(part, name))
    if not has_pattern or "*" not in part.mask:
        return to_path(url)
    for character in _REMOTE_WILDCARDS:
        if url.count(character) > part.mask.count(character):
            raise MessageError(
                f"{name}: a value that was filled into {short_repr(url)} contains '{character}', which is a wildcard "
                "in object storage.",
                remedy="Correct the value, or leave out the other wildcards.",
            )
    return FilePattern(to_path(url))
