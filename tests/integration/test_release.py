"""What `make dist` builds: complete, without stray files, reproducible, and usable with the oldest dependencies."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_provider_smtpcm import __version__
from tests.dependencies import comes_with
from tests.release import description_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]  # an Airflow comes from the index

ROOT = Path(__file__).parents[2]
#: The oldest of all that is declared; and the oldest Airflow that this Python can have, where that is a newer one.
FLOOR = ROOT / ("requirements/floor.lock" if sys.version_info < (3, 14) else "requirements/airflow-3.2.2.lock")
PACKAGE = "airflow_provider_smtpcm"
#: Files of a working folder that must not be in a release.
STRAY = (
    ".env",
    ".venv/bin/python",
    f"{PACKAGE}/__pycache__/cli.cpython-311.pyc",
    "benchmarks/.peers/sink",
    "benchmarks/results.json",
    "dist/old.whl",
    "notes.txt",
    "site/index.html",
    "tests/__pycache__/conftest.cpython-311.pyc",
)
#: In octets: the modules with some room to grow. A page, a picture or a test that gets in has to exceed it.
LARGEST_WHEEL = 800_000
#: The embedded relay and its fixtures, which the extra `testing` is for.
NEEDS_THE_EXTRA = {"aiosmtpd", "pytest"}
IMPORT_ALL = f"""
import importlib, json, pkgutil, {PACKAGE} as package
missing = {{}}
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        missing[module.name] = error.name
print()
print(json.dumps(missing))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The two files, and the names of the project's files that they were built from."""

    wheel: Path
    sdist: Path
    sources: set[str]

    def in_wheel(self) -> set[str]:
        """Return the files in the wheel."""
        with zipfile.ZipFile(self.wheel) as wheel:
            return set(wheel.namelist())

    def in_sdist(self) -> set[str]:
        """Return the files in the sdist, without their top folder."""
        with tarfile.open(self.sdist) as sdist:
            return {member.name.partition("/")[2] for member in sdist if member.isfile()}


