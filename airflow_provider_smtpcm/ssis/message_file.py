"""Reads the file with the text of a mail, as SSIS does if MessageSourceType is FileConnection."""

from __future__ import annotations

from pathlib import Path


def read_message_file(path: str) -> str:
    """Return the content of a text file; a macro of imported DAGs.

    Unlike the operator's `text_file`, this does not render the file as a template, because SSIS does not.

    Args:
        path: a file on the worker, in UTF-16 with a byte order mark, in UTF-8, or in Windows code page 1252.

    Raises:
        OSError: the file does not exist or cannot be read.
    """
    content = Path(path).read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")
