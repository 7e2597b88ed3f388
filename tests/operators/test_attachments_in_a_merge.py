"""A file that cannot be read, or is not what it was, fails its own row of a thousand, and the others are sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.merge.test_report import lines
from tests.operators.merges import merge
from tests.operators.test_send_mail_tries import Kept, attempt, failure
from tests.smtp.files import overwrite, replace
from tests.smtp.server import Server

Behind = Callable[..., None]
# The row, and the size of its file: more than is read before the server asks for it.
ROW, OCTETS = 700, 300_000


def harmed(path: Path, how: str) -> None:
    """Do this to the file."""
    match how:
        case "shrinks":
            path.write_bytes(b"x" * (OCTETS // 2))
        case "grows":
            path.write_bytes(b"x" * (OCTETS * 2))
        case "is overwritten":
            overwrite(path, b"y" * OCTETS)
        case "is replaced":
            replace(path, b"y" * OCTETS)
        case "is missing" | "vanishes":
            path.unlink()
        case "is unreadable":  # for root too
            path.unlink()
            path.symlink_to(path)
        case "is a folder":
            path.unlink()
            path.mkdir()


class Folder:
    """A thousand rows; only one has its own file, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "report-700.csv"
        self.repair()
        (folder / "terms.txt").write_text("As always.")
        other = str(folder / "terms.txt")
        self.rows = [
            {"email": f"r{at}@corp.example", "file": str(self.file) if at == ROW else other} for at in range(1, 1001)
        ]

    def repair(self) -> None:
        """The file is what it should be."""
        if self.file.is_symlink():
            self.file.unlink()
        elif self.file.is_dir():
            self.file.rmdir()
        self.file.write_bytes(b"x" * OCTETS)


def send(rows: Any, **fields: Any) -> Any:
    """The task."""
    return merge(rows=rows, subject="", attachments="{{ row.file }}", connections=2, **fields)


def copies(server: Server) -> Counter[str]:
    """How many mails each recipient has."""
    return Counter(one for stored in server.stored for one in stored.recipients)


@pytest.mark.parametrize("on_error", ["fail", "continue"])
@pytest.mark.parametrize(
    ("when", "how", "said"),
    [
        ("before", "is missing", "cannot be read: No such file or directory"),
        ("before", "is a folder", "is not a regular file"),
        ("before", "is unreadable", "cannot be read: Too many levels of symbolic links"),
        ("while it is sent", "vanishes", "cannot be read: No such file or directory"),
        ("while it is sent", "shrinks", "is shorter than"),
        ("while it is sent", "grows", "is longer than"),
        ("while it is sent", "is overwritten", "was overwritten or replaced"),
        ("while it is sent", "is replaced", "was overwritten or replaced"),
    ],
)
def test_the_file_of_one_row_in_a_thousand_fails_that_row(
    when: str, how: str, said: str, on_error: str, behind: Behind, tmp_path: Path
) -> None:
    """The others are sent once; a later attempt sends the missing one, if that is possible."""
    folder, store, report, harm = Folder(tmp_path), Kept(), tmp_path / "report.jsonl", [how]
    if when == "before":
        harmed(folder.file, how)

    def decide(about: str) -> str | None:
        if when != "before" and about == f"RCPT TO:<r{ROW}@corp.example>" and harm:
            harmed(folder.file, harm.pop())
        return None

    with Server(decide) as server:
        behind(server)
        task = send(folder.rows, on_error=on_error, report_file=str(report))
        if on_error == "fail":
            error = failure(task, store)
            assert "999 accepted, 1 failed of 1000 rows" in str(error)
            assert f"row {ROW}: " in str(error)
        else:
            counts = attempt(task, store)["counts"]
            assert (counts["accepted"], counts["failed"]) == (999, 1)
        assert copies(server) == Counter({row["email"]: 1 for at, row in enumerate(folder.rows, 1) if at != ROW})
        (told,) = (line for line in lines(report) if line["outcome"] != "accepted")
        assert (told["row"], told["outcome"]) == (ROW, "failed")
        assert "report-700.csv" in told["error"]
        assert said in told["error"]
        assert len(lines(report)) == 1000
        if on_error == "fail":
            folder.repair()
            result = attempt(task, store)
            assert (result["counts"]["accepted"], result["settled_earlier"]) == (1000, 999)
            assert set(copies(server).values()) == {1}
