"""A set of many digests is exact, and takes a few octets for each."""

from __future__ import annotations

import random
import tracemalloc

from airflow_provider_smtpcm.ledger.record import DIGEST_OCTETS, DigestSet


def test_it_says_of_every_digest_whether_it_was_there_already() -> None:
    """As `set` does, also while it grows, and where digests begin or end alike."""
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


def test_a_digest_takes_27_octets_at_the_most() -> None:
    """A set of bytes takes a hundred."""
    dice = random.Random(7)  # noqa: S311 - no secret
    tracemalloc.start()
    try:
        known = DigestSet()
        empty, _ = tracemalloc.get_traced_memory()
        for number in range(1, 60_001):
            known.add(dice.randbytes(DIGEST_OCTETS))
            if number % 10_000 == 0:
                assert tracemalloc.get_traced_memory()[0] - empty < 28 * number
    finally:
        tracemalloc.stop()
