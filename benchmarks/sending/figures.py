"""The medians of the measurements, and the goals for them. Pure: measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.sending.clients.order import Run

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The medians of one contender in one scenario.

    Args:
        rate, slowest, fastest: units a second.
        wall: seconds for one unit.
        cpu: microseconds for one unit.
        peak: largest increase of memory during a run, in MiB; None: unknown.
        trips: round trips for each mail; None: not counted.
        steps: wall and CPU milliseconds of each step, if the work has any.
    """

    rate: float
    slowest: float
    fastest: float
    wall: float
    cpu: float
    peak: float | None
    trips: float | None
    steps: Mapping[str, tuple[float, float]] | None = None

    @classmethod
    def of(cls, runs: Sequence[Run], unit: float) -> Figures:
        """Return the medians of some runs.

        Args:
            unit: how many units one mail is.
        """
        rates = [run.sent * unit / run.wall for run in runs]
        peaks = [run.peak / MIB for run in runs if run.peak is not None]
        trips = [run.turns / run.sent for run in runs if run.turns is not None]
        steps = [run.steps for run in runs if run.steps is not None]
        return cls(
            rate=statistics.median(rates),
            slowest=min(rates),
            fastest=max(rates),
            wall=1 / statistics.median(rates),
            cpu=statistics.median(run.cpu / (run.sent * unit) for run in runs) * 1e6,
            peak=statistics.median(peaks) if peaks else None,
            trips=statistics.median(trips) if trips else None,
            steps={step: _milliseconds([each[step] for each in steps]) for step in steps[0]} if steps else None,
        )


Measured = Mapping[str, Figures]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A number that has to be reached.

    Args:
        text: describes the number.
        value: computes it from the figures; raises KeyError if a contender was left out.
        bound: the lowest value that is accepted, or the highest with `at_most`.
        unit: printed after the number.
    """

    text: str
    value: Callable[[Measured], float]
    bound: float
    at_most: bool = False
    unit: str = "×"

    def verdict(self, measured: Measured) -> tuple[float | None, bool]:
        """Return the number, and whether it is reached."""
        try:
            value = self.value(measured)
        except KeyError:
            return None, False
        return value, value <= self.bound if self.at_most else value >= self.bound


def faster(who: str, than: str, bound: float) -> Goal:
    """Return the ratio of two rates."""
    return Goal(text=f"the rate, {who} to {than}", value=lambda found: found[who].rate / found[than].rate, bound=bound)


def quicker(who: str, than: str, bound: float) -> Goal:
    """Return the ratio of the times that two need for a mail."""
    return Goal(
        text=f"the time for a mail, {who} to {than}",
        value=lambda found: found[who].wall / found[than].wall,
        bound=bound,
        at_most=True,
    )


def cheaper(who: str, than: str, bound: float) -> Goal:
    """Return the ratio of the CPU times that two need for a mail."""
    return Goal(
        text=f"CPU for a mail, {who} to {than}",
        value=lambda found: found[who].cpu / found[than].cpu,
        bound=bound,
        at_most=True,
    )


def more_round_trips(who: str, than: str, bound: float) -> Goal:
    """Return how many more round trips one needs for a mail than another."""
    return Goal(
        text=f"round trips of {who} beyond those of {than}",
        value=lambda found: _known(found[who].trips) - _known(found[than].trips),
        bound=bound,
        at_most=True,
        unit="",
    )


def leaner(who: str, than: str, bound: float) -> Goal:
    """Return how many times less CPU one needs than another."""
    return Goal(
        text=f"CPU for a mail, {than} to {who}", value=lambda found: found[than].cpu / found[who].cpu, bound=bound
    )


def round_trips(who: str, bound: float) -> Goal:
    """Return the round trips for each mail."""
    return Goal(
        text="round trips a mail", value=lambda found: _known(found[who].trips), bound=bound, at_most=True, unit=""
    )


def memory(who: str, bound: float) -> Goal:
    """Return the largest increase of memory, in MiB."""
    return Goal(
        text=f"memory over the baseline, {who}",
        value=lambda found: _known(found[who].peak),
        bound=bound,
        at_most=True,
        unit=" MiB",
    )


def flat(who: str, than: str, bound: float) -> Goal:
    """Return by how many MiB the peak grows with the work."""
    return Goal(
        text=f"memory of {who} over that of {than}",
        value=lambda found: _known(found[who].peak) - _known(found[than].peak),
        bound=bound,
        at_most=True,
        unit=" MiB",
    )


def linear(who: str, than: str, bound: float) -> Goal:
    """Return how much longer a unit takes if there are more of them."""
    return Goal(
        text=f"the time a MiB takes, {who} to {than}",
        value=lambda found: found[who].wall / found[than].wall,
        bound=bound,
        at_most=True,
    )


def _milliseconds(times: Sequence[tuple[float, float]]) -> tuple[float, float]:
    wall, cpu = (statistics.median(values) * 1000 for values in zip(*times, strict=True))
    return wall, cpu


def _known(figure: float | None) -> float:
    if figure is None:
        raise KeyError
    return figure
