"""The report has a line for each row as it finishes, whatever happens afterward."""

from __future__ import annotations

import fcntl
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.merge.report import MergeReport
from airflow_provider_smtpcm.operators.mail_merge import to_storage_path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def test_a_report_that_cannot_be_opened_is_an_error_before_any_mail(tmp_path: Path) -> None:
    """A folder, a file in place of a folder, an unknown storage."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "report.jsonl", "s3://bucket/report.jsonl", "nosuch://x/report.jsonl"):
        with pytest.raises(MessageError, match=r"(?s)(cannot be written|not a URL that Airflow can open)"):
            MergeReport(place, try_number=1, to_path=to_storage_path)


def test_a_disk_that_is_full_stops_no_mail_and_is_told_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """Once."""
    report = MergeReport("/dev/full", try_number=1, to_path=to_storage_path)
    for row in range(3):
        report.write(row=row)
    report.close()
    assert re.search("'/dev/full' cannot be written: No space left on device. Free space there", str(report.error))
    assert len(caplog.records) == 1


def test_a_store_that_takes_the_file_only_when_it_is_closed_is_told_too() -> None:
    """It may refuse it then."""

    class Store:
        parent = Path()

        def is_file(self) -> bool:
            return False

        def open(self, *_: object, **__: object) -> Store:
            return self

        def write(self, text: str) -> None:
            """Keep it for later."""

        def close(self) -> None:
            raise PermissionError(13, "Permission denied")

    report = MergeReport(Store(), try_number=1, to_path=to_storage_path)
    report.write(row=1)
    report.close()
    assert "Permission denied" in str(report.error)


def test_without_a_file_nothing_is_written() -> None:
    """And nothing is wrong."""
    for nowhere in (None, ""):
        report = MergeReport(nowhere, try_number=1, to_path=to_storage_path)
        report.write(row=1)
        report.close()
        assert report.error is None


@pytest.mark.parametrize("place", ["{}/new/folder/report.jsonl", "file://{}/new/folder/report.jsonl"])
def test_each_line_is_there_before_the_next_begins(place: str, tmp_path: Path) -> None:
    """A path or a URL; its folder is made."""
    path = tmp_path / "new" / "folder" / "report.jsonl"
    report = MergeReport(place.format(tmp_path), try_number=1, to_path=to_storage_path)
    report.write(row=1, key="Björn\ud800")
    if "://" not in place:
        assert lines(path) == [{"try_number": 1, "row": 1, "key": "Björn\ud800"}]
    report.write(row=2)
    report.close()
    assert [line["row"] for line in lines(path)] == [1, 2]
    assert report.error is None


@pytest.mark.parametrize(
    "partial",
    ["", '{"try_num', '{"try_number": 1, "row": 2, "key": "' + "x" * 200_000],
    ids=["none", "short", "longer than a block"],
)
@pytest.mark.parametrize("complete", ["", '{"try_number": 1, "row": 1}\n'], ids=["no line", "a line"])
@pytest.mark.parametrize("place", ["{}/report.jsonl", "file://{}/report.jsonl"], ids=["path", "URL"])
def test_a_further_try_replaces_what_the_one_before_left_of_a_line(
    place: str, complete: str, partial: str, tmp_path: Path
) -> None:
    """It was killed in the middle of a word; programs that read the file find complete lines only."""
    path = tmp_path / "report.jsonl"
    path.write_text(complete + partial)
    for try_number in (2, 3):
        report = MergeReport(place.format(tmp_path), try_number=try_number, to_path=to_storage_path)
        report.write(row=1)
        report.close()
    assert path.read_text() == complete + '{"try_number": 2, "row": 1}\n{"try_number": 3, "row": 1}\n'


def test_a_line_that_another_merge_may_be_writing_is_left_to_it(tmp_path: Path) -> None:
    """Two runs share a file; what is there of the line may not be all that its writer has."""
    path = tmp_path / "report.jsonl"
    other = MergeReport(path, try_number=1, to_path=to_storage_path)
    path.write_text('{"try_num')
    report = MergeReport(path, try_number=2, to_path=to_storage_path)
    report.write(row=1)
    other.write(row=2)
    for each in (report, other):
        each.close()
    assert path.read_text() == '{"try_num\n{"try_number": 2, "row": 1}\n{"try_number": 1, "row": 2}\n'


@pytest.mark.parametrize(
    "last", ['{"try_number": 1, "row": 1}', "a@corp.example"], ids=["complete", "of a file that is no report"]
)
def test_a_last_line_that_was_not_cut_off_gets_an_end(last: str, tmp_path: Path) -> None:
    """An editor has left out the line break, or `report_file` names the wrong file."""
    path = tmp_path / "report.jsonl"
    path.write_text(last)
    report = MergeReport(path, try_number=2, to_path=to_storage_path)
    report.write(row=2)
    report.close()
    assert path.read_text() == last + '\n{"try_number": 2, "row": 2}\n'


def test_a_report_that_is_open_can_be_read_and_written_where_locks_are_mandatory(tmp_path: Path) -> None:
    """An SMB share lets no other descriptor use what is locked, so no octet of a line is."""
    path = tmp_path / "report.jsonl"
    path.write_text('{"try_num')
    for _ in range(2):
        report = MergeReport(path, try_number=2, to_path=to_storage_path)
        report.write(row=1)
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1 << 40)
        report.close()


def test_a_merge_is_known_to_the_others_however_many_there_were(tmp_path: Path) -> None:
    """Each of three runs begins before the one before has ended."""
    path = tmp_path / "report.jsonl"
    first, second = (MergeReport(path, try_number=1, to_path=to_storage_path) for _ in range(2))
    first.close()
    path.write_text('{"try_num')
    third = MergeReport(path, try_number=1, to_path=to_storage_path)
    third.close()
    second.close()
    assert path.read_text() == '{"try_num\n'


class Unlockable:
    """A file of a store that has no file descriptors, as object storage."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.parent, self.stat, self.is_file = path.parent, path.stat, path.is_file

    def open(self, mode: str, **options: Any) -> Any:
        """A text file that is no file of the operating system to its user."""
        file = self._path.open(mode, **options)
        if mode == "rb":
            return file
        return SimpleNamespace(write=file.write, close=file.close)


