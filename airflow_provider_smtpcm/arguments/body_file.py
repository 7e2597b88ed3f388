"""A body that stands in a template file: found, read in its own encoding, and rendered as text. Knows no mail."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, cast

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.file_state import WRITTEN_TO, FileChangedError, UnchangedFile
from airflow_provider_smtpcm.worker_path import as_written, file_remedy

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context


def render_body_file(field: str, file: str, encoding: str, environment: jinja2.Environment, context: Context) -> str:
    """The rendered text of a template file.

    Args:
        field: what errors call it.
        file: a path, or a name in one of the folders where the environment looks for templates.
        encoding: of the file.
        environment: the task's own Jinja environment, with its macros and filters.
        context: what the template may name.

    Raises:
        MessageError: it is not there, cannot be read in that encoding, or is no template.
    """
    from jinja2 import TemplateError

    path, source = read_body_file(field, file, encoding, environment)
    try:
        return text_environment(environment).from_string(source).render(cast("dict[str, object]", context))
    except TemplateError as error:
        raise not_a_template(field, path, error) from None


def read_body_file(field: str, file: str, encoding: str, environment: jinja2.Environment) -> tuple[Path, str]:
    """Where a template file was found, and what stands in it; arguments and errors as `render_body_file` has them."""
    path = _find(field, file, [Path(folder) for folder in getattr(environment.loader, "searchpath", ())])
    try:
        with io.TextIOWrapper(io.BufferedReader(UnchangedFile(path)), encoding=encoding) as text:
            return path, text.read()
    except FileChangedError as error:
        raise MessageError(
            f"{field}: {str(path)!r} cannot be read: {error}.", remedy=WRITTEN_TO, retryable=True
        ) from None
    except (OSError, UnicodeError, LookupError) as error:
        raise MessageError(
            f"{field}: {str(path)!r} cannot be read as {encoding} ({error}).",
            remedy="Make it readable for the worker, or name its encoding by 'encoding'.",
        ) from None


def not_a_template(field: str, path: Path, error: jinja2.TemplateError) -> MessageError:
    """What Jinja said about a template file, with the line."""
    line = getattr(error, "lineno", None)
    return MessageError(
        f"{field}: {str(path)!r} cannot be rendered ({error.message}{f', line {line}' if line else ''}).",
        remedy="Mend the template; text that Jinja must leave alone goes between {% raw %} and {% endraw %}.",
    )


def text_environment(environment: jinja2.Environment) -> jinja2.Environment:
    """The same environment; one that renders to Python objects would turn a file `1e3` into a number."""
    from jinja2.nativetypes import NativeEnvironment
    from jinja2.sandbox import SandboxedEnvironment

    if not isinstance(environment, NativeEnvironment):
        return environment
    text = SandboxedEnvironment()
    vars(text).update(vars(environment))  # its loader, globals, filters, and whatever the DAG set
    return text.overlay()  # which binds the extensions to it


def _find(field: str, file: str, folders: list[Path]) -> Path:
    for folder in (*folders, Path()):
        if (folder / file).is_file():
            return folder / file
    places = ", ".join(str(folder) for folder in folders) or "no template_searchpath"
    raise MessageError(
        f"{field}: there is no file {as_written(file)} (looked in {places}, and in the worker's own folder).",
        remedy=file_remedy(
            file,
            otherwise="Give a path that exists on the worker, or add its folder to the DAG's template_searchpath.",
        ),
    )
