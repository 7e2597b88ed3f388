"""Runs the scenarios: in each round every contender has one run, and the server's count is checked after each."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.sending.clients.order import Order, Run
from benchmarks.sending.contenders import Contender, Contenders, RunError
from benchmarks.sending.figures import Figures
from benchmarks.sending.peers import MissingError
from benchmarks.sending.scenarios import Entry, Scenario
from benchmarks.sending.servers import (
    Certificates,
    CountError,
    Server,
    delayed,
    kerberos_postfix,
    nowhere,
    ntlm_postfix,
    own_sink,
    postfix,
    smtp_sink,
)

ServerMaker = Callable[[Order], AbstractContextManager[Server]]
_QUICK_FILE = 4  # MiB


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """The runs of a scenario, in order, and which contenders were left out, and why."""

    scenario: Scenario
    runs: dict[str, list[Run]]
    left_out: dict[str, str]
    #: Contenders that failed, or whose mails did not arrive.
    failed: dict[str, str]
    #: How many units one mail is.
    units: dict[str, float]

    @property
    def figures(self) -> dict[str, Figures]:
        """Return the medians of every contender."""
        return {label: Figures.of(runs, self.units[label]) for label, runs in self.runs.items()}


class Files:
    """The files that contenders send.

    Args:
        folder: where they are written, on first use.
        quick: whether to write small ones.
    """

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self._folder = folder
        self._quick = quick

    def attachment(self, name: str) -> str:
        """Return the path of `statement.pdf` (20 KiB) or of `<number>-mib.bin`."""
        path = self._folder / name
        if not path.exists():
            number = name.partition("-")[0]
            block = os.urandom(20 * 1024 if name == "statement.pdf" else 2**20)
            with path.open("wb") as file:
                for _ in range(min(int(number), _QUICK_FILE if self._quick else 2**20) if number.isdigit() else 1):
                    file.write(block)
        return str(path)

    def rows(self, number: int) -> str:
        """Return the path of a CSV file with this number of rows."""
        path = self._folder / f"rows-{number}.csv"
        if not path.exists():
            lines = (f"Customer {n},user{n}@corp.example,{n * 7 % 10000}.{n % 100:02d}\n" for n in range(number))
            path.write_text("name,address,amount\n" + "".join(lines))
        return str(path)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is the same for all scenarios.

    Args:
        contenders: all of them.
        certificates: of servers with TLS.
        files: to send.
        rounds: number of runs of each contender.
        quick: whether to send fewer mails.
    """

    contenders: Contenders
    certificates: Certificates
    files: Files
    rounds: int
    quick: bool

    def run(self, scenario: Scenario) -> Outcome:
        """Run one scenario."""
        largest = _QUICK_FILE if self.quick else math.inf
        units = {entry.label: min(entry.unit, largest) for entry in scenario.entries}
        outcome = Outcome(scenario, {}, {}, {}, units)
        taking_part: list[tuple[Entry, Contender]] = []
        for entry in scenario.entries:
            contender = self.contenders.get(entry.contender)
            if contender is None:
                outcome.left_out[entry.label] = self.contenders.left_out[entry.contender]
            else:
                taking_part.append((entry, contender))
                outcome.runs[entry.label] = []
        number = self.rounds * (1 if self.quick else scenario.rounds)
        try:
            at_once = number if scenario.side_by_side else 1
            with self._servers(scenario) as serve, ThreadPoolExecutor(max_workers=at_once) as rounds:
                list(rounds.map(lambda _: self._round(outcome, taking_part, serve), range(number)))
        except MissingError as missing:
            outcome.left_out.update(dict.fromkeys(outcome.runs, str(missing)))
            outcome.runs.clear()
        for label in outcome.failed:
            del outcome.runs[label]
        return outcome

    def _round(self, outcome: Outcome, taking_part: Sequence[tuple[Entry, Contender]], serve: ServerMaker) -> None:
        """Run every contender once."""
        for entry, contender in taking_part:
            if entry.label not in outcome.failed:
                try:
                    outcome.runs[entry.label].append(self._one(outcome.scenario, entry, contender, serve))
                except (RunError, CountError) as error:
                    outcome.failed[entry.label] = str(error)
                print(".", end="", file=sys.stderr, flush=True)

    def _one(self, scenario: Scenario, entry: Entry, contender: Contender, serve: ServerMaker) -> Run:
        order = self._order(entry)
        with serve(order) as server, delayed(server.port, scenario.round_trip) as (port, turns):
            run = contender(dataclasses.replace(order, port=port, **server.account))
            run = dataclasses.replace(run, turns=turns())
            arrived = server.delivered()
        if run.sent != order.mails or (arrived != order.mails and scenario.server != "none"):
            raise CountError(
                f"{scenario.name}, {entry.label}: {order.mails} mails were ordered, the client says that it sent "
                f"{run.sent}, and the server took {arrived}."
            )
        return run

    def _order(self, entry: Entry) -> Order:
        order = Order(**entry.order)
        if self.quick:
            mails, recipients = max(min(order.mails, 2), order.mails // entry.quick), max(1, order.recipients // 25)
            order = dataclasses.replace(order, mails=mails, recipients=recipients)
        if order.file:
            order = dataclasses.replace(order, file=self.files.attachment(order.file))
        if order.rows:
            order = dataclasses.replace(order, rows=self.files.rows(order.mails))
        return order

    @contextmanager
    def _servers(self, scenario: Scenario) -> Iterator[ServerMaker]:
        """Return what makes a server for one run: a new one, except for Postfix."""
        kept = {"Postfix": postfix, "Postfix, NTLM": ntlm_postfix, "Postfix, Kerberos": kerberos_postfix}
        if scenario.server in kept:
            with kept[scenario.server]() as ready:
                yield lambda order: contextlib.nullcontext(ready(order.mails))
            return
        makers: dict[str, ServerMaker] = {
            "smtp-sink": lambda order: smtp_sink(order.mails),
            "sink": lambda order: own_sink(order.mails, order.recipients),
            "sink, TLS": lambda order: own_sink(order.mails, order.recipients, self.certificates.server),
            "none": lambda _order: nowhere(),
        }
        yield makers[scenario.server]
