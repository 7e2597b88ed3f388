"""The text of a mail that stands in a file, as SSIS's message source FileConnection takes it. Knows no mail."""

from __future__ import annotations

from pathlib import Path


def read_message_file(path: str) -> str:
    """The text of a file as it is: in Unicode, or in the code page of Western Windows.

    A macro of imported DAGs: `text_file` would take the file for a template, and SSIS does not.

    Args:
        path: on the worker.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    content = Path(path).read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")
