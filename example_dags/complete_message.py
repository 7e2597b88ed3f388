"""Send what another library made, with its octets unchanged: an invitation, and files that match a pattern.

Uses the connection `smtpcm_default` of type *SMTP Connection Manager*. A signed message (S/MIME, OpenPGP) is sent in
the same way: return its octets, or name its .eml file as `message` of a `SendMailOperator`.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

from airflow.sdk import DAG, task

from airflow_provider_smtpcm import SendMailOperator
from airflow_provider_smtpcm.mail import FilePattern

SENDER, GUEST = "etl@corp.example", "operations@corp.example"
FOLDER = Path(tempfile.gettempdir()) / "smtpcm_complete_message"

with DAG(
    dag_id="complete_message",
    description="An invitation, and the pages that a program has written.",
    schedule=None,
    tags=["smtpcm"],
) as dag:

    @task.send_mail
    def invite() -> EmailMessage:
        """Return an invitation (RFC 5545, RFC 6047), which calendars show with Accept and Decline."""
        now = datetime.now(UTC)
        start = now.replace(hour=9, minute=30, second=0) + timedelta(days=7)
        lines = [
            "BEGIN:VCALENDAR",
            "VERSION:2.0",
            "PRODID:-//corp.example//etl//EN",
            "METHOD:REQUEST",
            "BEGIN:VEVENT",
            f"UID:maintenance-{start:%Y-%m-%d}@corp.example",
            f"DTSTAMP:{now:%Y%m%dT%H%M%SZ}",
            f"DTSTART:{start:%Y%m%dT%H%M%SZ}",
            f"DTEND:{start + timedelta(hours=1):%Y%m%dT%H%M%SZ}",
            "SUMMARY:Maintenance of the warehouse",
            f"ORGANIZER:mailto:{SENDER}",
            f"ATTENDEE;ROLE=REQ-PARTICIPANT;RSVP=TRUE:mailto:{GUEST}",
            "END:VEVENT",
            "END:VCALENDAR",
        ]
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = SENDER, GUEST, "Maintenance of the warehouse"
        message.set_content(f"The warehouse is down on {start:%d %B} from 9:30 to 10:30 UTC.")
        message.add_alternative("\r\n".join([*lines, ""]), subtype="calendar", params={"method": "REQUEST"})
        return message

    @task
    def write_pages() -> None:
        """Write a page and its data, as another program would."""
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "page.html").write_text("<p>{{ braces }} are not a template here.</p>\n", encoding="utf-8")
        for table in ("orders", "customers"):
            (FOLDER / f"{table}.csv").write_text("id,rows\n1,3\n", encoding="utf-8")

    report = SendMailOperator(
        task_id="send_pages",
        from_address=SENDER,
        to=GUEST,
        subject="Pages of {{ dag_run.run_after | ds }}",
        html=FOLDER / "page.html",
        attachments=[f"{FOLDER}/*.csv", FilePattern(f"{FOLDER}/*.log", required=False)],
        # An alert or a report need not come back to the mailbox that cannot take it.
        envelope_from="<>",
    )
    invite()
    write_pages() >> report
