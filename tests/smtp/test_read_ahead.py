"""Reading ahead in a thread: its errors are raised here, and a slow store delays nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from airflow_provider_smtpcm.errors import MailError, MessageError, Phase
from airflow_provider_smtpcm.smtp.background_tasks import ReadAhead
from tests.waiting import wait_until


class Content:
    """Blocks from a store that counts them, and records whether it was closed."""

    def __init__(self, *blocks: bytes | Exception) -> None:
        self._blocks = blocks
        self.handed_out = 0
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        try:
            for block in self._blocks:
                if isinstance(block, Exception):
                    raise block
                self.handed_out += 1
                yield block
        finally:
            self.closed.set()


def read_all(ahead: ReadAhead) -> bytes:
    """Every block, waiting where there is none yet."""
    found: list[bytes] = []

    def is_read() -> bool:
        for block in ahead:
            if block is None:
                return False
            found.append(block)
        return True

    wait_until(is_read)
    return b"".join(found)


def test_a_file_that_fails_says_so_behind_what_was_read() -> None:
    """The blocks before the failure come first, and then the error as it was."""
    ahead = ReadAhead(iter(Content(b"one", MessageError("It shrank."))), lambda: None)
    wait_until(lambda: next(ahead) == b"one")
    with pytest.raises(MessageError, match="It shrank"):
        read_all(ahead)


def test_whatever_a_store_raises_is_an_error_of_the_mail() -> None:
    """Its own classes are not known here."""
    ahead = ReadAhead(iter(Content(LookupError("no such bucket"))), lambda: None)
    with pytest.raises(MailError, match="no such bucket") as caught:
        read_all(ahead)
    assert caught.value.phase is Phase.DATA


def test_a_block_that_is_not_there_yet_is_not_waited_for() -> None:
    """And the caller is woken when it comes."""
    arrives, woken = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        arrives.wait()
        yield b"late"

    ahead = ReadAhead(slow(), woken.set)
    assert next(ahead) is None
    assert not woken.is_set()
    arrives.set()
    assert woken.wait(60)
    assert next(ahead) == b"late"


def test_no_more_is_read_than_a_few_blocks() -> None:
    """A store that is faster than the connection fills no memory."""
    content = Content(*[b"x"] * 100)
    ahead = ReadAhead(iter(content), lambda: None)
    wait_until(lambda: content.handed_out >= 3)
    time.sleep(0.05)
    assert content.handed_out == 3
    assert next(ahead) == b"x"
    wait_until(lambda: content.handed_out == 4)
    ahead.close()


def test_when_nobody_wants_the_rest_the_file_is_closed() -> None:
    """The connection broke, and the thread ends."""
    content = Content(*[b"x"] * 100)
    ahead = ReadAhead(iter(content), lambda: None)
    wait_until(lambda: content.handed_out == 3)
    ahead.close()
    assert next(ahead) == b"x"  # room again, but nothing to fill it
    assert content.closed.wait(60)
    assert content.handed_out <= 4


def test_every_block_comes_in_its_order() -> None:
    """Each wakes once, and so does the end."""
    rings: list[int] = []
    blocks = [bytes((number,)) * 10 for number in range(50)]
    assert read_all(ReadAhead(iter(Content(*blocks)), lambda: rings.append(1))) == b"".join(blocks)
    assert len(rings) == 51