def copy_of_the_project(folder: Path) -> set[str]:
    """Copy the project's files, committed or not, and add stray files; return their names."""
    repository = folder.with_suffix(".git")  # an empty one: all files are new; an unpacked sdist has none
    subprocess.run(["git", "init", "--quiet", "--bare", repository], check=True)
    listed = subprocess.run(
        ["git", f"--git-dir={repository}", f"--work-tree={ROOT}", "ls-files", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = {name for name in listed.stdout.split("\0") if name} - {"PKG-INFO"}
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in STRAY:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("stray")
    return names


def build(folder: Path, dist: Path) -> tuple[Path, Path]:
    """Build as `make dist` does; return the wheel and the sdist."""
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, folder],
        env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        check=True,
    )
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release, built from a folder with stray files."""
    folder = tmp_path_factory.mktemp("release")
    names = copy_of_the_project(folder / "project")
    wheel, sdist = build(folder / "project", folder / "dist")
    return Release(wheel=wheel, sdist=sdist, sources=names)


class Environment:
    """A Python in a folder of its own, separate from that of the tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bin = folder / "venv/bin"
        self._constraints = folder / "constraints.txt"
        # Without the hashes, which pip would then require for the wheel too.
        self._constraints.write_text("\n".join(re.findall(r"^[a-z0-9].*?(?= \\$|$)", FLOOR.read_text(), re.MULTILINE)))
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)

    def install(self, what: str) -> None:
        """Install something and its dependencies, each as old as in `FLOOR`."""
        pip = ["pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
        done = self.run(*pip, "--constraint", self._constraints, what)
        assert done.returncode == 0, done.stderr

    def run(self, command: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one of its commands, with an Airflow home of its own."""
        kept = {
            name: text for name, text in os.environ.items() if not name.startswith(("AIRFLOW_", "PYTHON", "VIRTUAL"))
        }
        airflow = {
            "AIRFLOW_HOME": str(self._folder / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        }
        return subprocess.run(
            [self._bin / command, *arguments],
            cwd=self._folder,
            env=kept | airflow,
            capture_output=True,
            text=True,
            check=False,
            timeout=2000,
        )


@pytest.fixture(scope="module")
def environment(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel and the oldest dependencies that it declares, and nothing else."""
    environment = Environment(tmp_path_factory.mktemp("environment"))
    environment.install(str(release.wheel))
    return environment


def test_nothing_stray_is_in_the_sdist_and_nothing_is_left_out(release: Release) -> None:
    """A new file at the top has to be added to the sdist's list in pyproject.toml."""
    assert release.in_sdist() == release.sources | {"PKG-INFO"}


def test_nothing_is_in_the_wheel_but_the_package(release: Release) -> None:
    """No tests; but py.typed, the templates and the license."""
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    package = {name for name in release.sources if name.startswith(f"{PACKAGE}/")}
    assert f"{PACKAGE}/py.typed" in package
    assert release.in_wheel() == package | {f"{PACKAGE}-{__version__}.dist-info/{name}" for name in about}


def test_the_wheel_is_small(release: Release) -> None:
    """Every component of Airflow installs it."""
    assert release.wheel.stat().st_size < LARGEST_WHEEL


@pytest.mark.parametrize("check", [["twine", "check", "--strict"], ["tests.release"]], ids=["twine", "the README"])
def test_the_index_accepts_both_files_and_shows_the_readme(release: Release, check: list[str]) -> None:
    """As `make dist` checks; twine renders no Markdown."""
    run = subprocess.run(
        [sys.executable, "-m", *check, release.wheel, release.sdist],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_each_link_of_the_readme_is_to_the_tag_of_this_version(release: Release) -> None:
    """The index has no other file; an old release goes on showing its own pictures."""
    description = description_of(release.wheel)
    assert f"/raw/v{__version__}/docs/images/" in description
    assert set(re.findall(r"/(?:blob|raw)/([^/]+)/", description)) == {f"v{__version__}"}


def test_the_same_files_give_the_same_bytes(release: Release, tmp_path: Path) -> None:
    """In another folder, and with another umask."""
    copy_of_the_project(tmp_path / "again")
    for path in (tmp_path / "again").rglob("*"):
        path.chmod(0o700 if path.is_dir() or os.access(path, os.X_OK) else 0o600)
    wheel, sdist = build(tmp_path / "again", tmp_path / "dist")
    assert (wheel.name, wheel.read_bytes()) == (release.wheel.name, release.wheel.read_bytes())
    assert (sdist.name, sdist.read_bytes()) == (release.sdist.name, release.sdist.read_bytes())


def test_the_sdist_can_run_the_tests(release: Release, tmp_path: Path) -> None:
    """Every test file is collected there, which imports all that they need; a few of them run."""
    with tarfile.open(release.sdist) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-k", "test_packaging or test_provider_info"],
        cwd=folder,
        env={name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


def test_the_relay_without_its_extra_names_the_remedy(environment: Environment) -> None:
    """Without a traceback."""
    relay = environment.run("python", "-m", PACKAGE, "relay")
    assert relay.returncode != 0
    assert f"pip install '{PACKAGE.replace('_', '-')}[testing]'" in relay.stdout + relay.stderr
    assert "Traceback" not in relay.stderr


def test_every_module_imports_with_what_is_declared(environment: Environment) -> None:
    """Without development dependencies; only the relay's server needs its extra."""
    run = environment.run("python", "-c", IMPORT_ALL)
    assert run.returncode == 0, run.stderr
    missing = json.loads(run.stdout.splitlines()[-1])
    assert set(missing.values()) == NEEDS_THE_EXTRA
    assert {name.split(".")[1] for name in missing} == {"testing"}


@pytest.mark.parametrize("dependency", ["apache-airflow", "pyspnego"])
def test_every_imported_module_is_installed_by_a_declared_dependency(environment: Environment, dependency: str) -> None:
    """The one in the table of docs/contributing/dependencies.md; lazy imports are done here."""
    modules = comes_with(dependency)
    brought = environment.run("python", "-I", ROOT / "tests/brought_by.py", dependency)
    assert modules <= set(json.loads(brought.stdout)), brought.stderr
    run = environment.run("python", "-I", "-c", f"import {', '.join(sorted(modules))}")
    assert run.returncode == 0, run.stderr


def test_airflow_lists_the_provider(environment: Environment) -> None:
    """By the entry point in the wheel."""
    listed = environment.run("airflow", "providers", "list", "--output", "plain")
    assert re.search(rf"^airflow-provider-smtpcm .* {re.escape(__version__)}\s*$", listed.stdout, re.MULTILINE)


def test_the_command_line_is_installed(environment: Environment) -> None:
    """By the name in the README."""
    run = environment.run("python", "-m", PACKAGE, "--help")
    assert (run.returncode, run.stdout.startswith(f"usage: python -m {PACKAGE}")) == (0, True)


def test_the_installed_package_sends_a_mail(environment: Environment, release: Release) -> None:
    """By a DAG, with the oldest Airflow and pyspnego: Windows Authentication after TLS, and the connection's check."""
    environment.install(f"{release.wheel}[testing,fast]")
    run = environment.run("python", "-I", ROOT / "tests/integration/released_dag.py")
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["state"] == "success"
    assert told["mails"] == [["Released", ["ann@corp.example"], r"CORP\svc-etl"]]
    assert told["check"][0] == 0, told["check"][1]


def test_the_declared_minimum_versions_are_compatible(environment: Environment) -> None:
    """They can be installed together."""
    check = environment.run("pip", "check", "--disable-pip-version-check")
    assert check.returncode == 0, check.stdout
