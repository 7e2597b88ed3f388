"""The package keeps its layers: an import only ever points down, and importing it stays cheap."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "airflow_provider_smtpcm"
ROOT = Path(__file__).resolve().parent.parent / PACKAGE

# Each package with those that it may import.
FLOORS = {
    "frozen_dataclasses": set(),
    "errors": {"frozen_dataclasses"},
    "connection_manager": {"errors", "frozen_dataclasses"},
    "mail": {"errors", "frozen_dataclasses"},
    "smtp": {"mail", "connection_manager", "errors", "frozen_dataclasses"},
    "hooks": {"smtp", "mail", "connection_manager", "errors"},
    "arguments": {"mail", "errors"},
    "ledger": {"smtp", "mail", "errors"},
    "merge": {"ledger", "arguments", "smtp", "mail", "errors"},
    "tables": {"errors"},
    "operators": {
        "merge",
        "ledger",
        "arguments",
        "ssis",
        "tables",
        "hooks",
        "smtp",
        "mail",
        "errors",
        "frozen_dataclasses",
    },
    "decorators": {"operators", "arguments", "ledger", "hooks", "mail", "errors"},
    "notifications": {"arguments", "hooks", "smtp", "mail", "connection_manager", "errors"},
    "email_backend": {"notifications", "operators", "hooks", "smtp", "mail", "errors"},
    "check": {"notifications", "hooks", "smtp", "mail", "connection_manager", "errors"},
    "preview": {"notifications", "operators", "mail", "errors"},
    "from_smtp": {"check", "hooks", "connection_manager", "errors"},
    "testing": set(),
    "ssis": {"mail", "connection_manager", "errors"},
    "get_provider_info": {"connection_manager"},
    "cli": {"check", "from_smtp", "preview", "ssis", "testing", "connection_manager", "errors"},
    "__main__": {"cli"},
    "__init__": set(),
}
KNOWS_AIRFLOW = {"hooks", "operators", "decorators", "cli", "check", "preview", "notifications", "email_backend"}
LAZY = {"spnego", "cryptography", "ssl", "smtplib", "email", "jinja2"}
OPERATOR = f"{PACKAGE}.operators.send_mail"
# Columns of the picture in contributing/modules.md that hold names; what they are follows.
_NAMES_WIDTH = 48


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package by its dotted name."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts), path


def imports(path: Path, *, on_import_only: bool = False) -> set[str]:
    """The modules that a file imports: all of them, or those that are loaded with it."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if on_import_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: imports are absolute"
                found.add(child.module or "")
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            walk(child)

    walk(ast.parse(path.read_text(encoding="utf-8")))
    return found


def top_level(module: str) -> str | None:
    """Return the top-level package or module that a module of ours belongs to."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


@pytest.mark.parametrize(("name", "path"), [pytest.param(*item, id=item[0]) for item in modules()])
def test_no_arrow_points_up(name: str, path: Path) -> None:
    """A module imports only its own package and those below."""
    mine = top_level(name) or "__init__"
    used = {other for other in map(top_level, imports(path)) if other} - {mine}
    assert used <= FLOORS[mine], f"{name} imports {sorted(used - FLOORS[mine])}"


@pytest.mark.parametrize(("name", "path"), [pytest.param(*item, id=item[0]) for item in modules()])
def test_only_airflows_faces_know_airflow(name: str, path: Path) -> None:
    """The core runs, and is tested, without it."""
    knows = any(module.split(".")[0] == "airflow" for module in imports(path))
    assert not knows or top_level(name) in KNOWS_AIRFLOW


def test_every_package_has_its_floor() -> None:
    """A new package is given its place here first."""
    assert {top_level(name) or "__init__" for name, _ in modules()} <= set(FLOORS)


def test_nothing_heavy_is_imported_on_the_way_to_the_operator() -> None:
    """Every DAG parse is a fresh process."""
    paths = dict(modules())
    seen: set[str] = set()
    todo = [OPERATOR]
    while todo:
        name = todo.pop()
        if name in seen or name not in paths:
            continue
        seen.add(name)
        loaded = imports(paths[name], on_import_only=True)
        heavy = {module.split(".")[0] for module in loaded} & LAZY
        assert not heavy, f"{name} imports {sorted(heavy)}"
        todo += [module for module in loaded if module.startswith(PACKAGE)]
        todo += [".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)]
    assert f"{PACKAGE}.hooks.smtpcm" in seen
    assert f"{PACKAGE}.connection_manager.manager" in seen


def test_importing_the_operator_loads_neither_spnego_nor_smtplib() -> None:
    """What Airflow itself has loaded before does not count."""
    code = f"""
import json, sys
import airflow.sdk
from airflow.sdk import BaseHook, BaseOperator
before = set(sys.modules)
import {OPERATOR}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ), timeout=600
    )
    loaded = {name.split(".")[0] for name in json.loads(run.stdout.strip().splitlines()[-1])}
    assert not loaded & {"spnego", "smtplib", "aiosmtpd", "trustme", "cryptography"}


@pytest.mark.parametrize("module", ["__init__", "get_provider_info"])
def test_what_every_airflow_process_loads_imports_nothing(module: str) -> None:
    """Not even from the standard library."""
    assert imports(ROOT / f"{module}.py", on_import_only=True) == set()


def test_the_picture_of_the_modules_names_every_module() -> None:
    """And no other: each by its folder, the folders one below the other as they are nested."""
    page = (ROOT.parent / "docs/contributing/modules.md").read_text(encoding="utf-8")
    _, _, picture = page.partition('```text title="The layers"\n')
    drawn: set[str] = set()
    folders: list[tuple[int, str]] = []
    for line in picture.partition("```")[0].splitlines():
        indent = len(line) - len(line.lstrip())
        names = line[:_NAMES_WIDTH].split()
        if names[0].endswith("/") or indent == 0:
            folders = [(depth, folder) for depth, folder in folders if depth < indent]
        for name in names:
            if name.endswith("/"):
                folders.append((indent, name.removesuffix("/")))
            else:
                drawn.add(".".join([*(folder for _, folder in folders), name]))
    packages = {name for name, path in modules() if path.name == "__init__.py"}
    assert drawn == {name.removeprefix(f"{PACKAGE}.") for name, _ in modules() if name not in packages} - {"__main__"}


def test_the_table_of_the_layers_is_in_the_order_of_the_imports() -> None:
    """It names each layer once; one imports from its own row and those below."""
    page = (ROOT.parent / "docs/contributing.md").read_text(encoding="utf-8")
    table = page.partition("| Layer, ")[2].partition("\n\n")[0]
    rows = {
        name: number
        for number, line in enumerate(table.splitlines())
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert set(rows) == {name for name in FLOORS if not name.startswith("__")}
    upward = {(name, used) for name in rows for used in FLOORS[name] if rows[used] < rows[name]}
    assert upward == set()
