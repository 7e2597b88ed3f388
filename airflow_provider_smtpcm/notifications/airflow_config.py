"""Airflow's configuration as far as an alert depends on it: the address of its web pages, its time zone, its logs.

Every function may be called in any process that runs callbacks, and none raises.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from urllib.parse import quote, urlsplit

from airflow_provider_smtpcm.hooks.smtpcm import get_configuration

#: What Airflow itself takes for the links of task instances if `[api] base_url` is not set.
DEFAULT_BASE_URL = "http://localhost:8080/"


def read_option(section: str, name: str) -> str | None:
    """Return an option of Airflow's configuration; None if it is not set or cannot be read."""
    try:
        return get_configuration(section, name)
    except Exception:  # noqa: BLE001 - a command or a secrets backend may provide the option, and may fail in any way
        return None


def find_default_timezone() -> tzinfo | None:
    """Return `[core] default_timezone`; None if that is UTC, or if it cannot be read."""
    name = (read_option("core", "default_timezone") or "utc").strip()
    try:
        if name.lower() == "system":
            zone = datetime.now(UTC).astimezone().tzinfo
        else:
            from zoneinfo import ZoneInfo

            zone = UTC if name.lower() == "utc" else ZoneInfo(name)
    except Exception:  # noqa: BLE001 - an unknown name, or no database of time zones
        return None
    return None if zone is UTC or str(zone) in ("UTC", "Etc/UTC") else zone


def build_run_url(dag_id: str | None, run_id: str | None) -> str | None:
    """Return the URL of a run's page; None if an id is unknown, or if `[api] base_url` is not a web address."""
    if not dag_id or not run_id:
        return None
    base = read_option("api", "base_url") or DEFAULT_BASE_URL
    return check_url(f"{base.rstrip('/')}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}")


def build_task_url(run_url: str | None, task_id: str | None, map_index: int | None) -> str | None:
    """Return the URL of a task's log in a run, which shows the task's last try; None if the run or the task has none.

    Args:
        run_url: the URL of the run's page.
        map_index: for an instance of a mapped task; None for any other task.
    """
    if not run_url or not task_id:
        return None
    mapped = "" if map_index is None else f"/mapped/{map_index}"
    return f"{run_url}/tasks/{quote(task_id, safe='')}{mapped}"


def check_url(value: object) -> str | None:
    """Return an http(s) URL; None for any other scheme, which a mail client might execute."""
    return value if isinstance(value, str) and value.startswith(("https://", "http://")) else None


def is_local(url: str | None) -> bool:
    """Return whether a URL leads to the machine on which it is opened."""
    try:
        host = urlsplit(url or "").hostname or ""
    except ValueError:
        return False
    return host in ("localhost", "::1") or host.startswith("127.")
