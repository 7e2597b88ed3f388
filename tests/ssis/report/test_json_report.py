"""`report.json`: one object with exactly the fields that are documented."""

from __future__ import annotations

import io
import json
import re
from typing import Any

from airflow_provider_smtpcm.ssis.model import Severity
from airflow_provider_smtpcm.ssis.report.entries import PackageEntry, PackageStatus, UnreadableFile
from airflow_provider_smtpcm.ssis.report.json_report import package_line, write_json_report
from tests.documents.pages import DOCS, table_after, text_of
from tests.ssis.report.entries import connection, finding, package, result_of


def written(entries: list[PackageEntry]) -> dict[str, Any]:
    """Write a report and parse it."""
    to = io.StringIO()
    result = result_of(entries, connection())
    result.unreadable = [UnreadableFile(source="x.dtsx", message="x.dtsx is empty.", remedy="Look.")]
    result.copies = [("bin/1.dtsx", "1.dtsx")]
    result.left_over = ["dags/old.py"]
    result.findings = [finding()]
    write_json_report(to, result, map(package_line, entries))
    report: dict[str, Any] = json.loads(to.getvalue())
    return report


def test_no_credentials_are_in_it() -> None:
    """From any text of a package."""
    text = "SmtpServer=mail.corp.example;UserName=svc-etl;Password=hush1;"
    assert "hush1" not in json.dumps(written([package(text=text)]))


def test_a_surrogate_does_not_make_it_unreadable() -> None:
    """It is valid UTF-8."""
    json.dumps(written([package(text="a\udcffb")]), ensure_ascii=False).encode()


def test_an_import_without_packages_has_a_complete_report() -> None:
    """The counts are zero."""
    report = written([])
    assert report["packages"] == []
    assert report["counts"]["packages"] == 0


def test_every_package_is_in_it_with_what_became_of_it() -> None:
    """The counts match the packages."""
    report = written([package(1), package(2, status=PackageStatus.CONVERTED), package(3, status=PackageStatus.NO_MAIL)])
    assert [one["status"] for one in report["packages"]] == ["decide", "converted", "no mail"]
    assert (report["counts"]["packages"], report["counts"]["decide"], report["counts"]["mails"]) == (3, 1, 3)
    assert report["counts"]["findings"] == {"note": 1, "decision": 2, "error": 0}
    assert {(one["code"], one["severity"], one["count"]) for one in report["codes"]} == {
        ("dangling-connection-manager", str(Severity.DECISION), 2),
        ("dangling-connection-manager", str(Severity.NOTE), 1),
    }


def test_the_documents_have_a_row_for_every_field() -> None:
    """And for no other, in a table for each kind of object."""
    report = written([package()])
    fields = set(report) | {f"counts.{name}" for name in report["counts"]}
    for name in ("packages", "connections", "questions"):
        fields |= {f"{name}[].{field}" for field in report[name][0]}
    fields |= {f"packages[].mails[].{field}" for field in report["packages"][0]["mails"][0]}
    fields |= {
        f"packages[].mails[].properties[].{field}" for field in report["packages"][0]["mails"][0]["properties"][0]
    }
    fields |= {f"findings[].{field}" for field in report["findings"][0]}
    for name in ("codes", "unreadable", "copies"):
        fields |= {f"{name}[].{field}" for field in report[name][0]}
    page = DOCS / "reference/import-ssis.md"
    headings = re.findall(r"^### .+$", text_of(page).split("\n## report.json\n")[1].split("\n## ")[0], re.MULTILINE)
    rows = [row for heading in headings for row in table_after(page, heading)]
    named = [field for row in rows for field in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(set(named)) == sorted(named)
    assert set(named) == fields