def test_in_a_store_that_has_no_locks_the_rest_of_a_line_gets_an_end(tmp_path: Path) -> None:
    """The next line must not continue it."""
    path = tmp_path / "report.jsonl"
    path.write_text('{"try_num')
    report = MergeReport(Unlockable(path), try_number=2, to_path=to_storage_path)
    report.write(row=1)
    report.close()
    assert path.read_text() == '{"try_num\n{"try_number": 2, "row": 1}\n'


def line(row: int, outcome: str, *, key: str | None = "k", message_id: str | None = "<1@corp.example>") -> str:
    return json.dumps({"row": row, "key": key, "message_id": message_id, "outcome": outcome}) + "\n"


def read_back(text: bytes | str, path: Path, rows: int = 9) -> MergeReport:
    """The report of a later attempt, which has read the file."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    report = MergeReport(path, try_number=2, to_path=to_storage_path)
    report.read_earlier_lines(rows, lambda _, message_id: message_id in (None, "<1@corp.example>"))
    report.close()
    return report


def test_a_row_lacks_its_line_unless_the_last_one_says_how_it_ended(tmp_path: Path) -> None:
    """Wherever in the file that is; other runs' lines, half ones and what is no report at all do not count."""
    text = line(1, "accepted") + line(2, "not_sent") + line(3, "accepted", message_id="<2@corp.example>")
    text += line(2, "accepted") + line(4, "accepted")[:-9] + "\n" + line(5, "refused") + "[]\n7\n{}\n\x00\n"
    text += line(-1, "accepted") + line(10, "accepted") + line(6, "nosuch") + line(1, "accepted")[:-1]
    report = read_back(text, tmp_path / "report.jsonl")
    assert [row for row in range(1, 10) if report.is_missing(row, "k", "accepted")] == [3, 4, 5, 6, 7, 8, 9]
    assert report.has_line(5, "k", "refused")


def test_a_line_without_a_key_is_written_again_with_it(tmp_path: Path) -> None:
    """An attempt that did not reach the row could not name it."""
    report = read_back(line(1, "unknown", key=None, message_id=None), tmp_path / "report.jsonl")
    assert report.has_line(1, None, "unknown")
    assert not report.has_line(1, "k", "unknown")


def test_octets_that_are_no_text_do_not_stop_a_further_try(tmp_path: Path) -> None:
    """A disk that lost a block."""
    report = read_back(b"\xff\xfe" + bytes(4096) + b"\n" + line(1, "accepted").encode(), tmp_path / "report.jsonl")
    assert not report.is_missing(1, "k", "accepted")


@pytest.mark.parametrize("is_read", [False, True])
def test_a_new_file_lacks_no_line_of_an_earlier_try(is_read: bool, tmp_path: Path) -> None:
    """Each attempt has a file of its own."""
    report = MergeReport(tmp_path / "report-2.jsonl", try_number=2, to_path=to_storage_path)
    if is_read:
        report.read_earlier_lines(9, lambda *_: True)
    report.close()
    assert not report.is_missing(1, "k", "accepted")


def test_a_report_that_cannot_be_read_again_is_an_error_before_any_mail(tmp_path: Path) -> None:
    """It was removed."""
    path = tmp_path / "report.jsonl"
    path.touch()
    report = MergeReport(path, try_number=2, to_path=to_storage_path)
    path.unlink()
    with pytest.raises(MessageError, match="cannot be read: No such file"):
        report.read_earlier_lines(9, lambda *_: True)
