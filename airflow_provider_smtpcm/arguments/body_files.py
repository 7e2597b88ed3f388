"""Files with the body of a mail: template files, which are rendered, and path objects, which are sent as they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.arguments.templates import FieldEnvironments, compile_text, is_path_object
from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.tainted import DATA, MIXED, TaintedStr, check_path, count_parent_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    import jinja2
    from airflow.sdk import Context

    from airflow_provider_smtpcm.arguments.templates import TemplateFunction


def read_body(field: str, value: Any, encoding: str) -> Any:
    """Return the text of the file if a body is a path object; it is sent as it is. Anything else is returned unchanged.

    Args:
        field: `text` or `html`.
        value: the body, or the path of a file with it.
        encoding: the encoding of the file.

    Raises:
        MessageError: the file cannot be read in that encoding; or the body is octets, whose encoding is not known.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        raise MessageError(
            f"'{field}' has to be text, not {type(value).__name__}.",
            remedy="Decode it: value.decode(). Or pass the path of its file: a Path.",
        )
    if value is None or isinstance(value, str) or not is_path_object(value):
        return value
    return _read_text(field, value, encoding)


def render_body_file(field: str, file: Any, encoding: str, environment: jinja2.Environment, context: Context) -> str:
    """Render a body file.

    Args:
        field, file, encoding: as in `compile_body_file`.
        environment: the task's own, with its macros, filters and template folders.
        context: variables for the template.

    Raises:
        MessageError: as in `compile_body_file`, or the template cannot be rendered.
    """
    from jinja2 import TemplateError

    render = compile_body_file(field, file, encoding, FieldEnvironments(environment))
    try:
        return str(render({**environment.globals, **context}))
    except TemplateError as error:
        raise _template_error(field, file, error) from None


def compile_body_file(
    field: str,
    file: Any,
    encoding: str,
    environments: FieldEnvironments,
    wrap: Callable[[TemplateFunction, jinja2.nodes.Template], TemplateFunction] | None = None,
) -> TemplateFunction:
    """Compile a body file to a function that renders its text.

    The file is compiled as a template if one of these is true: the author of the DAG chose it; a value (`TaintedStr`)
    chose it from a folder that the author wrote; it is in a template folder of the environment. Any other file is sent
    unchanged, and must not contain template syntax.

    Args:
        field: `text_file` or `html_file`; values are escaped in HTML.
        file: a path on the worker or in object storage, or a name in one of the template folders of the environment.
        encoding: the encoding of a file without a byte order mark; an HTML file may declare its own in `<meta>`.
        environments: the environments of the task.
        wrap: returns the function to use for a compiled template, given its own function and its syntax tree.

    Raises:
        MessageError: the file is missing, cannot be read in that encoding, or is not a valid template; or it
            contains template syntax but is not compiled.
    """
    from jinja2 import TemplateError

    from airflow_provider_smtpcm.mail.files import is_local_path

    path, is_template = file, True
    if is_local_path(file):
        folders = [Path(folder) for folder in getattr(environments.text.loader, "searchpath", ())]
        path, is_template = _find_body_file(field, file, folders)
    source = _read_text(field, path, encoding)
    if is_template:
        try:
            environment = environments.for_field(field)
            render = compile_text(environment.from_string(source))
            return render if wrap is None else wrap(render, environment.parse(source))
        except TemplateError as error:
            raise _template_error(field, str(path), error) from None
    if environments.is_template(source.rstrip("\r\n").replace("\r", "")):
        raise MessageError(
            f"{field}: {str(path)!r} was chosen by a value, and contains template syntax, which is rendered "
            "only in a file whose name or folder the DAG contains.",
            remedy="To let a value choose a template, write the folder of the templates in the DAG "
            "('/srv/templates/{{ row.language }}.html'), or add it to the DAG's template_searchpath.",
        )
    return lambda _: source


def _read_text(field: str, path: Any, encoding: str) -> str:
    from airflow_provider_smtpcm.mail.charset import decode_file
    from airflow_provider_smtpcm.mail.files import (
        FILE_CHANGED_REMEDY,
        STORAGE_REMEDY,
        FileChangedError,
        UnchangedFile,
        is_local_path,
    )

    is_local = is_local_path(path)
    octets = b""
    try:
        with UnchangedFile(path) if is_local else path.open("rb") as file:
            octets = file.readall() if is_local else file.read()  # `read` would not notice a change
        return decode_file(octets, encoding, is_html=field in ("html", "html_file"))
    except FileChangedError as error:
        raise MessageError(
            f"{field}: {str(path)!r} cannot be read: {error}.", remedy=FILE_CHANGED_REMEDY, retryable=True
        ) from None
    except (OSError, ValueError, LookupError) as error:
        remedy = "Make it readable for the worker, or set 'encoding' to the encoding of the file."
        if b"\0" in octets:
            remedy = (
                "It looks like UTF-16 without a byte order mark: save it as UTF-8, or with the mark, or set "
                "encoding='utf-16-le'."
            )
        raise MessageError(
            f"{field}: {str(path)!r} cannot be read as {encoding} ({error}).",
            remedy=remedy if is_local else f"{remedy} {STORAGE_REMEDY}",
        ) from None
    except Exception as error:
        if is_local:
            raise
        raise MessageError(
            f"{field}: {str(path)!r} cannot be read ({type(error).__name__}: {error}).",
            remedy=STORAGE_REMEDY,
            retryable=True,
        ) from error


def _template_error(field: str, path: str, error: jinja2.TemplateError) -> MessageError:
    """Make an error from one of Jinja's, with the line number."""
    line = getattr(error, "lineno", None)
    return MessageError(
        f"{field}: {str(path)!r} cannot be rendered ({error.message}{f', line {line}' if line else ''}).",
        remedy="Correct the template. Put text that Jinja must not interpret between {% raw %} and {% endraw %}.",
    )


def _find_body_file(field: str, file: str, folders: list[Path]) -> tuple[Path, bool]:
    """Return the path of a body file, and whether it may be compiled as a template."""
    name = check_path(file, field)
    if not isinstance(name, str | os.PathLike):
        raise MessageError(
            f"'{field}' has to be the path of a file, not {type(name).__name__}.",
            remedy="Pass a path, or the name of a file in the DAG's template_searchpath.",
        )
    is_chosen_by_author = not isinstance(file, TaintedStr) or not file.mask.lstrip().startswith((DATA, MIXED))
    for folder in (*folders, Path()):
        if (folder / name).is_file():
            return folder / name, is_chosen_by_author or _is_inside(folders, folder / name)
    from airflow_provider_smtpcm.mail.files import file_remedy, quote_path

    searched = ", ".join(str(folder) for folder in folders) or "no template_searchpath"
    raise MessageError(
        f"{field}: there is no file {quote_path(name)} (looked in {searched}, and in the worker's working directory).",
        remedy=file_remedy(
            name,
            default="Give a path that exists on the worker, or add its folder to the DAG's template_searchpath.",
        ),
    )


def _is_inside(folders: list[Path], path: Path) -> bool:
    """Whether a path is in one of these folders and has no `..`."""
    return not count_parent_steps(path) and any(path.is_relative_to(folder) for folder in folders)
