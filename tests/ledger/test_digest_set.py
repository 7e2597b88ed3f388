"""A set of many digests is exact, and takes no memory for them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path

import pytest

from airflow_provider_smtpcm.errors import MailError
from airflow_provider_smtpcm.ledger.merge import DIGEST_OCTETS, DigestSet


def test_it_says_of_every_digest_whether_it_was_there_already() -> None:
    """Like `set`, even while it grows, and if digests begin or end alike."""
    dice = random.Random(7)  # noqa: S311 - no secret
    digests = [dice.randbytes(DIGEST_OCTETS) for _ in range(5000)]
    digests += [digest[:8] + bytes(4) for digest in digests] + [bytes(8) + digest[8:] for digest in digests[:100]]
    digests += dice.choices(digests, k=5000)
    known, plain = DigestSet(), set[bytes]()
    for digest in digests:
        assert (digest in known) == (digest in plain)
        assert known.add(digest) == (digest not in plain)
        plain.add(digest)
    assert all(digest in known for digest in digests)


def test_it_takes_no_memory_for_further_digests() -> None:
    """SQLite's own memory is not traced, so the process is asked."""
    script = f"""
import os, resource
from airflow_provider_smtpcm.ledger.merge import DigestSet

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

known = DigestSet()
assert all(known.add(os.urandom({DIGEST_OCTETS})) for _ in range(20_000))
before = resident()
assert all(known.add(os.urandom({DIGEST_OCTETS})) for _ in range(200_000))
print(resident() - before)
"""
    grown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 200_000


def test_a_disk_that_is_full_is_an_error_and_no_new_digest() -> None:
    """A second row with the same key would be taken for the first."""
    known = DigestSet()
    known._execute("PRAGMA max_page_count = 4")
    with pytest.raises(MailError, match="disk is full") as caught:
        deque((known.add(number.to_bytes(DIGEST_OCTETS, "big")) for number in range(5000)), maxlen=0)
    assert caught.value.retryable


def test_the_error_names_the_folder_that_has_no_room(tmp_path: Path) -> None:
    """The file is in `TMPDIR`; the limit on its size is a real one."""
    script = f"""
import resource, signal
from airflow_provider_smtpcm.errors import MailError
from airflow_provider_smtpcm.ledger.merge import DigestSet

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
known = DigestSet()
try:
    for number in range(50_000):
        known.add(number.to_bytes({DIGEST_OCTETS}, "little"))
except MailError as error:
    print(error)
"""
    surroundings = {**os.environ, "TMPDIR": str(tmp_path)}
    printed = subprocess.run(
        [sys.executable, "-c", script], env=surroundings, capture_output=True, text=True, check=True
    )
    assert f"in the folder '{tmp_path}' of the worker, cannot be written (disk I/O error)" in printed.stdout
    assert "set TMPDIR on the worker" in printed.stdout


def test_a_worker_without_a_folder_to_write_to_has_it_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod whose file system is read-only."""

    def find_none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", find_none)
    known = DigestSet()
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert all(known.add(number.to_bytes(DIGEST_OCTETS, "little")) for number in range(50_000))
    assert not known.add(bytes(DIGEST_OCTETS))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_its_file_is_gone_with_it() -> None:
    """It never has a name."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    known = DigestSet()
    for number in range(50_000):
        known.add(number.to_bytes(DIGEST_OCTETS, "little"))
    assert descriptors() > before
    del known
    assert descriptors() == before
