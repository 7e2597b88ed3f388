"""Calls of the email backend, as Airflow and its users make them."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_smtpcm.email_backend import send_email

send_email("a@corp.example, b@corp.example", "Subject", "<p>HTML</p>")
send_email(["a@corp.example"], "Subject", "<p>HTML</p>", [Path("/srv/a.csv"), "/srv/b.csv"], dryrun=True)
send_email(to="a@corp.example", subject="x", html_content="y", files=None, custom_headers={"X-Run": 5}, priority="high")

# Wrong types.
send_email("a@corp.example", "Subject")  # type: ignore[call-arg]  # ty: ignore[missing-argument]
send_email(5, "Subject", "<p>HTML</p>")  # type: ignore[arg-type]  # ty: ignore[invalid-argument-type]
send_email("a@corp.example", "Subject", "x", [5])  # type: ignore[list-item]  # ty: ignore[invalid-argument-type]
