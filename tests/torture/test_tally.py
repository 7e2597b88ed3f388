"""The tally says what was tried, topic by topic and in all, and that nothing was lost or doubled."""

from __future__ import annotations

import pytest

from tests.torture import tally
from tests.torture.tally import Tally


def test_where_nothing_was_tried_nothing_is_said() -> None:
    """So that other test runs end as usual."""
    assert list(Tally().lines()) == []


@pytest.mark.parametrize(("given", "seed"), [(None, 20240131), ("7", 7)])
def test_the_seed_is_given_or_always_the_same(given: str | None, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure can be had again."""
    monkeypatch.delenv("TORTURE_SEED", raising=False)
    if given is not None:
        monkeypatch.setenv("TORTURE_SEED", given)
    assert tally._seed() == seed


def test_a_fresh_seed_is_another_one_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a search for new failures."""
    monkeypatch.setenv("TORTURE_SEED", "fresh")
    assert tally._seed() != tally._seed()


def test_counters_are_added_up() -> None:
    """In a fixed order; counters that must be 0 are printed nevertheless."""
    counted = Tally()
    counted.add("mails", {"sent": 1000, "inputs tried": 2000, "lost": 0})
    counted.add("mails", {"sent": 1, "inputs tried": 1})
    counted.add("faults", {"faults tried": 3, "odd": 1, "doubled": 2})
    parent = Tally()
    for topic, counts in counted.counts().items():  # from a worker of pytest-xdist
        parent.add(topic, counts)
    assert list(parent.lines()) == list(counted.lines())
    assert list(counted.lines())[:3] == [
        "torture, mails: inputs tried 2,001, sent 1,001, lost 0, doubled 0",
        "torture, faults: faults tried 3, odd 1, lost 0, doubled 2",
        "torture: faults tried 3, inputs tried 2,001, sent 1,001, odd 1, lost 0, doubled 2",
    ]
