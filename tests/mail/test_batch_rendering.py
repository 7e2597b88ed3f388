"""A batch renders each mail as if it were alone, with a cache of limited size."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.mail import Attachment, Mail, Priority
from airflow_provider_smtpcm.mail import render as module
from airflow_provider_smtpcm.mail.file_encoding import EncodedFile
from airflow_provider_smtpcm.mail.render import BatchRenderer, CachedFile, Rendering, render

NOON = datetime(2024, 1, 31, 12, 0, 0, tzinfo=UTC)


def mail(**fields: object) -> Mail:
    return Mail(
        **{
            "from_address": "reports@corp.example",
            "to": "jane@corp.example",
            "message_id": "<1@corp.example>",
            **fields,
        }
    )  # type: ignore[arg-type]


def octets_of(rendering: Rendering) -> bytes:
    octets = b"".join(rendering)
    assert len(octets) == rendering.size
    return octets


def files_of(rendering: Rendering) -> list[EncodedFile]:
    return [piece for piece in rendering.segments if not isinstance(piece, bytes)]


class Stored:
    """A remote file that counts how many times it is measured and read, and may have another size than it reports."""

    name = "report.bin"

    def __init__(self, octets: bytes, *, said: int | None = None) -> None:
        self.octets, self.said = octets, said
        self.measured = self.read = 0

    def stat(self) -> SimpleNamespace:
        self.measured += 1
        return SimpleNamespace(st_size=len(self.octets) if self.said is None else self.said)

    def open(self, mode: str) -> io.BytesIO:
        assert mode == "rb"
        self.read += 1
        return io.BytesIO(self.octets)


class Unhashable(Stored):
    """A remote path without a hash."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)

    __hash__ = None  # type: ignore[assignment]


# Few values for each field, so that neighbors in a batch are often the same in some and different in others.
files = st.lists(
    st.sampled_from(
        [
            Attachment(content=b"a;b\n", name="a.csv"),
            Attachment(content=b"a;b\n", name="März.csv"),
            Attachment(content=bytes(range(256)) * 300, name="a.bin", content_type="image/png"),
            Attachment(content=b"", name="empty"),
        ]
    ),
    max_size=2,
)
texts = st.sampled_from([None, "", "Hi", "Hi\n", "über", "日本語" * 40, "x" * 80, "a \n.\n"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=80
)
mails = st.builds(
    mail,
    from_address=st.sampled_from(["a@corp.example", "Jörg <j@bücher.example>", "jörg@corp.example"]),
    to=st.sampled_from(["b@corp.example", "B <b@corp.example>; c@corp.example", "d@[192.0.2.1]"]),
    cc=st.sampled_from(["", "", "e@corp.example", "E <é@corp.example>"]),
    bcc=st.sampled_from(["", "", "é@corp.example"]),
    reply_to=st.sampled_from(["", "help@corp.example", "H <help@corp.example>"]),
    subject=st.sampled_from(["", "Daily", "täglich", "x " * 60]),
    text=texts,
    html=texts.map(lambda text: text and text.replace("cid:", "")),
    attachments=files,
    priority=st.sampled_from(Priority),
    headers=st.sampled_from([{}, {"X-Report": "a"}, {"X-Report": "ä"}, {"Auto-Submitted": "no"}]),
    message_id=st.sampled_from(["<1@corp.example>", "<2@corp.example>"]),
) | st.builds(
    mail,
    text=texts,
    html=st.just('<img src="cid:logo">'),
    inline_images=st.just({"logo": Attachment(content=b"png", name="logo.png")}),
    attachments=files,
)
dates = st.sampled_from([NOON, NOON.astimezone(timezone(timedelta(hours=2))), NOON + timedelta(seconds=1)])


def test_what_render_refuses_is_refused_by_a_batch_too() -> None:
    """No sender, no Message-ID, a missing file, a date without a time zone; the next mail is rendered all the same."""
    renderer = BatchRenderer()
    for _ in range(2):
        for fields, said in (
            ({"from_address": None}, "no From address"),
            ({"message_id": None}, "no Message-ID"),
            ({"attachments": ["/nowhere/a.csv", "/nowhere/b.csv"]}, "/nowhere/a.csv.*\n.*/nowhere/b.csv"),
        ):
            with pytest.raises(MessageError, match=said) as caught:
                renderer.render(mail(**fields), date=NOON)
            assert caught.value.phase is Phase.MESSAGE
        with pytest.raises(MessageError, match="time zone"):
            renderer.render(mail(), date=NOON.replace(tzinfo=None))
        assert octets_of(renderer.render(mail(), date=NOON)) == octets_of(render(mail(), date=NOON))


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(mails, dates), min_size=1, max_size=6), st.booleans())
def test_every_mail_of_a_batch_is_what_render_makes_of_it(batch: Sequence[tuple[Mail, datetime]], binary: bool) -> None:
    """Octet by octet, whatever the mails before contained."""
    renderer = BatchRenderer(binary=binary)
    for item, date in batch:
        ours, plain = renderer.render(item, date=date), render(item, date=date, binary=binary)
        assert octets_of(ours) == octets_of(plain)
        assert (ours.needs_smtputf8, ours.binary) == (plain.needs_smtputf8, plain.binary)
        assert [len(piece) for piece in ours.segments] == [len(piece) for piece in plain.segments]
        assert [file.is_dot_free for file in files_of(ours)] == [file.is_dot_free for file in files_of(plain)]
        if not binary:
            assert all(len(line) <= 998 for line in octets_of(ours).split(b"\r\n"))


