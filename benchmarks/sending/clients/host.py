"""The host of a Python contender: imports the client once, then runs each order in a child process.

    python -m benchmarks.sending.clients.host CLIENT SOCKET

So a run starts as a fresh process whose imports are done, without connections, caches or memory of an earlier run. The
clock runs from the first mail to the last reply; connecting is included. The host ends when its standard input does.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.sending.clients.order import Order, Run

Steps = dict[str, tuple[float, float]]
_STATUS, _MAPS, _RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/maps"), Path("/proc/self/clear_refs")
_MADV_POPULATE_READ = 22


def measured(work: Callable[[Order], int | tuple[int, Steps]], order: Order) -> Run:
    """Run an order, and return its figures.

    Args:
        work: returns how many mails it sent, and its steps, if it has any.
        order: passed to it.
    """
    _map_libraries()
    _RESET_PEAK.write_text("5")
    held = _octets("VmRSS")
    cpu, wall = _cpu(), time.perf_counter()
    result = work(order)
    wall, cpu = time.perf_counter() - wall, _cpu() - cpu
    sent, steps = result if isinstance(result, tuple) else (result, None)
    return Run(sent=sent, wall=wall, cpu=cpu, peak=max(0, _octets("VmHWM") - held), steps=steps)


def _map_libraries() -> None:
    """Read the pages of mapped files into memory, as they are after an import.

    A child starts without them, and would seem to need more memory whenever it first runs a part of a library.
    """
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    for line in _MAPS.read_text().splitlines():
        words = line.split(maxsplit=5)
        if words[1].startswith("r") and len(words) > 5 and words[5].startswith("/"):
            start, end = (int(word, 16) for word in words[0].split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_POPULATE_READ)


def _octets(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def _cpu() -> float:
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def _answer(client: object, order: Order) -> str:
    try:
        os.environ |= client.environment(order)  # type: ignore[attr-defined]
        work: Callable[[Order], int | tuple[int, Steps]] = client.WORKS[order.work]  # type: ignore[attr-defined]
        return json.dumps(asdict(measured(work, order)))
    except Exception:  # noqa: BLE001 - any error is reported to the measuring process
        return json.dumps({"error": traceback.format_exc()})


def main() -> None:
    """Run orders until the standard input ends."""
    client = importlib.import_module(f"benchmarks.sending.clients.{sys.argv[1]}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[2])
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            caller, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                with caller, caller.makefile() as said:
                    caller.sendall(_answer(client, Order(**json.loads(said.readline()))).encode())
                os._exit(0)
            caller.close()


if __name__ == "__main__":
    main()
