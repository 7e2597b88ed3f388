"""An `.ispac`: a zip whose parts have URL-encoded names. Nothing is ever written to a disk."""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis.model import FileConnection, Manifest, Parameter, SetByProject, SmtpConnection
from airflow_provider_smtpcm.ssis.reading.xml import (
    MAX_OCTETS,
    Document,
    Node,
    flag,
    read_document,
    too_large,
    unreadable,
)

MAX_PARTS = 10_000
MAX_TOTAL_OCTETS = 1024 * 1024 * 1024
MAX_RATIO = 500
# A small part may be packed as well as it likes.
_RATIO_FROM = 1024 * 1024
_MAX_DIRECTORY = 8 * 1024 * 1024
_TAIL = 65_536 + 22 + 20 + 56  # the longest comment, and the records that say where the list of parts is
_ABSOLUTE = re.compile(r"^(?:[/\\]|[A-Za-z]:)")
# What the library makes of octets that were changed: an offset beyond the file is an OSError.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # NotImplementedError is one
    ValueError,
)
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_LOOK = "Look at where the file comes from; if it is yours, build the project again."


class Ispac:
    """An open `.ispac`: its parts by their decoded names."""

    def __init__(self, path: str, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self._parts = _checked_parts(path, archive)
        self._left = MAX_TOTAL_OCTETS

    def names(self, suffix: str) -> list[str]:
        """The parts whose name ends so, in order."""
        return sorted(name for name in self._parts if name.lower().endswith(suffix))

    def shown(self, name: str) -> str:
        """A part's name to people."""
        return f"{self.path}!{name}"

    def read(self, name: str) -> Document:
        """Read a part.

        Raises:
            PackageError: as for a file, or the zip is damaged or a bomb.
        """
        info = self._parts[name]
        shown = self.shown(name)
        if info.file_size > MAX_OCTETS:
            raise too_large(shown, MAX_OCTETS)
        self._left -= info.file_size
        if self._left < 0:
            raise PackageError(
                f"{self.path} unpacks to more than {MAX_TOTAL_OCTETS // 1024**2} MiB; the rest was not read.",
                remedy=_LOOK,
            )
        try:
            with self._archive.open(info) as part:
                return read_document(part, shown, limit=MAX_OCTETS)
        except _DAMAGE as error:
            raise PackageError(f"{shown} could not be unpacked: {error}.", remedy=_LOOK) from error


@contextmanager
def open_ispac(path: Path) -> Iterator[Ispac]:
    """Open an `.ispac`.

    Raises:
        PackageError: it is no zip, damaged, or one that no SSIS would write.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PackageError(f"{path} is not a regular file.", remedy="Pass the file itself.")
        if status.st_size > MAX_TOTAL_OCTETS:
            raise too_large(str(path), MAX_TOTAL_OCTETS)
        _check_directory(path)
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise unreadable(str(path), error) from error
    except _DAMAGE as error:
        raise PackageError(f"{path} is no .ispac: {error}. An .ispac is a zip.", remedy=_LOOK) from error
    with archive:
        yield Ispac(str(path), archive)


def _check_directory(path: Path) -> None:
    """Refuse a list of parts that is too long before it is loaded: it is read whole."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    found = tail.rfind(b"PK\x05\x06")
    length = struct.unpack_from("<L", tail, found + 12)[0] if found >= 0 else 0
    locator = found - 20
    if locator >= 56 and tail.startswith(b"PK\x06\x07", locator):  # the 64 bit form stands right before
        length = max(length if length != 0xFFFFFFFF else 0, struct.unpack_from("<Q", tail, locator - 56 + 40)[0])
    if length > _MAX_DIRECTORY:
        raise PackageError(
            f"{path} has a list of parts of {length:,} octets; more than {MAX_PARTS:,} parts are not read.",
            remedy=_LOOK,
        )


def _checked_parts(path: str, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    parts: dict[str, zipfile.ZipInfo] = {}
    infos = archive.infolist()
    if len(infos) > MAX_PARTS:
        raise PackageError(f"{path} has {len(infos):,} parts; more than {MAX_PARTS:,} are not read.", remedy=_LOOK)
    for info in infos:
        name = unquote(info.orig_filename, errors="replace")
        if _ABSOLUTE.match(name) or ".." in re.split(r"[/\\]", name) or any(char < " " for char in name):
            raise PackageError(
                f"{path} has a part named {name[:200]!r}, which leads out of it; nothing was read.", remedy=_LOOK
            )
        if info.is_dir():
            continue
        if info.flag_bits & 1 or info.compress_type not in _METHODS:
            raise PackageError(
                f"{path} is a zip with a password, or packed in a way that SSIS knows not.", remedy=_LOOK
            )
        if name in parts:
            raise PackageError(f"{path} has two parts named {name[:200]!r}; nothing was read.", remedy=_LOOK)
        if info.file_size > _RATIO_FROM and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise PackageError(
                f"{path} has a part {name[:200]!r} that unpacks to more than {MAX_RATIO} times its size; "
                "nothing was read.",
                remedy=_LOOK,
            )
        parts[name] = info
    return parts


# folded: What a project sets besides its files: parameters of connection managers, and what its configurations set
#   otherwise.
#   `@Project.manifest` in an `.ispac`, and the same inside a `.dtproj`, has a parameter `CM.<name>.<property>` for each
#   property of each connection manager: the project's own in one list, those of a package in the list of that
#   package. What
#   is built or deployed has these values. A configuration of a `.dtproj` (`Development`, `Production`) gives parameters
#   other values; which of them was deployed is in no file, so they are told and not applied.

# SSIS's own names for the parts of the connection string, which may be set one by one.
PARTS = ("SmtpServer", "UseWindowsAuthentication", "EnableSsl", "Timeout")
_WHOLE = "ConnectionString"
_PREFIX = "cm."


def read_manifest(root: Node, source: str) -> Manifest | None:
    """The manifest of an `.ispac`, or of a `.dtproj`; None where it says nothing of use here."""
    project = _below(root, "DeploymentModelSpecificContent", "Manifest", "Project") if _is_dtproj(root) else root
    info = _below(project, "DeploymentInfo")
    values = {}
    for parameters, package in _lists(info):
        if found := dict(_values(parameters)):
            values[package] = found
    configurations = _configurations(root)
    return Manifest(source=source, values=values, configurations=configurations) if values or configurations else None


def with_parameters(
    connection: SmtpConnection | FileConnection, manifest: Manifest | None, package: str = ""
) -> SmtpConnection | FileConnection:
    """A connection manager as the manifest sets it.

    Args:
        connection: as it stands in its file.
        manifest: of its project.
        package: the file that it is in; empty: it is the project's own.
    """
    if manifest is None:
        return connection
    name, scope = connection.name.lower(), _scope(package)
    values = manifest.values.get(scope, {})
    given = {one: values[key] for one in (_WHOLE, *PARTS) if (key := f"{name}.{one.lower()}") in values}
    if isinstance(connection, FileConnection):
        path = given.get(_WHOLE, connection.connection_string)
        if path.strip() == connection.connection_string.strip():
            return connection
        of_file = SetByProject(property=_WHOLE, by=f"CM.{connection.name}.{_WHOLE}", source=manifest.source)
        return replace(connection, connection_string=path, set_by=(of_file,))
    changed = [one for one in given if not _is_same(one, given[one], _part(connection.connection_string, one))]
    string = given[_WHOLE] if _WHOLE in changed else connection.connection_string
    set_by = []
    for one in changed:
        contradicted = one != _WHOLE and _WHOLE in changed and not _is_same(one, given[one], _part(string, one))
        parameter = f"CM.{connection.name}.{one}"
        set_by.append(SetByProject(property=one, by=parameter, source=manifest.source, contradicted=contradicted))
    for one in changed:
        if one != _WHOLE and not _is_same(one, given[one], _part(string, one)):
            string = with_part(string, one, given[one])
    configured = []
    for one in (_WHOLE, *PARTS):
        settings = manifest.configurations.get(scope, {}).get(f"{_PREFIX}{name}.{one.lower()}", {})
        if names := [key for key, value in settings.items() if not _is_same(one, value, _part(string, one))]:
            configured.append(SetByProject(property=one, by=_listed(names), source=manifest.source))
    return replace(connection, connection_string=string, set_by=tuple(set_by), configured=tuple(configured))


def with_configurations(
    parameters: Iterable[Parameter], manifest: Manifest | None, package: str = ""
) -> tuple[Parameter, ...]:
    """Parameters with the names of the configurations that give them another value."""
    if manifest is None:
        return tuple(parameters)
    settings = manifest.configurations.get(_scope(package), {})
    found = []
    for one in parameters:
        others = {} if one.sensitive else settings.get(one.name.lower(), {})
        names = tuple(name for name, value in others.items() if value != one.value)
        found.append(replace(one, configured_in=names))
    return tuple(found)


def with_part(connection_string: str, key: str, value: str) -> str:
    """A connection string with one of its parts set, the others as they were."""
    parts = _split(connection_string)
    kept = [part for part in parts if part.partition("=")[0].strip().lower() != key.lower()]
    return "".join(f"{part};" for part in (f"{key}={value}", *kept))


def _split(connection_string: str) -> list[str]:
    parts = [part for part in connection_string.split(";") if part.strip()]
    return [f"SmtpServer={parts[0].strip()}"] if len(parts) == 1 and "=" not in parts[0] else parts  # a bare host


def _part(connection_string: str, key: str) -> str:
    """A part of a connection string, or the whole; empty where it is not there."""
    if key == _WHOLE:
        return connection_string
    pairs = (part.partition("=") for part in _split(connection_string))
    return next((value.strip() for name, _, value in pairs if name.strip().lower() == key.lower()), "")


def _is_same(key: str, one: str, other: str) -> bool:
    """Whether two values mean the same: a missing flag is False, and the order of parts says nothing."""
    if key == _WHOLE:
        keys = {part.partition("=")[0].strip() for text in (one, other) for part in _split(text)}
        return all(_is_same(name, _part(one, name), _part(other, name)) for name in keys)
    one, other = one.strip().lower(), other.strip().lower()
    if key.lower() in {"usewindowsauthentication", "enablessl"}:
        return (one or "false") == (other or "false")
    return one == other


def _is_dtproj(root: Node) -> bool:
    return not root.namespace


def _below(node: Node | None, *tags: str) -> Node | None:
    for tag in tags:
        node = None if node is None else node.first(tag)
    return node


def _lists(info: Node | None) -> Iterator[tuple[Node, str]]:
    """The lists of parameters, each with the package that it is of."""
    if own := _below(info, "ProjectConnectionParameters"):
        yield own, ""
    packages = _below(info, "PackageInfo")
    for one in packages.all("PackageMetaData") if packages else ():
        parameters = one.first("Parameters")
        if parameters is not None and one.attributes.get("Name"):
            yield parameters, _scope(one.attributes["Name"])


def _values(parameters: Node) -> Iterator[tuple[str, str]]:
    """The values of connection managers; a sensitive one is not read, and an empty one says nothing."""
    for one in parameters.all("Parameter"):
        name = one.attributes.get("Name", "").lower()
        properties = one.first("Properties")
        if not name.startswith(_PREFIX) or properties is None or flag(properties, "Sensitive"):
            continue
        value = next((each for each in properties.all("Property") if each.attributes.get("Name") == "Value"), None)
        hidden = value is None or flag(value, "Sensitive") or flag(value, "Encrypted")
        if value is not None and not hidden and value.text.strip():
            yield name.removeprefix(_PREFIX), value.text


def _configurations(root: Node) -> dict[str, dict[str, dict[str, str]]]:
    """The values that configurations give: by package, by parameter, by configuration."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    configurations = root.first("Configurations")
    for one in configurations.all("Configuration") if configurations else ():
        name = _below(one, "Name")
        settings = _below(one, "Options", "ParameterConfigurationValues")
        for setting in settings.all("ConfigurationSetting") if settings else ():
            target, value = setting.first("Name"), setting.first("Value")
            scope, colons, parameter = (target.text if target else "").strip().partition("::")
            if name is None or value is None or not colons or flag(value, "Sensitive") or flag(value, "Encrypted"):
                continue
            known = found.setdefault("" if scope.lower() == "project" else _scope(scope), {})
            known.setdefault(parameter.lower(), {})[name.text.strip()] = value.text
    return found


def _scope(package: str) -> str:
    """A package by its file or by its name, whichever is written."""
    return package.lower().removesuffix(".dtsx")


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)
