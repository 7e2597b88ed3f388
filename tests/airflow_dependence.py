"""Which test files can depend on Airflow's version: those from which some import leads to Airflow.

`--airflow-alone` leaves the others out. They pass or fail alike with every Airflow, so that the newest, with which all
tests run, is enough for them.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "airflow_provider_smtpcm"
#: What is searched for imports; of anything else a test can only say the name.
_OURS = (PACKAGE, "tests", "demo", "benchmarks", "example_dags")
#: Also in programs that a test starts, in DAGs that it writes, and in data frames, which an Airflow holds back.
_AIRFLOW = re.compile(r"(?<!/)\b(airflow|pandas|pyarrow)\b(?!-provider-|@)")


def depends_on_airflow(file: Path) -> bool:
    """Return whether a test file, its `conftest.py`, or anything that these import can come to Airflow."""
    folders = [folder for folder in file.parents if folder.is_relative_to(ROOT / "tests") and folder != ROOT / "tests"]
    with_conftests = [file, *(path for folder in folders if (path := folder / "conftest.py").exists())]
    return any(_mentions_airflow(path) or _leads_to_airflow(path) for path in with_conftests)


def _leads_to_airflow(file: Path) -> bool:
    seen, todo = set(), [file]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        if _mentions_airflow(path):
            return True
        todo += _imported_files(path)
    return False


@cache
def _mentions_airflow(path: Path) -> bool:
    """Of a module of the package its imports count, of anything else each word: it may be an argument or a program."""
    if path.is_relative_to(ROOT / PACKAGE):
        # What the package's root names comes from any of its modules (PEP 562).
        return any(re.match(rf"airflow\b|{PACKAGE}\.[A-Z]", name) for name in _imports(path))
    words = path.read_text(encoding="utf-8")
    return bool(
        _AIRFLOW.search(words) or _shared_fixtures().search(words) or re.search(rf"{PACKAGE} import [A-Z]", words)
    )


@cache
def _shared_fixtures() -> re.Pattern[str]:
    """The fixtures of the topmost `conftest.py`: all of them are about Airflow."""
    tree = ast.parse((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    fixtures = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]
    return re.compile(rf"\b({'|'.join(fixtures)})\b")


@cache
def _imports(path: Path) -> frozenset[str]:
    """The modules that a file imports, anywhere in it, and the names from them, but for those in annotations."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.update({str(child.module), *(f"{child.module}.{alias.name}" for alias in child.names)})
            walk(child)

    walk(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(found)


@cache
def _imported_files(path: Path) -> frozenset[Path]:
    names = [name.split(".") for name in _imports(path)]
    places = {
        ROOT.joinpath(*parts[:depth]) for parts in names if parts[0] in _OURS for depth in range(1, len(parts) + 1)
    }
    files = (file for place in places for file in (place.with_suffix(".py"), place / "__init__.py"))
    return frozenset(file for file in files if file.exists())


# --- The option.


def add_option(parser: pytest.Parser) -> None:
    """Called by the topmost `conftest.py`: a plugin that is registered later is too late for it."""
    parser.addoption("--airflow-alone", action="store_true", help="only tests that can depend on Airflow's version")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    if is_test and config.getoption("--airflow-alone") and not depends_on_airflow(collection_path):
        return True
    return None
