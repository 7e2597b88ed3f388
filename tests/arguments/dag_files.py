"""DAG files for tests: what is made in one is made while Python imports a module."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def in_dag_file(folder: Path, make: Callable[..., object], fields: Mapping[str, Any]) -> object:
    """Call this in a DAG file in the folder, and return what it returns."""
    path = folder / "dag_file.py"
    path.write_text("made = make(**fields)\n")
    spec = importlib.util.spec_from_file_location("dag_file", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    module.make, module.fields = make, fields
    spec.loader.exec_module(module)
    made: object = module.made
    return made
