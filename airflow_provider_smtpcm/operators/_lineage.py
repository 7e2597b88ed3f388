"""What a task reports to Airflow's lineage and in the events of its assets. An error in either fails no task.

Airflow collects lineage only where something reads it, such as its OpenLineage provider; elsewhere nothing is done. An
ObjectStoragePath reports itself when it is read or written.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.smtp.delivery import Delivery

log = logging.getLogger(__name__)

#: How many files a task reports at most; Airflow keeps a hundred, unless it is configured otherwise.
MAX_FILES = 1000
# What collects lineage is third-party code that may raise anything.
_INCOMPLETE = "The lineage of this task is not complete: %s: %s"


class Lineage:
    """The input and output files of one task.

    Args:
        hook: in whose name they are reported.
    """

    def __init__(self, hook: SmtpConnectionManagerHook) -> None:
        self._hook = hook
        self._reported: set[tuple[bool, str]] = set()

    def add_mail(self, mail: Mail, delivery: Delivery) -> None:
        """Report the files of a mail, if it was handed over to the server, which read them."""
        if not (mail.attachments or mail.inline_images) or self._collector is None:
            return
        if delivery.accepted or delivery.outcome == "unknown":
            for file in (*mail.attachments, *mail.inline_images):
                if file.path is not None:
                    self.add_input(file.path)

    def add_input(self, path: object) -> None:
        """Report a file that was read."""
        self._add(path, is_output=False)

    def add_output(self, path: object) -> None:
        """Report a file that was written; one that was named by a URL has reported itself."""
        if not (isinstance(path, str) and "://" in path):
            self._add(path, is_output=True)

    @cached_property
    def _collector(self) -> Any:
        """Airflow's collector of lineage; None where nothing reads it. Looked up with the first file to report."""
        try:
            return _find_collector()
        except Exception as error:  # noqa: BLE001 - see _INCOMPLETE
            log.warning(_INCOMPLETE, type(error).__name__, error)
            return None

    def _add(self, path: object, *, is_output: bool) -> None:
        if self._collector is None or len(self._reported) >= MAX_FILES:
            return
        try:
            uri = _uri_of(path)
            if uri is None or (is_output, uri) in self._reported:
                return
            self._reported.add((is_output, uri))
            add: Callable[..., None] = (
                self._collector.add_output_asset if is_output else self._collector.add_input_asset
            )
            # An ObjectStoragePath may have reported itself, in its own name.
            add(context=path if type(path).__module__.startswith("airflow.") else self._hook, uri=uri)
        except Exception as error:  # noqa: BLE001 - see _INCOMPLETE
            log.warning(_INCOMPLETE, type(error).__name__, error)


def annotate_outlet_events(context: Context, outlets: Sequence[Any], extra: Mapping[str, Any]) -> None:
    """Put the result of the task into the events of its assets, for the DAGs that these start.

    Args:
        context: of the task.
        outlets: of the task.
        extra: numbers and names, without addresses. What the DAG itself has put into an event stays.
    """
    if not outlets:
        return
    from airflow.sdk import Asset

    for outlet in outlets:
        try:
            if isinstance(outlet, Asset):
                event = context["outlet_events"][outlet]
                event.extra = {**extra, **event.extra}
        except Exception as error:  # noqa: BLE001 - the mail is delivered, and a retry would send it again
            log.warning("The event of %r has no result of the task: %s: %s", outlet, type(error).__name__, error)


def _find_collector() -> Any:
    try:
        from airflow.sdk import lineage
    except ImportError:  # Airflow 3.1
        from airflow.lineage import hook as lineage  # type: ignore[attr-defined,no-redef]
    collector = lineage.get_hook_lineage_collector()
    return None if isinstance(collector, lineage.NoOpCollector) else collector


def _uri_of(path: object) -> str | None:
    """Return the URI of a file as Airflow's own `file` assets and ObjectStoragePath write it; None: it has none."""
    text = str(path)
    scheme, separator, rest = text.partition("://")
    if separator:  # as ObjectStoragePath writes it: without the connection id, or whatever else precedes an `@`
        netloc, slash, below = rest.partition("/")
        return f"{scheme}://{netloc.rpartition('@')[2]}{slash}{below}"
    if not isinstance(path, str | os.PathLike):
        return None
    # Unquoted, except for the characters that would end the path in a URI.
    text = os.path.abspath(os.fspath(path))  # noqa: PTH100 - a Path keeps its `..`
    return f"file://{text.replace('?', '%3F').replace('#', '%23')}"
