"""The tests on every Airflow that the README calls tested, in every Python that they and we support: `make versions`.

Each Airflow comes with its dependencies as they were on the day of its release, from a lock file of its own: with those
of today an older one no longer starts. `.ci/airflow-version.txt` names the newest, which `requirements.lock` installs.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import nox

HERE = Path(__file__).parent
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# What an Airflow does not support itself.
UNSUPPORTED = {("3.14", "3.1.8")}

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
# A Python that is not there is an Airflow that was not tested, and that must not look like success.
nox.options.error_on_missing_interpreters = True


def _locks() -> dict[str, str]:
    """What installs each Airflow, by its version, the oldest first."""
    older = sorted(Path(HERE, "requirements").glob("airflow-*.lock"))
    newest = re.search(
        r"^apache-airflow==(\S+)$", Path(HERE, ".ci/airflow-version.txt").read_text("utf-8"), re.MULTILINE
    )
    locks = {path.stem.removeprefix("airflow-"): f"requirements/{path.name}" for path in older}
    return {**locks, newest[1]: "requirements.lock"}


LOCKS = _locks()
OLDEST, *_ = LOCKS


@nox.session
@nox.parametrize(
    "python,airflow",
    [
        nox.param(python, version, id=f"{python}-{version}", tags=["oldest"] if version == OLDEST else [])
        for python in PYTHONS
        for version in LOCKS
        if (python, version) not in UNSUPPORTED
    ],
)
def tests(session: nox.Session, airflow: str) -> None:
    """Run the tests on this Airflow; what stands after `--` goes to pytest."""
    # Without a look at what depends on what: a lock is whole, and pip stumbles over extras beside hashes.
    session.install("--quiet", "--no-deps", "--requirement", LOCKS[airflow])
    # As in the Makefile: compiled, so only where the headers are. The tests that want it are left out without.
    if shutil.which("krb5-config"):
        session.install("--quiet", "--requirement", "requirements-kerberos.lock")
    session.install("--quiet", "--no-deps", "--no-build-isolation", "--editable", ".")
    # As in the Makefile: in more processes than there are processors, since many tests wait.
    workers = str(2 * (os.cpu_count() or 1))
    session.run("python", "-m", "pytest", "--numprocesses", workers, *session.posargs)
