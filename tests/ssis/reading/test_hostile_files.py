"""Malicious and damaged files: each has an error of its own, with what was found and what to do."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from airflow_provider_smtpcm.errors import PackageError
from airflow_provider_smtpcm.ssis import read_package, read_project
from airflow_provider_smtpcm.ssis.reading import ispac, xml

PACKAGES = Path(__file__).parent.parent / "packages"
WHOLE = (PACKAGES / "mail_2014.dtsx").read_text(encoding="utf-8")
NAMESPACE = 'xmlns:DTS="www.microsoft.com/SqlServer/Dts"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("   \n", "ends too early"),
        (WHOLE[:900], "ends too early"),
        (WHOLE[:-25], "ends too early"),
        ("<html><body/></html>", "its root is <html>"),
        ("<Executable/>", "its root is <Executable> without a namespace"),
        (f"<DTS:ConnectionManager {NAMESPACE}/>", "its root is <ConnectionManager>"),
        ("no XML at all", "not well-formed XML"),
        ("<a><b></a>", "not well-formed XML: mismatched tag at line 1, column 9"),
        ('<?xml version="1.0" encoding="klingon"?><a/>', "encoding"),
        ('<?xml version="1.0" encoding="shift_jis"?><a/>', "encoding"),
        (f"<DTS:Executable {NAMESPACE}><EncryptedData/></DTS:Executable>", "completely encrypted"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "DOCTYPE"),
        ('<!DOCTYPE a SYSTEM "http://attacker.example/a.dtd"><a/>', "DOCTYPE"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "DOCTYPE"),
        ("<a>" * 5000, "more than 100 levels deep"),
    ],
)
def test_the_error_for_a_file_that_is_not_a_package_names_what_it_is(tmp_path: Path, text: str, message: str) -> None:
    """By its path, and with a remedy."""
    path = tmp_path / "p.dtsx"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PackageError) as caught:
        read_package(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.remedy


def test_a_file_beyond_the_limit_is_not_opened(tmp_path: Path) -> None:
    """The error names the number."""
    path = tmp_path / "huge.dtsx"
    with path.open("wb") as file:
        file.truncate(xml.MAX_OCTETS + 1)
    with pytest.raises(PackageError, match="larger than 64 MiB"):
        read_package(path)


def test_more_elements_than_any_package_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the number."""
    monkeypatch.setattr(xml, "MAX_ELEMENTS", 1000)
    path = tmp_path / "wide.dtsx"
    path.write_text(f"<DTS:Executable {NAMESPACE}>" + "<a/>" * 1000 + "</DTS:Executable>")
    with pytest.raises(PackageError, match="more than 1,000 of them"):
        read_package(path)


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    """Opening a FIFO would block until something writes to it."""
    path = tmp_path / "pipe.dtsx"
    os.mkfifo(path)
    with pytest.raises(PackageError, match="not a regular file"):
        read_package(path)
    with pytest.raises(PackageError, match="No such file"):
        read_package(tmp_path / "gone.dtsx")


