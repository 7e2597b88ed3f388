"""Parsers of mail that share no code with this package or with each other, each run as its own program."""

from __future__ import annotations

import base64
import email.policy
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TIMEOUT = 60

# Both print JSON: the header fields that were asked for, decoded; then each part that is not multipart.
_EMAIL_MIME = r"""
use strict; use warnings; use Email::MIME; use JSON::PP; use MIME::Base64;
binmode STDIN; my $octets = do { local $/; <STDIN> };
my $mail = Email::MIME->new($octets);
my @parts;
$mail->walk_parts(sub {
  my ($part) = @_;
  return if $part->content_type && $part->content_type =~ m{^multipart/}i;
  my $type = Email::MIME::ContentType::parse_content_type($part->content_type // 'text/plain');
  push @parts, {
    name => $part->filename, type => lc "$type->{type}/$type->{subtype}", charset => $type->{attributes}{charset},
    body => encode_base64($part->body, ''),
  };
});
my %fields = map { $_ => scalar $mail->header_str($_) } @ARGV;
print JSON::PP->new->ascii->encode({ fields => \%fields, parts => \@parts });
"""
_MIME_TOOLS = r"""
use strict; use warnings; use MIME::Parser; use MIME::WordDecoder; use JSON::PP; use MIME::Base64; use Encode;
binmode STDIN; my $octets = do { local $/; <STDIN> };
my $parser = MIME::Parser->new;
$parser->output_to_core(1); $parser->tmp_to_core(1); $parser->extract_nested_messages(0);
my $mail = $parser->parse_data($octets);
sub text { my $value = shift; return undef unless defined $value; chomp $value; $value =~ s/\r?\n(?=[ \t])//g;
  my $decoded = mime_to_perl_string($value); return $decoded }
my @parts;
for my $part (grep { !$_->is_multipart } $mail->parts_DFS) {
  my $name = $part->head->recommended_filename;
  push @parts, {
    name => $name, type => lc $part->mime_type, charset => $part->head->mime_attr('content-type.charset'),
    body => encode_base64($part->bodyhandle ? $part->bodyhandle->as_string : '', ''),
  };
}
my %fields = map { $_ => text(scalar $mail->head->get($_)) } @ARGV;
print JSON::PP->new->ascii->encode({ fields => \%fields, parts => \@parts });
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is not multipart."""

    name: str | None
    type: str
    charset: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser reads: the header fields that were asked for, and the parts."""

    fields: Mapping[str, str]
    parts: list[Part]


def read_by_python(octets: bytes, names: list[str]) -> Parsed:
    """Read with Python's `email`."""
    message = message_from_bytes(octets, EmailMessage, policy=email.policy.default)
    parts: list[Part] = []

    def add(part: Any) -> None:
        if part.get_content_maintype() == "multipart":
            for each in part.iter_parts():
                add(each)
            return
        body = part.get_payload(decode=True)
        if part.get_content_type() == "message/rfc822":
            body = part.get_payload(0).as_bytes(policy=email.policy.SMTP.clone(max_line_length=0, refold_source="none"))
        parts.append(Part(part.get_filename(), part.get_content_type(), part.get_content_charset(), body))

    add(message)
    return Parsed({name: str(message[name]) for name in names}, parts)


def read_by_email_mime(octets: bytes, names: list[str]) -> Parsed:
    """Read with Perl's Email::MIME."""
    return _read_by_perl(_EMAIL_MIME, octets, names)


def read_by_mime_tools(octets: bytes, names: list[str]) -> Parsed:
    """Read with Perl's MIME-tools, which mail filters use."""
    return _read_by_perl(_MIME_TOOLS, octets, names)


def _read_by_perl(program: str, octets: bytes, names: list[str]) -> Parsed:
    output = _run(["perl", "-e", program, *names], octets)
    found = json.loads(output)
    return Parsed(
        found["fields"], [Part(**(part | {"body": base64.b64decode(part["body"])})) for part in found["parts"]]
    )


def extract_by_ripmime(octets: bytes) -> dict[str, bytes]:
    """Return the files that ripmime writes, by their names."""
    with TemporaryDirectory() as folder:
        _run(["ripmime", "-i", "-", "-d", folder, "--no-paranoid"], octets)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _run(command: list[str], octets: bytes) -> bytes:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, input=octets, capture_output=True, timeout=TIMEOUT, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


READERS: dict[str, Callable[[bytes, list[str]], Parsed]] = {
    "Python's email": read_by_python,
    "Email::MIME": read_by_email_mime,
    "MIME-tools": read_by_mime_tools,
}

#: Run by Debian's own Python, for which Debian has dkimpy: `sign` or `verify`, the private or the public key as files.
DKIM_PROGRAM = """
import sys, dkim
octets = sys.stdin.buffer.read()
if sys.argv[1] == "sign":
    key = open(sys.argv[2], "rb").read()
    canonicalization = tuple(part.encode() for part in sys.argv[3].split("/"))
    names = [name.encode() for name in sys.argv[4:]]
    signature = dkim.sign(
        octets, b"test", b"corp.example", key, include_headers=names, canonicalize=canonicalization
    )
    sys.stdout.buffer.write(signature)
else:
    record = open(sys.argv[2], "rb").read()
    sys.exit(0 if dkim.verify(octets, dnsfunc=lambda name, timeout=5: record) else 1)
"""
SYSTEM_PYTHON = "/usr/bin/python3"


def sign_by_dkimpy(octets: bytes, private_key: Path, canonicalization: str, names: list[str]) -> bytes:
    """Return the message with a DKIM signature.

    Args:
        private_key: a PEM file.
        canonicalization: of header and body, such as `relaxed/simple`.
        names: the header fields to sign.
    """
    return (
        _run([SYSTEM_PYTHON, "-c", DKIM_PROGRAM, "sign", str(private_key), canonicalization, *names], octets) + octets
    )


def is_verified_by_dkimpy(octets: bytes, record: Path) -> bool:
    """Whether dkimpy verifies the signature of a message.

    Args:
        record: a file with the TXT record of the key.
    """
    command = [SYSTEM_PYTHON, "-c", DKIM_PROGRAM, "verify", str(record)]
    return subprocess.run(command, input=octets, timeout=TIMEOUT, check=False).returncode == 0


def missing() -> str | None:
    """Return what this machine lacks of the parsers, or None."""
    lacking = [] if shutil.which("ripmime") else ["ripmime"]
    modules = ("Email::MIME", "MIME::Parser")
    lacking += [f"Perl's {module}" for module in modules if not _succeeds(["perl", f"-M{module}", "-e", "1"])]
    if not _succeeds([SYSTEM_PYTHON, "-c", "import dkim"]):
        lacking.append("dkimpy")
    return ", ".join(lacking) or None


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False).returncode == 0
    except OSError:
        return False
