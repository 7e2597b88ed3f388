"""The modules that a requirement installs: `python brought_by.py NAME` prints them as JSON."""

from __future__ import annotations

import json
import sys
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
    modules = metadata.packages_distributions()
    return {module for module, owners in modules.items() if names & set(map(canonicalize_name, owners))}


if __name__ == "__main__":
    print(json.dumps(sorted(brought_by(sys.argv[1]))))  # noqa: T201 - the output of the program
