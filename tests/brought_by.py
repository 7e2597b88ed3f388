"""The modules that a requirement installs: `python brought_by.py NAME` prints them as JSON."""

from __future__ import annotations

import json
import sys
from functools import cache
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def brought_by(requirement: str) -> set[str]:
    """Return the modules of all installed distributions that the requirement needs, directly or not."""
    found: set[tuple[str, str]] = set()
    todo = [Requirement(requirement)]
    while todo:
        wanted = todo.pop()
        for extra in ("", *wanted.extras):
            if (one := (canonicalize_name(wanted.name), extra)) in found:
                continue
            try:
                needs = map(Requirement, metadata.requires(wanted.name) or ())
            except metadata.PackageNotFoundError:
                continue
            found.add(one)
            todo += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    names = {name for name, _ in found}
    return {module for module, owners in _installed().items() if names & owners}


@cache
def _installed() -> dict[str, set[str]]:
    """The installed modules, and the distributions that they are from; reading all of it takes a second."""
    return {module: set(map(canonicalize_name, of)) for module, of in metadata.packages_distributions().items()}


if __name__ == "__main__":
    print(json.dumps(sorted(brought_by(sys.argv[1]))))  # noqa: T201 - the output of the program
