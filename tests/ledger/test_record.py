"""The rows of a ledger are stored in a few bytes each, and read back as they were."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_smtpcm.ledger.record import BLOCK_ROWS, FINGERPRINT_OCTETS, NO_PROGRESS, Block, Progress, RowState

WRITTEN = [state for state in RowState if state is not RowState.UNSEEN]
rows = st.dictionaries(
    st.integers(0, BLOCK_ROWS - 1),
    st.tuples(
        st.binary(min_size=FINGERPRINT_OCTETS, max_size=FINGERPRINT_OCTETS),
        st.sampled_from(WRITTEN),
        st.builds(
            Progress, st.lists(st.text(), max_size=2).map(tuple), st.dictionaries(st.text(), st.text(), max_size=2)
        ),
    ),
    max_size=60,
)


@pytest.mark.parametrize(
    "value",
    [{}, {"states": "a3", "marks": ""}, {"states": "z", "marks": "AAAA"}, {"states": "a", "marks": "?"}, {"states": 3}],
)
def test_what_is_no_block_is_refused(value: dict[str, object]) -> None:
    """It may have been edited."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        Block.from_json(value)


@given(rows)
def test_a_block_reads_back_as_it_was_written(written: dict[int, tuple[bytes, RowState, Progress]]) -> None:
    """In whatever order, with gaps, and with who is left."""
    block = Block()
    for at, (mark, state, rest) in written.items():
        block.put(at, mark, state, rest)
    read = Block.from_json(json.loads(json.dumps(block.to_json())))
    assert len(read) == max(written, default=-1) + 1
    for at in range(len(read)):
        mark, state, rest = written.get(at, (bytes(FINGERPRINT_OCTETS), RowState.UNSEEN, NO_PROGRESS))
        assert (read.fingerprint(at), read.state(at), read.progress.get(at, NO_PROGRESS)) == (mark, state, rest)


def test_a_row_takes_a_few_bytes() -> None:
    """Even if no row has the state of the previous one."""
    block = Block()
    for at in range(BLOCK_ROWS):
        block.put(at, at.to_bytes(FINGERPRINT_OCTETS, "big"), RowState.ACCEPTED if at % 2 else RowState.REFUSED)
    assert len(json.dumps(block.to_json())) < 13 * BLOCK_ROWS


def test_who_is_left_is_forgotten_once_everybody_has_it() -> None:
    """Otherwise a later attempt would send it again."""
    block = Block()
    block.put(0, bytes(FINGERPRINT_OCTETS), RowState.RETRY, Progress(("a@corp.example",)))
    block.put(0, bytes(FINGERPRINT_OCTETS), RowState.ACCEPTED)
    assert Block.from_json(block.to_json()).progress == {}


def test_a_block_of_an_older_release_is_read_and_goes_on_as_it_is() -> None:
    """It has three octets of each digest, and the others are gone."""
    block = Block.from_json({"states": "a2t", "marks": b64encode(b"abcdefghi").decode()})
    assert [block.fingerprint(at) for at in range(3)] == [b"abc", b"def", b"ghi"]
    block.put(2, b"ghijklmn", RowState.ACCEPTED)
    block.put(4, b"opqrstuv", RowState.OPEN)
    assert block.to_json() == {"states": "a3no", "marks": b64encode(b"abcdefghi\0\0\0opq").decode()}
    assert Block.from_json(block.to_json()).to_json() == block.to_json()
