"""Results from other threads wake the waiting one, and nothing else."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest

from airflow_provider_smtpcm.smtp.background_tasks import BackgroundTasks
from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
from tests.interruptions import Moments, TimeLimit, watched


def test_who_rings_while_it_is_closed_never_writes_into_what_is_opened_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system gives the number of a closed pipe to the next socket, which may lead to a mail server."""
    background: BackgroundTasks[None] = BackgroundTasks(lambda _: None)
    stop = CancellationToken()
    stop.wake = background.wake
    about_to_ring, opened = threading.Event(), threading.Event()
    ring = background._signal

    def ring_late() -> None:
        about_to_ring.set()
        opened.wait(0.5)  # if `close` waits for `wake`, nothing is opened meanwhile
        with contextlib.suppress(OSError):
            ring()

    monkeypatch.setattr(background, "_signal", ring_late)
    asking = threading.Thread(target=stop.cancel)
    asking.start()
    assert about_to_ring.wait(60)
    background.close()
    reader, writer = os.pipe()
    try:
        os.set_blocking(reader, False)
        opened.set()
        asking.join()
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_signal_handler_may_ring_while_its_own_thread_holds_the_lock() -> None:
    """It has broken into it."""
    background: BackgroundTasks[None] = BackgroundTasks(lambda _: None)
    rung = threading.Event()

    def ring_within() -> None:
        with background._lock:
            background.wake()
        rung.set()

    threading.Thread(target=ring_within, daemon=True).start()
    assert rung.wait(60)
    background.close()
    background.wake()


def test_where_no_thread_can_be_started_the_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker at its limit of threads sends with few sessions."""
    background: BackgroundTasks[str] = BackgroundTasks(lambda _: None)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    background.run(lambda: "done")
    assert list(background.results()) == ["done"]
    background.run(lambda: "never taken")
    assert background.close() == ["never taken"]


def test_an_interruption_anywhere_holds_up_nobody_else() -> None:
    """From Python 3.14 on a signal handler may raise just after a lock was acquired, which is then never released."""

    def check(at: int | None) -> int:
        background: BackgroundTasks[None] = BackgroundTasks(lambda _: None)
        moments = Moments(at, lambda: True)
        with contextlib.suppress(TimeLimit), watched(moments):
            background.wake()
            background.close()
        with contextlib.suppress(OSError):  # the pipe is closed already
            background.close()
        ringing = threading.Thread(target=background.wake, daemon=True)
        ringing.start()
        ringing.join()
        assert not ringing.is_alive(), f"interrupted at {at}"
        return moments.passed

    for at in range(1, check(None) + 1):
        check(at)