def test_a_data_flow_of_megabytes_is_read_in_little_memory(tmp_path: Path) -> None:
    """It is forgotten while it is read."""
    part = '<component name="c"><properties><property name="x">' + "v" * 300 + "</property></properties></component>"
    flow = (
        '<DTS:Executable DTS:ObjectName="Flow" DTS:ExecutableType="Microsoft.Pipeline"><DTS:ObjectData><pipeline>'
        + part * 12_000
        + "</pipeline></DTS:ObjectData></DTS:Executable>"
    )
    path = tmp_path / "big.dtsx"
    path.write_text(WHOLE.replace("<DTS:Executables>", f"<DTS:Executables>{flow}", 1), encoding="utf-8")
    del flow
    assert path.stat().st_size > 4_000_000
    read_package(PACKAGES / "mail_2014.dtsx")  # what is imported on use does not count
    tracemalloc.start()
    try:
        package = read_package(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(package.send_mail_tasks) == 1
    assert peak < 2_500_000


def archive(path: Path, parts: dict[str, str | bytes]) -> Path:
    """A zip with these parts."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../p.dtsx",
        "a/../../p.dtsx",
        "..\\p.dtsx",
        "/etc/p.dtsx",
        "\\\\srv\\p.dtsx",
        "C:\\p.dtsx",
        "%2e%2e%2fp.dtsx",
        "a\nb.dtsx",
    ],
)
def test_a_part_that_leads_out_of_an_ispac_is_refused(tmp_path: Path, name: str) -> None:
    """Although nothing is ever written to a disk."""
    with pytest.raises(PackageError, match="a path outside the archive"):
        read_project(archive(tmp_path / "p.ispac", {name: WHOLE}))


def test_a_zip_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    """Before anything is unpacked."""
    with pytest.raises(PackageError, match="more than 500 times its size"):
        read_project(archive(tmp_path / "p.ispac", {"p.dtsx": b" " * 20_000_000}))


def test_too_many_parts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of parts, and before the list is loaded by its length."""
    path = archive(tmp_path / "p.ispac", {f"{number}.dtsx": "" for number in range(20)})
    monkeypatch.setattr(ispac, "MAX_PARTS", 19)
    with pytest.raises(PackageError, match="20 parts; the limit is 19"):
        read_project(path)
    monkeypatch.setattr(ispac, "_MAX_DIRECTORY", 500)
    with pytest.raises(PackageError, match=r"The list of parts in .* is too large"):
        read_project(path)


def test_what_unpacks_to_too_much_in_all_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts before that are kept."""
    monkeypatch.setattr(ispac, "MAX_TOTAL_OCTETS", len(WHOLE.encode()) + 10)
    project = read_project(archive(tmp_path / "p.ispac", {"a.dtsx": WHOLE, "b.dtsx": WHOLE}))
    assert len(project.packages) == 1
    assert "unpacks to more than" in str(project.unreadable[0][1])


def test_a_zip_in_a_zip_is_not_entered(tmp_path: Path) -> None:
    """It is not a package."""
    inner = archive(tmp_path / "inner.ispac", {"p.dtsx": WHOLE})
    project = read_project(
        archive(tmp_path / "p.ispac", {"inner.ispac": inner.read_bytes(), "a.dtsx": inner.read_bytes()})
    )
    assert project.packages == ()
    assert [name.rpartition("!")[2] for name, _ in project.unreadable] == ["a.dtsx"]


def test_the_error_names_the_damaged_part(tmp_path: Path) -> None:
    """Changed octets, a false size, a false offset, and a file that is not a zip."""
    path = archive(tmp_path / "p.ispac", {"a.dtsx": WHOLE})
    octets = bytearray(path.read_bytes())
    octets[60:90] = bytes(30)
    path.write_bytes(octets)
    assert "could not be unpacked" in str(read_project(path).unreadable[0][1])
    octets = bytearray(archive(path, {"a.dtsx": WHOLE}).read_bytes())
    directory = octets.rfind(b"PK\x01\x02")
    struct.pack_into("<L", octets, directory + 24, 100)
    path.write_bytes(octets)
    assert read_project(path).packages == ()
    octets = bytearray(archive(path, {"a.dtsx": WHOLE}).read_bytes())
    struct.pack_into("<L", octets, octets.rfind(b"PK\x01\x02") + 42, 0xFFFFFFF0)
    path.write_bytes(octets)
    assert "could not be unpacked" in str(read_project(path).unreadable[0][1])
    path.write_bytes(b"PK no zip")
    with pytest.raises(PackageError, match=r"not an \.ispac"):
        read_project(path)


def test_without_defusedxml_the_extra_is_named(tmp_path: Path) -> None:
    """Nothing less safe is used instead."""
    code = f"""
import sys
sys.modules["defusedxml"] = None
from airflow_provider_smtpcm.ssis import read_package
read_package({str(PACKAGES / "mail_2014.dtsx")!r})
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "PackageError" in run.stderr
    assert "pip install 'airflow-provider-smtpcm[ssis]'" in run.stderr
