"""What a person decides about the writing, for all packages or for one connection manager."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class WindowsAuth(StrEnum):
    """What becomes of UseWindowsAuthentication=True."""

    KEEP = "keep"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    r"""What a person decides.

    Args:
        windows_auth: for every connection manager.
        windows_auth_of: for single ones, by their name in any case.
        path_map: the beginning of a path in Windows, and what it is on a worker: `((r"\\srv\share", "/mnt/share"),)`.
    """

    windows_auth: WindowsAuth = WindowsAuth.KEEP
    windows_auth_of: Mapping[str, WindowsAuth] = field(default_factory=dict)
    path_map: tuple[tuple[str, str], ...] = ()
