"""`kill -9` around the line of a row: afterwards the report has each line once, and lacks none."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.ledger import merge as merge_ledger
from airflow_provider_smtpcm.ledger.record import HEAD, Block, RowState
from airflow_provider_smtpcm.merge.report import MergeReport
from tests.merge.test_report import lines
from tests.operators.merges import merge
from tests.operators.tasks import context
from tests.operators.test_mail_merge_tries import copies
from tests.operators.test_send_mail_tries import ids
from tests.smtp.server import Server
from tests.torture.tally import TALLY
from tests.torture.test_random_schedules import OnDisk
from tests.waiting import wait_until

Behind = Callable[..., None]
ROWS = [{"email": f"p{number}@corp.example", "name": f"{number}"} for number in range(1, 6)]
# Another run wrote to the same file, with the same keys.
OTHER_RUN = (
    '{"try_number": 1, "row": 3, "key": "3", "message_id": "<0@corp.example>", "outcome": "accepted", '
    '"accepted": [], "refused": {}, "error": null}\n'
)


class Moment(StrEnum):
    """When the process dies, for one row."""

    WITHOUT_LINE = "the ledger has its result, and the report no line"
    HALF_A_LINE = "the ledger has its result, and the report half a line"
    WITHOUT_END = "the ledger has its result, and the report a line without its end"
    WITH_LINE = "the ledger has its result, and the report its line"
    LINE_ONLY = "the report has its line, and the ledger no result"


def has_result(store: OnDisk, row: int) -> bool:
    """Whether the ledger on the disk says that a row was accepted."""
    block = store.get(f"{HEAD}/0/0")
    return block is not None and Block.from_json(block).state(row - 1) is RowState.ACCEPTED


def killed_at(moment: Moment, row: int, store: OnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process die at this moment."""
    write, record = MergeReport.write, merge_ledger.MergeLedger.record

    def write_and_die(report: MergeReport, **entry: Any) -> None:
        if entry["row"] != row:
            write(report, **entry)
            return
        if moment is not Moment.LINE_ONLY:
            wait_until(lambda: has_result(store, row))
        if moment is not Moment.WITHOUT_LINE:
            write(report, **entry)
        cut = {Moment.HALF_A_LINE: 40, Moment.WITHOUT_END: 1}.get(moment, 0)
        os.truncate(report.file, Path(report.file).stat().st_size - cut)
        os.kill(os.getpid(), signal.SIGKILL)

    def record_others(of: merge_ledger.MergeLedger, index: int, *result: Any, **options: Any) -> None:
        if moment is not Moment.LINE_ONLY or index != row - 1:
            record(of, index, *result, **options)

    monkeypatch.setattr(MergeReport, "write", write_and_die)
    monkeypatch.setattr(merge_ledger.MergeLedger, "record", record_others)


def run_killed(task: Any, moment: Moment, row: int, store: OnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the task in a process of its own, which dies."""
    child = os.fork()
    if not child:
        signal.alarm(60)  # whatever happens, the wait for it ends
        try:
            killed_at(moment, row, store, monkeypatch)
            run(task, store)
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def run(task: Any, store: OnDisk, try_number: int = 1) -> None:
    """Run the task; rows in doubt make it fail."""
    with suppress(Exception):
        task.execute({**context(try_number=try_number, max_tries=3), "task_state_store": store})


@pytest.mark.parametrize("row", [1, 3, 5])
@pytest.mark.parametrize("moment", Moment, ids=lambda moment: moment.name)
@pytest.mark.parametrize("shared", [False, True], ids=["own file", "shared file"])
def test_each_row_has_its_line_once(
    shared: bool, moment: Moment, row: int, behind: Behind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two was written first, and with whatever the earlier attempt has left in the file."""
    monkeypatch.setattr(merge_ledger, "_RECORD_WITHIN", 0.01)
    report, store = tmp_path / "report.jsonl", OnDisk(tmp_path / "ledger")
    report.write_text(OTHER_RUN * shared)
    task = merge(rows=ROWS, report_file=str(report), row_key="{{ row.name }}", ledger_window=1)
    with Server() as server:
        behind(server)
        run_killed(task, moment, row, store, monkeypatch)
        for try_number in (2, 3):
            run(task, store, try_number)
        arrived, message_ids = copies(server), ids(server)
    TALLY.add("processes killed around a report's line", {"schedules run": 1})
    found = [line for line in lines(report) if line["message_id"] != "<0@corp.example>"]
    times = Counter((line["row"], line["outcome"]) for line in found)
    assert set(times.values()) == {1}
    assert {line["row"] for line in found} == {1, 2, 3, 4, 5}
    assert max(arrived.values()) == 1
    accepted = [line for line in found if line["outcome"] == "accepted"]
    assert all(line["accepted"] == [f"p{line['row']}@corp.example"] for line in accepted)
    assert all(line["message_id"] in message_ids and line["key"] == str(line["row"]) for line in accepted)
    assert all((line["refused"], line["error"]) == ({}, None) for line in accepted)
    if moment is not Moment.LINE_ONLY:
        assert (times[row, "accepted"], times[row, "unknown"]) == (1, 0)


def test_a_row_left_in_doubt_is_named_once(behind: Behind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second attempt dies once it has written that; the third one does not write it again."""
    monkeypatch.setattr(merge_ledger, "_RECORD_WITHIN", 0.01)
    report, store = tmp_path / "report.jsonl", OnDisk(tmp_path / "ledger")
    task = merge(rows=ROWS, report_file=str(report), ledger_window=1)
    with Server() as server:
        behind(server)
        run_killed(task, Moment.LINE_ONLY, 3, store, monkeypatch)
        in_doubt = [place + 1 for place, one in enumerate(states(store)) if one is RowState.OPEN]
        run_killed(task, Moment.LINE_ONLY, in_doubt[-1], store, monkeypatch)
        run(task, store)
    unknown = Counter(line["row"] for line in lines(report) if line["outcome"] == "unknown")
    assert unknown == dict.fromkeys(in_doubt, 1)


def states(store: OnDisk) -> list[RowState]:
    """What the ledger on the disk says of each row."""
    block = Block.from_json(store.get(f"{HEAD}/0/0"))
    return [block.state(place) for place in range(len(block))]
