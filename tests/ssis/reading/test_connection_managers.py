"""Connection strings: one property is set, a password is removed, and everything else stays."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.ssis.reading.connection_managers import (
    remove_password,
    set_connection_property,
    set_database_property,
)


@pytest.mark.parametrize(
    ("string", "changed"),
    [
        ("", "SmtpServer=new;"),
        ("old", "SmtpServer=new;"),
        ("smtpserver = old ; EnableSsl=True", "SmtpServer=new; EnableSsl=True;"),
        ("EnableSsl=True;Other=a=b;", "SmtpServer=new;EnableSsl=True;Other=a=b;"),
    ],
)
def test_one_part_of_a_connection_string_is_set(string: str, changed: str) -> None:
    """The others stay as they are."""
    assert set_connection_property(string, "SmtpServer", "new") == changed


@pytest.mark.parametrize(
    ("string", "changed"),
    [
        ("", "Data Source=new;"),
        ("Server=old;Database=d", "Server=new;Database=d;"),
        ('Application Name="a;Data Source=b";dsn = old ;', 'Application Name="a;Data Source=b";dsn =new;'),
    ],
)
def test_the_key_of_a_connection_string_is_kept(string: str, changed: str) -> None:
    """ODBC and ADO.NET have other keys than OLE DB; a value in quotation marks may contain semicolons."""
    assert set_database_property(string, "ServerName", "new") == changed


@pytest.mark.parametrize(
    ("string", "kept"),
    [
        ('Data Source=s;Password="a;b";User ID=u;', "Data Source=s;User ID=u;"),
        ("Driver={SQL Server};PWD={a;b};UID=u", "Driver={SQL Server};UID=u;"),
        ("password = x", ""),
        ("Data Source=s;Persist Security Info=True;", "Data Source=s;Persist Security Info=True;"),
    ],
)
def test_a_password_is_removed_with_its_quotation_marks(string: str, kept: str) -> None:
    """Nothing of it stays behind."""
    assert remove_password(string) == kept
