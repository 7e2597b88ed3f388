"""Values that people write: choices, numbers, text, a short list of addresses. Knows no mail, and no Airflow."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.arguments.templates import FieldEnvironments, Render, joined
from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.tainted import DATA, MIXED, TaintedStr, checked_path
from airflow_provider_smtpcm.mail.worker_files import (
    WRITTEN_TO,
    FileChangedError,
    UnchangedFile,
    as_written,
    file_remedy,
)

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context


_NAMED = 10
#: Seconds for which a mail is tried again within a try, unless somebody says otherwise.
RETRY_FOR = 60.0


def as_text(value: object) -> str | None:
    """Native rendering turns text that looks like a number into one; this turns it back. None stays None."""
    return value if value is None or isinstance(value, str) else str(value)


def as_headers(value: Any) -> Any:
    """A mapping of headers with text alone in it; whatever else was given is for the mail to judge."""
    return {name: as_text(text) or "" for name, text in value.items()} if isinstance(value, Mapping) else value or ()


def first_of(words: Sequence[str]) -> str:
    """The first of them and how many more there are: a log line is for reading, the XCom holds all of them."""
    more = len(words) - _NAMED
    return ", ".join(words[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Hold an argument to the values that exist.

    Raises:
        ValueError: names the argument, what it is and what it may be.
    """
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(allowed)}.")


def at_least_one(name: str, value: object) -> None:
    """Hold an argument to the whole numbers from 1; ValueError as in `one_of`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; give a whole number from 1.")


def above_zero_or_none(name: str, value: object) -> None:
    """Hold an argument to the numbers above 0 and None; ValueError as in `one_of`."""
    if value is not None and not _number(value) > 0:
        raise ValueError(f"{name} is {value!r}; give a number above 0, or None.")


def zero_or_more(name: str, value: object) -> None:
    """Hold an argument to numbers from 0.

    Raises:
        ValueError: names the argument and what it is.
    """
    if not _number(value) >= 0:
        raise ValueError(f"{name} is {value!r}; give a number from 0.")


def _number(value: object) -> float:
    """Not a number (nan) is also a whole number that is too large for a clock to reckon with."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


# folded: A body in a template file: found, read in its own encoding, and rendered as text.

_SEPARATOR = re.compile(r"[/\\]")


def render_body_file(field: str, file: str, encoding: str, environment: jinja2.Environment, context: Context) -> str:
    """The rendered text of a template file; arguments and errors as `compile_body_file` has them.

    Args:
        environment: the task's own, with its macros, filters and folders for templates.
        context: what the template may name.
    """
    from jinja2 import TemplateError

    render = compile_body_file(field, file, encoding, FieldEnvironments(environment))
    try:
        return str(render({**environment.globals, **context}))
    except TemplateError as error:
        raise _not_a_template(field, file, error) from None


def compile_body_file(field: str, file: str, encoding: str, environments: FieldEnvironments) -> Render:
    """What gives the text of a file.

    It is a template where the author of the DAG chose the file, or a value chose it (`TaintedStr`) from a folder that
    the author wrote or in which the environment looks for templates. A value may name any other file too, whose text
    goes out as it is.

    Args:
        field: `text_file` or `html_file`; in HTML what is filled in is escaped.
        file: a path, or a name in one of the folders where the environment looks for templates.
        encoding: of the file.
        environments: of the task.

    Raises:
        MessageError: it is not there, cannot be read in that encoding, or is no template.
    """
    from jinja2 import TemplateError

    folders = [Path(folder) for folder in getattr(environments.text.loader, "searchpath", ())]
    path, is_template = _find(field, file, folders)
    try:
        with io.TextIOWrapper(io.BufferedReader(UnchangedFile(path)), encoding=encoding) as text:
            source = text.read()
    except FileChangedError as error:
        raise MessageError(
            f"{field}: {str(path)!r} cannot be read: {error}.", remedy=WRITTEN_TO, retryable=True
        ) from None
    except (OSError, UnicodeError, LookupError) as error:
        raise MessageError(
            f"{field}: {str(path)!r} cannot be read as {encoding} ({error}).",
            remedy="Make it readable for the worker, or name its encoding by 'encoding'.",
        ) from None
    if is_template:
        try:
            return joined(environments.of_field(field).from_string(source))
        except TemplateError as error:
            raise _not_a_template(field, str(path), error) from None
    if environments.renders(source.rstrip("\r\n").replace("\r", "")):
        raise MessageError(
            f"{field}: {str(path)!r} holds a template, and a value chose that file.",
            remedy="A value may choose only among the templates of a folder: write the folder in the DAG "
            "('/srv/templates/{{ row.language }}.html'), or add it to the DAG's template_searchpath.",
        )
    return lambda _: source


def _not_a_template(field: str, path: str, error: jinja2.TemplateError) -> MessageError:
    """What Jinja said about a template file, with the line."""
    line = getattr(error, "lineno", None)
    return MessageError(
        f"{field}: {str(path)!r} cannot be rendered ({error.message}{f', line {line}' if line else ''}).",
        remedy="Correct the template; text that Jinja must leave alone goes between {% raw %} and {% endraw %}.",
    )


def _find(field: str, file: str, folders: list[Path]) -> tuple[Path, bool]:
    """Where a file is, and whether it may be run as a template."""
    name = checked_path(file, field)
    chosen_by_the_author = not isinstance(file, TaintedStr) or not file.mask.lstrip().startswith((DATA, MIXED))
    for folder in (*folders, Path()):
        if (folder / name).is_file():
            return folder / name, chosen_by_the_author or _is_in(folders, folder / name)
    places = ", ".join(str(folder) for folder in folders) or "no template_searchpath"
    raise MessageError(
        f"{field}: there is no file {as_written(name)} (looked in {places}, and in the worker's own folder).",
        remedy=file_remedy(
            name,
            otherwise="Give a path that exists on the worker, or add its folder to the DAG's template_searchpath.",
        ),
    )


def _is_in(folders: list[Path], path: Path) -> bool:
    """Whether a path leads to a file of these folders, or below, without a step up."""
    return ".." not in _SEPARATOR.split(str(path)) and any(path.is_relative_to(folder) for folder in folders)
