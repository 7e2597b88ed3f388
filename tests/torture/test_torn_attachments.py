"""A file that changes at any moment while it is sent never arrives as a mixture of two versions."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.encoding import BLOCK_SIZE
from airflow_provider_smtpcm.smtp import Outcome
from airflow_provider_smtpcm.smtp.outcome import Delivery
from airflow_provider_smtpcm.smtp.session import Session
from tests.smtp.connection_pool.batches import send_many
from tests.smtp.files import overwrite, replace
from tests.smtp.server import Server, Stored
from tests.torture.tally import TALLY

TOPIC = "torn attachments"
OFFERS = ("PIPELINING", "SIZE 0", "8BITMIME", "CHUNKING", "BINARYMIME")
# One that is read before its envelope is sent, one that mails share, one that is read for each mail.
SIZES = {"held ready": 20_000, "kept": 8 * BLOCK_SIZE, "streamed": 40 * BLOCK_SIZE}
HARMS: dict[str, Callable[[Path, int], None]] = {
    "overwritten": lambda path, size: overwrite(path, b"b" * size),
    "replaced": lambda path, size: replace(path, b"b" * size),
    "cut off": lambda path, size: path.write_bytes(b"b" * (size // 2)),
    "lengthened": lambda path, size: path.write_bytes(b"b" * (size + BLOCK_SIZE)),
}


def reader_that(harm: Callable[[], None], at: int) -> type[io.FileIO]:
    """A file whose next harm comes when it is read for the so manyth time; 0: when it was opened."""
    reads = itertools.count(1)

    class Reader(io.FileIO):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            if at == 0 and next(reads) == 2:  # the first one only finds out whether it may be read
                harm()

        def read(self, size: int | None = -1, /) -> bytes:
            octets = super().read(size)
            if at and next(reads) == at:
                harm()
            return octets

    return Reader


def versions(stored: Stored) -> set[str]:
    """Of which the file in a mail is made."""
    body = stored.message.partition(b'filename="report.bin"')[2].partition(b"\r\n\r\n")[2].partition(b"\r\n--")[0]
    if b"Encoding: binary" in stored.message:
        return {chr(octet) for octet in set(body)}
    import base64

    return {chr(octet) for octet in set(base64.b64decode(body))}


def letters(path: Path) -> list[Mail]:
    """Three that carry the file."""
    return [
        Mail(
            from_address="etl@corp.example",
            to=f"r{number}@corp.example",
            text="x",
            attachments=[path],
            message_id=f"<{number}@corp.example>",
        )
        for number in range(3)
    ]


def arrivals_are_told(server: Server, deliveries: list[Delivery]) -> tuple[int, int]:
    """How many mails were called accepted and are not there, and how many are there twice or were not called so."""
    accepted = {delivery.message_id for delivery in deliveries if delivery.outcome is Outcome.ACCEPTED}
    arrived = [stored.message_id for stored in server.stored]
    return len(accepted - set(arrived)), len(arrived) - len(accepted & set(arrived))


@pytest.mark.parametrize("binary", [False, True], ids=["DATA", "BDAT"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", HARMS)
def test_a_file_arrives_as_it_was_at_one_moment_or_not_at_all(
    how: str, size: str, binary: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it is written to: as it is opened, between two blocks, after the last one."""
    octets = SIZES[size]
    blocks = -(-octets // BLOCK_SIZE)
    for at in sorted({0, 1, 2, blocks // 2, blocks - 1, blocks, blocks + 1}):
        path = tmp_path / str(at) / "report.bin"
        path.parent.mkdir()
        path.write_bytes(b"a" * octets)
        harmed: list[str] = []

        def harm(path: Path = path, harmed: list[str] = harmed) -> None:
            harmed.append(how)
            HARMS[how](path, octets)

        with monkeypatch.context() as patched, Server(offers=OFFERS if binary else OFFERS[:3]) as server:
            manager = server.manager(binary_mime=binary)
            patched.setattr("io.FileIO", reader_that(harm, at))
            deliveries = list(send_many(letters(path), manager, lambda m=manager: Session(m).open(), connections=2))
        assert len(deliveries) == 3
        torn = sum(len(versions(stored)) != 1 for stored in server.stored)
        lost, doubled = arrivals_are_told(server, deliveries)
        TALLY.add(TOPIC, {"faults tried": len(harmed), "torn": torn, "lost": lost, "doubled": doubled})
        assert (torn, lost, doubled) == (0, 0, 0), (at, deliveries)
