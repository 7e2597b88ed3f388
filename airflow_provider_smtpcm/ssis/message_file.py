"""Reads the file that holds the text of a mail: SSIS's message source FileConnection."""

from __future__ import annotations

from pathlib import Path


def read_message_file(path: str) -> str:
    """Return the content of a file unchanged; a macro of imported DAGs.

    The operator's `text_file` would render the file as a template, which SSIS does not. A file without a byte order
    mark is read as UTF-8, or, where it is not valid UTF-8, in the Western Windows code page (1252).

    Args:
        path: on the worker.

    Raises:
        OSError: the file is missing, or cannot be read.
    """
    content = Path(path).read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")
