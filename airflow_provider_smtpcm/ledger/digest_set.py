"""A set of digests of rows, in a temporary file: a merge with many rows needs no memory for them."""

from __future__ import annotations

import os
from typing import Any
from weakref import finalize

from airflow_provider_smtpcm.errors import MailError

#: Octets of each digest that are kept; a digest has at least this many.
DIGEST_OCTETS = 12
# KiB of the set's pages that are kept in memory.
_CACHE_KIB = 256
# Where SQLite puts a temporary file if no variable names a folder (https://www.sqlite.org/tempfiles.html).
_DEFAULT_FOLDERS = ("/var/tmp", "/usr/tmp", "/tmp", ".")  # noqa: S108 - named in an error only


class DigestSet:
    """A set of digests in a temporary file of about 20 octets per digest; its memory does not grow with their number.

    A merge keeps a digest of every row that it has read. Only the first 96 bits are compared. The probability
    that two rows share them is 1 in 10^17 for a million rows, and 1 in 10^13 for a hundred million.

    SQLite creates the file once its cache is full, where `TMPDIR` says, and removes its name at once. On a worker where
    no folder can be written to, the set is in memory.

    Raises:
        MailError: from every method: the file cannot be created, written or read.
    """

    def __init__(self) -> None:
        import sqlite3  # not before a merge runs
        import tempfile

        try:
            tempfile.gettempdir()
            name = ""  # a temporary file
        except FileNotFoundError:  # there is no folder to write to
            name = ":memory:"
        # Garbage collection may close it in any thread.
        database = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
        finalize(self, database.close)
        self._execute_statement, self._error = database.execute, sqlite3.Error
        self._execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._execute("PRAGMA journal_mode = OFF")  # nothing is rolled back
        self._execute("CREATE TABLE digests (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        self._execute("BEGIN")

    def add(self, digest: bytes) -> bool:
        """Add a digest of at least `DIGEST_OCTETS`.

        Returns:
            Whether it was not in the set before.
        """
        return bool(self._execute("INSERT OR IGNORE INTO digests VALUES (?)", digest[:DIGEST_OCTETS]).rowcount == 1)

    def __contains__(self, digest: bytes) -> bool:
        found = self._execute("SELECT 1 FROM digests WHERE digest = ?", digest[:DIGEST_OCTETS])
        return found.fetchone() is not None

    def _execute(self, statement: str, *values: bytes) -> Any:
        try:
            return self._execute_statement(statement, values)
        except self._error as error:
            raise MailError(
                f"The temporary file with the digests of the rows, in the folder '{_find_folder()}' of the worker, "
                f"cannot be written ({error}).",
                remedy="Free space there, or set TMPDIR on the worker to a folder with more: the file takes about 20 "
                "octets for each row.",
                retryable=True,
            ) from error


def _find_folder() -> str:
    """Return the folder that SQLite uses for temporary files."""
    folders = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), *_DEFAULT_FOLDERS)
    return next((folder for folder in folders if folder and os.access(folder, os.W_OK | os.X_OK)), ".")