def test_the_date_is_that_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch may take hours. Within a second, the field is the same."""
    renderer = BatchRenderer()
    for seconds, clock in ((0, b"12:00:00"), (0.9, b"12:00:00"), (1, b"12:00:01"), (3600, b"13:00:00")):
        monkeypatch.setattr(module, "time", lambda seconds=seconds: NOON.timestamp() + seconds)
        assert octets_of(renderer.render(mail())).startswith(b"Date: Wed, 31 Jan 2024 " + clock + b" +0000\r\n")


@pytest.mark.parametrize("binary", [False, True])
def test_a_small_file_is_measured_and_read_once_for_the_whole_batch(binary: bool) -> None:
    """Also under different names. All mails get the content that was read first."""
    stored = Stored(b"first" * 50_000)
    renderer = BatchRenderer(binary=binary)
    expected = octets_of(render(mail(attachments=[stored]), date=NOON, binary=binary))
    stored.measured = stored.read = 0

    waiting = [renderer.render(mail(attachments=[stored]), date=NOON) for _ in range(3)]
    assert (stored.measured, stored.read) == (1, 0)
    assert [octets_of(rendering) for rendering in waiting] == [expected] * 3
    stored.octets = b"second"
    assert octets_of(renderer.render(mail(attachments=[stored]), date=NOON)) == expected
    renamed = renderer.render(mail(attachments=[Attachment(stored, name="other.bin")]), date=NOON)
    assert b"other.bin" in octets_of(renamed)
    assert (stored.measured, stored.read) == (2, 1)


def test_equal_paths_and_equal_contents_are_one_file(tmp_path: Path) -> None:
    """A merge makes an attachment for each row."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"first")
    renderer = BatchRenderer()
    first = octets_of(renderer.render(mail(attachments=[Attachment(path)]), date=NOON))
    path.unlink()
    assert octets_of(renderer.render(mail(attachments=[Attachment(Path(str(path)))]), date=NOON)) == first

    one, other = (
        renderer.render(mail(attachments=[Attachment(content=bytes(content), name="a")]))
        for content in (bytearray(b"abc"), bytearray(b"abc"))
    )
    assert files_of(one)[0] is files_of(other)[0]


def test_a_large_file_is_measured_and_read_for_each_mail() -> None:
    """It is not cached. The limit is 1 MiB, encoded."""
    for binary, largest in ((True, 1024 * 1024), (False, 766_000)):
        renderer = BatchRenderer(binary=binary)
        small, large = Stored(b"x" * largest), Stored(b"x" * (largest + 1000))
        for _ in range(2):
            for stored in (small, large):
                octets_of(renderer.render(mail(attachments=[stored])))
        assert (small.measured, small.read, large.measured, large.read) == (2, 1, 4, 2)
    content = Attachment(content=b"x" * 2_000_000, name="x")
    assert not isinstance(files_of(BatchRenderer().render(mail(attachments=[content])))[0], CachedFile)


def test_a_file_without_a_hash_is_read_for_each_mail() -> None:
    """It cannot be a key of the cache."""
    stored = Unhashable(b"x")
    renderer = BatchRenderer()
    for _ in range(2):
        octets_of(renderer.render(mail(attachments=[stored])))
    assert (stored.measured, stored.read) == (4, 2)


@pytest.mark.parametrize("binary", [False, True])
def test_a_file_that_failed_is_measured_again_for_the_next_mail(binary: bool) -> None:
    """It may be complete by then. The mail during which it changed fails, as it would alone."""
    stored = Stored(b"half", said=8)
    renderer = BatchRenderer(binary=binary)
    early, late = (renderer.render(mail(attachments=[stored])) for _ in range(2))
    for rendering in (early, late):
        with pytest.raises(MessageError, match="shorter") as caught:
            list(rendering)
        assert (caught.value.phase, caught.value.retryable) == (Phase.DATA, True)

    stored.octets, stored.said = b"complete", None
    assert octets_of(renderer.render(mail(attachments=[stored]), date=NOON)) == octets_of(
        render(mail(attachments=[stored]), date=NOON, binary=binary)
    )


def test_a_file_that_is_read_in_part_is_not_taken_for_the_whole() -> None:
    """A connection that breaks leaves the rest unread."""
    stored = Stored(bytes(range(256)) * 1000)
    renderer = BatchRenderer()
    rendering = renderer.render(mail(attachments=[stored]), date=NOON)
    begun = iter(rendering)
    next(begun), next(begun)
    del begun

    assert octets_of(rendering) == octets_of(render(mail(attachments=[stored]), date=NOON))


def test_the_files_that_were_used_last_are_kept() -> None:
    """The cache has 8 MiB: the ninth file of 900,000 octets drops the least recently used one."""
    renderer = BatchRenderer(binary=True)
    stored = [Stored(b"x" * 900_000) for _ in range(10)]
    for file in (*stored[:9], stored[0], stored[9]):
        octets_of(renderer.render(mail(attachments=[file])))
    for file in (stored[0], stored[9], stored[1]):
        octets_of(renderer.render(mail(attachments=[file])))

    assert [file.read for file in stored] == [1, 2, *[1] * 8]


def test_a_batch_needs_the_same_memory_however_many_mails_it_has() -> None:
    """Mails with their own texts and files, and a shared file."""
    renderer = BatchRenderer()
    shared = Attachment(content=b"s" * 20_000, name="s")

    def send(start: int, stop: int) -> int:
        for index in range(start, stop):
            own = [Attachment(content=b"%d" % index * size, name=f"{index}") for size in (1, 50_000)]
            text = f"{index}\n" * 1000
            octets_of(renderer.render(mail(subject=f"{index}", text=text, html=text, attachments=[shared, *own])))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    send(1000, 1100)
    before = send(1100, 1200)
    assert send(1200, 1400) - before < 256 * 1024
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 1024 * 1024
