"""The user name that NTLMv2 hashes is in capitals as Windows writes them (MS-NLMP 3.3.2, MS-UCODEREF 3.1.5.3)."""

from __future__ import annotations

import hashlib
import hmac
import struct

import pytest

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.smtp.auth.ntlm import (
    compute_nt_hash,
    convert_to_upper_case,
    create_ntlm_context,
    find_ntlm_identity,
)
from tests.smtp.auth.test_sasl import CHALLENGE

#: SHA-256 of Windows' table: the capital of each UTF-16 code unit, as 65,536 words, low octet first. Microsoft has
#: published it as "Windows 8 Upper Case Mapping Table.txt"; each NTFS volume has it too, as its file $UpCase.
WINDOWS_TABLE = "41c26bc7a12bdaeb26025c93118697c7e3ef81ee048b00fe5cce2a472e0e0742"
#: What Samba's and Windows' tables leave as it is, and `str.upper` does not.
UNCHANGED = [
    "ß", "ŉ", "ǰ", "ΐ", "ΰ", "և", "ẖ", "ὐ", "ﬀ", "ﬁ", "ﬃ", "ﬅ", "ﬓ", "ı", "ſ", "µ", "ǅ", "ǈ", "ǋ", "ǲ",
    "ϐ", "ϑ", "ϰ", "ẛ", "\u1fbe", "ნ", "ᏸ", "ꭰ", "ᲀ", "ɡ", "ԥ", "𐐨", "𞤢",
]  # fmt: skip


def test_each_code_unit_has_the_capital_of_windows_own_table() -> None:
    """In every version of Python, whatever its version of Unicode."""
    table = [unit if 0xD800 <= unit < 0xE000 else ord(convert_to_upper_case(chr(unit))) for unit in range(0x10000)]
    assert hashlib.sha256(struct.pack("<65536H", *table)).hexdigest() == WINDOWS_TABLE


@pytest.mark.parametrize("letter", UNCHANGED)
def test_a_letter_without_a_capital_of_its_own_stays_as_it_is(letter: str) -> None:
    """Python writes it as several letters, as a letter of Unicode 5.2 or later, or as one that others share."""
    assert letter.upper() != letter
    assert convert_to_upper_case(letter) == letter


@pytest.mark.parametrize(
    ("name", "capitals"),
    [
        ("alice", "ALICE"),
        ("jürgen", "JÜRGEN"),
        ("straße", "STRAßE"),
        ("σοφος", "ΣΟΦΟς"),  # also the sigma at the end of a word
        ("ᾳ", "ᾼ"),  # Python's capital is two letters, alpha and iota
        ("ștefan", "ȘTEFAN"),
        ("ẞ", "ẞ"),
        ("İ", "İ"),
    ],
)
def test_other_letters_have_their_capitals(name: str, capitals: str) -> None:
    """Including those whose capital Python writes otherwise."""
    assert convert_to_upper_case(name) == capitals


@pytest.mark.parametrize("mechanism", ["NTLM", "GSSAPI"])
@pytest.mark.parametrize(
    "account", ["CORP\\groß", "groß@corp.example", "groß", "GROß\\ﬁlip", "CORP\\𐐨zoe", "corp\\ALICE"]
)
def test_the_response_is_computed_from_that_name_and_the_domain_as_it_was_written(account: str, mechanism: str) -> None:
    """NTOWFv2 has only the user name in capitals."""
    manager = SmtpConnectionManager(host="h", auth_mode=AuthMode.WINDOWS, login=account, password="correct horse")
    context, _ = create_ntlm_context(manager, find_ntlm_identity(manager), None, mechanism=mechanism)
    message = context.step(CHALLENGE) or b""
    proof, temp = field(message, 20)[:16], field(message, 20)[16:]
    domain, _, user = account.rpartition("\\")
    assert (field(message, 28), field(message, 36)) == (domain.encode("utf-16-le"), user.encode("utf-16-le"))
    nt_hash = bytes.fromhex(compute_nt_hash("correct horse"))
    key = md5_hmac(nt_hash, (convert_to_upper_case(user) + domain).encode("utf-16-le"))
    assert proof == md5_hmac(key, CHALLENGE[24:32] + temp)


def test_a_password_that_looks_like_hashes_is_hashed_as_any_other() -> None:
    """Where pyspnego would take its second half for the NT hash."""
    password = ":".join(["a4f49c406510bdcab6824ee7c30fd852"] * 2)
    manager = SmtpConnectionManager(host="h", auth_mode=AuthMode.WINDOWS, login="CORP\\alice", password=password)
    context, _ = create_ntlm_context(manager, find_ntlm_identity(manager), None, mechanism="NTLM")
    message = context.step(CHALLENGE) or b""
    proof, temp = field(message, 20)[:16], field(message, 20)[16:]
    key = md5_hmac(bytes.fromhex(compute_nt_hash(password)), "ALICECORP".encode("utf-16-le"))
    assert proof == md5_hmac(key, CHALLENGE[24:32] + temp)


def field(message: bytes, position: int) -> bytes:
    """Return the field of an AUTHENTICATE_MESSAGE whose length and offset are at a position (MS-NLMP 2.2.1.3)."""
    length, _, offset = struct.unpack_from("<HHI", message, position)
    return message[offset : offset + length]


def md5_hmac(key: bytes, data: bytes) -> bytes:
    """Return HMAC_MD5 of MS-NLMP 6."""
    return hmac.new(key, data, "md5").digest()
