"""The public names: those at the package's root, those on the reference's first page, and their documentation."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import airflow_provider_smtpcm as package
from airflow_provider_smtpcm.connection_manager import FIELDS, STANDARD_FIELDS

API = Path(__file__).resolve().parent.parent / "docs/api"
#: In the order of the page: a name, its module, and whether the page has it at the root.
ROW = re.compile(r"^\| (.+?) \| `(airflow_provider_smtpcm[\w.]*)` \| \[.*?\]\((\w[\w-]*\.md)\) \|$", re.MULTILINE)
#: Arguments that Airflow adds to each operator, or that it alone passes.
AIRFLOWS = {"self", "kwargs", "args"}


def listed_names() -> Iterator[tuple[str, str, str]]:
    """Yield each name of the page with its module and the page that documents it."""
    for cell, module, page in ROW.findall((API / "index.md").read_text(encoding="utf-8")):
        for name in re.findall(r"`(\w+)`", cell):
            yield name, module, page


LISTED = list(listed_names())
ROOT_TABLE, _, _ = (API / "index.md").read_text(encoding="utf-8").partition("These are public in their modules")
ROOT_NAMES = {name: module for name, module, _ in LISTED if f"`{name}`" in ROOT_TABLE}


def run_python(code: str) -> Any:
    """Run code in a fresh interpreter and return its last line of output, parsed as JSON."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    return json.loads(run.stdout.splitlines()[-1])


def test_importing_the_package_imports_nothing() -> None:
    """Not even from the standard library: every Airflow process imports it."""
    code = f"""
import json, sys
before = set(sys.modules)
import {package.__name__} as package
dir(package), package.__version__
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    assert run_python(code) == [package.__name__]


@pytest.mark.parametrize(
    ("name", "unused"),
    [
        ("Mail", ["airflow", "ssl", f"{package.__name__}.hooks", f"{package.__name__}.operators"]),
        ("MailError", ["airflow", "email", f"{package.__name__}.mail", f"{package.__name__}.smtp"]),
        ("Delivery", ["airflow", "ssl", f"{package.__name__}.hooks"]),
        ("SmtpConnectionManager", ["airflow", "ssl", f"{package.__name__}.mail"]),
        ("SendMailOperator", ["spnego", f"{package.__name__}.notifications", f"{package.__name__}.merge"]),
    ],
)
def test_a_name_imports_its_own_module_alone(name: str, unused: list[str]) -> None:
    """The others are not imported with it."""
    code = f"""
import json, sys
from {package.__name__} import {name}
print(json.dumps(sorted(set({unused!r}) & set(sys.modules))))
"""
    assert run_python(code) == []


def test_the_root_exports_what_the_reference_lists() -> None:
    """Sorted, for readers, and each from the module that the page names."""
    assert package.__all__ == sorted(ROOT_NAMES)
    for name, module in ROOT_NAMES.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)


def test_the_root_completes_its_names() -> None:
    """For tab completion, before any of them was imported."""
    code = f"import json, {package.__name__} as package; print(json.dumps(dir(package)))"
    assert {*package.__all__, "__version__"} <= set(run_python(code))


def test_type_checkers_see_the_same_names() -> None:
    """They read the imports under TYPE_CHECKING, which never run."""
    source = Path(package.__file__).read_text(encoding="utf-8")
    imported = re.findall(r"^    from (\S+) import (.+)$", source, re.MULTILINE)
    assert {name: module for module, names in imported for name in names.split(", ") if name != "import_module"} == (
        ROOT_NAMES
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As for any module; `from ... import` turns it into an ImportError."""
    with pytest.raises(AttributeError, match="has no attribute 'SendMailOperators'"):
        package.SendMailOperators  # noqa: B018
    with pytest.raises(ImportError):
        exec(f"from {package.__name__} import nothing")  # noqa: S102


@pytest.mark.parametrize(("name", "module", "page"), LISTED, ids=[f"{module}.{name}" for name, module, _ in LISTED])
def test_every_public_name_exists_and_is_on_its_page(name: str, module: str, page: str) -> None:
    """Where mkdocstrings writes its documentation, by its name or with its whole module."""
    if name == "alert":
        return  # what templates call it
    thing = getattr(importlib.import_module(module), name)
    text = (API / page).read_text(encoding="utf-8")
    places = {f"::: {module}.{name}", f"::: {module}", f"::: {thing.__module__}.{name}"}
    assert places & set(text.splitlines()), f"{page} lacks ::: {module}.{name}"


def documented_arguments(docstring: str) -> set[str]:
    """Return the arguments in the `Args:` section of a docstring; several may share a line."""
    section = re.search(r"^Args:\n((?:[ ]{4}.*\n|\n)*)", inspect.cleandoc(docstring) + "\n", re.MULTILINE)
    lines = re.findall(r"^ {4}([*\w, ]+): ", section[1], re.MULTILINE) if section else []
    return {name.strip("* ") for line in lines for name in line.split(",")}


def functions_of(name: str, thing: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield a function, or a class's constructor and public methods, each with the docstring that has its arguments."""
    if not inspect.isclass(thing):
        yield name, thing, thing.__doc__ or ""
        return
    if not issubclass(thing, str):  # the constructor of an enumeration is Python's
        yield name, thing, f"{thing.__doc__}\n\n{inspect.cleandoc(thing.__init__.__doc__ or '')}"
    for method, function in vars(thing).items():
        function = getattr(function, "__func__", function)  # noqa: PLW2901 - of a class method
        if not method.startswith("_") and inspect.isfunction(function):
            yield f"{name}.{method}", function, function.__doc__ or ""


FUNCTIONS = [
    pytest.param(function, docstring, id=name)
    for listed, module in ROOT_NAMES.items()
    for name, function, docstring in functions_of(listed, getattr(importlib.import_module(module), listed))
]


@pytest.mark.parametrize(("function", "docstring"), FUNCTIONS)
def test_every_argument_of_a_public_name_is_documented(function: Any, docstring: str) -> None:
    """Under `Args:`, unless there is one argument alone, which the first sentence may explain."""
    arguments = set(inspect.signature(function).parameters) - AIRFLOWS - {"cls", "context"}
    assert docstring.strip()
    if len(arguments) > 1 or inspect.isclass(function):
        documented = documented_arguments(docstring)
        if function is package.SmtpConnectionManager:
            documented |= {field.name for field in (*STANDARD_FIELDS, *FIELDS)}  # explained in the form
        assert arguments - documented == set()
