"""The lineage and the asset events of a task; an error in them is logged and does not fail the task.

Airflow collects lineage only if something reads it, such as its OpenLineage provider; otherwise nothing is reported. An
ObjectStoragePath reports itself when it is opened.
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
    from airflow_provider_smtpcm.mail.mime_message import AnyMail
    from airflow_provider_smtpcm.smtp.outcome import Delivery

log = logging.getLogger(__name__)

#: The maximum number of files that a task reports. By default Airflow keeps only a hundred.
MAX_FILES = 1000
# For any exception: the collector of lineage is third-party code, which may raise anything.
_INCOMPLETE_WARNING = "The lineage of this task is incomplete: %s: %s"


class Lineage:
    """The input and output files of one task.

    Args:
        hook: reported as the reader or writer of the files.
    """

    def __init__(self, hook: SmtpConnectionManagerHook) -> None:
        self._hook = hook
        self._reported: set[tuple[bool, str]] = set()

    def add_mail(self, mail: AnyMail, delivery: Delivery) -> None:
        """Report the files of a mail, if it was sent: sending it reads them."""
        paths = [file.path for file in (*mail.attachments, *mail.inline_images)]
        paths.append(getattr(mail, "path", None))  # of a `MimeMessage`
        if any(path is not None for path in paths) and (delivery.accepted or delivery.outcome == "unknown"):
            for path in paths:
                if path is not None:
                    self.add_input(path)

    def add_input(self, path: object) -> None:
        """Report a file that was read."""
        self._add_file(path, is_output=False)

    def add_output(self, path: object) -> None:
        """Report a file that was written. One in object storage (a URL) reports itself."""
        if not (isinstance(path, str) and "://" in path):
            self._add_file(path, is_output=True)

    @cached_property
    def _collector(self) -> Any:
        """Airflow's lineage collector; None if nothing reads lineage. Only a task with files imports it."""
        try:
            return _find_collector()
        except Exception as error:  # noqa: BLE001 - see _INCOMPLETE_WARNING
            log.warning(_INCOMPLETE_WARNING, type(error).__name__, error)
            return None

    def _add_file(self, path: object, *, is_output: bool) -> None:
        if self._collector is None or len(self._reported) >= MAX_FILES:
            return
        try:
            uri = _make_uri(path)
            if uri is None or (is_output, uri) in self._reported:
                return
            self._reported.add((is_output, uri))
            add: Callable[..., None] = (
                self._collector.add_output_asset if is_output else self._collector.add_input_asset
            )
            # An ObjectStoragePath may have reported itself already, with itself as the context. The collector merges
            # entries with the same file and the same context, so that context is used here too.
            add(context=path if type(path).__module__.startswith("airflow.") else self._hook, uri=uri)
        except Exception as error:  # noqa: BLE001 - see _INCOMPLETE_WARNING
            log.warning(_INCOMPLETE_WARNING, type(error).__name__, error)


def annotate_outlet_events(context: Context, outlets: Sequence[Any], extra: Mapping[str, Any]) -> None:
    """Add the result of the task to the events of its outlets, for the DAGs that these trigger.

    Args:
        context: the task's context.
        outlets: the task's outlets.
        extra: the result, without addresses. A key that the DAG has set itself is not replaced.
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
            log.warning(
                "The result of the task could not be added to the event of %r: %s: %s",
                outlet,
                type(error).__name__,
                error,
            )


def _find_collector() -> Any:
    try:
        from airflow.sdk import lineage
    except ImportError:  # Airflow 3.1
        from airflow.lineage import hook as lineage  # type: ignore[attr-defined,no-redef]
    collector = lineage.get_hook_lineage_collector()
    return None if isinstance(collector, lineage.NoOpCollector) else collector


def _make_uri(path: object) -> str | None:
    """Return the URI of a file as Airflow writes it in `file` assets and ObjectStoragePath; None if it has none."""
    text = str(path)
    scheme, separator, location = text.partition("://")
    if separator:  # without what precedes an `@`: ObjectStoragePath has the connection id there
        netloc, slash, path_part = location.partition("/")
        return f"{scheme}://{netloc.rpartition('@')[2]}{slash}{path_part}"
    if not isinstance(path, str | os.PathLike):
        return None
    # Airflow does not quote the path. `?` and `#` are quoted, since they would end it.
    text = os.path.abspath(os.fspath(path))  # noqa: PTH100 - a Path keeps its `..`
    return f"file://{text.replace('?', '%3F').replace('#', '%23')}"
