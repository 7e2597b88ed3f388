"""The fields of a notifier, rendered one by one: a broken one is told, and spoils nothing else. Knows no mail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.arguments.body_file import render_body_file
from airflow_provider_smtpcm.arguments.values import as_text
from airflow_provider_smtpcm.errors import MailError, MessageError
from airflow_provider_smtpcm.notifications.excerpt import masked, one_line

if TYPE_CHECKING:
    import jinja2

log = logging.getLogger(__name__)

_SAID = 500


class Rendered:
    """The rendered fields, and what is to be said of those that could not be.

    Args:
        fields: as the DAG's author wrote them, by name.
        render: gives a field, by its name and what stands in it.
    """

    def __init__(self, fields: Mapping[str, Any], render: Callable[[str, Any], Any]) -> None:
        self.values: dict[str, Any] = {}
        #: For the reader of the mail, one line for each fault.
        self.notices: list[str] = []
        for name, value in fields.items():
            try:
                self.values[name] = render(name, value) if value else value
            except Exception as error:  # noqa: BLE001 - a template can fail in every way that Python can
                if isinstance(value, str) and "{" not in value:
                    self.values[name] = value  # it is none: something else failed, and where an alert goes is known
                self._tell(name, error)

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name)

    def body(self, name: str, encoding: str, environment: jinja2.Environment, context: Any) -> str | None:
        """A body, from its field or from its file; None where it is empty or broken."""
        value, file = self[name], self[f"{name}_file"]
        try:
            if value and file:
                raise MessageError(
                    f"'{name}' and '{name}_file' are both set.",
                    remedy="Give the body in one way; leave the other empty.",
                )
            if not file:
                return as_text(value) or None
            return render_body_file(f"{name}_file", file, encoding, environment, context)
        except Exception as error:  # noqa: BLE001 - as above
            self._tell(f"{name}_file" if file else name, error)
            return None

    def give_up(self, what: str, error: MailError) -> None:
        """Say why something was left out of the mail.

        Args:
            what: what was left out.
            error: why.
        """
        notice = f"{what} left out of this mail: {one_line(masked(str(error)), _SAID)}"
        if notice not in self.notices:
            self.notices.append(notice)
            log.warning("SendMailNotifier: %s", notice)

    def missing(self, names: Sequence[str]) -> str:
        """Those of these fields that could not be had, for an error; empty where none is."""
        return ", ".join(f"'{name}'" for name in names if name not in self.values)

    def _tell(self, name: str, error: Exception) -> None:
        said = one_line(masked(str(error)), _SAID)
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        self.notices.append(f"The notifier's '{name}' could not be rendered ({type(error).__name__}{where}: {said}).")
        log.warning(
            "SendMailNotifier: '%s' could not be rendered (%s%s: %s); the default mail is sent without it. Mend the "
            "template in the DAG; `| default('')` keeps it from failing where an attribute may be missing.",
            name,
            type(error).__name__,
            where,
            said,
        )
