"""The inbox of the relay: what it answers, to whom, and that no mail can do it harm."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from airflow_provider_smtpcm.testing import ReceivedMail
from airflow_provider_smtpcm.testing import inbox as inbox_module
from airflow_provider_smtpcm.testing.inbox import Inbox, ParsedMail, make_safe_name, read_headers

HTML = b"Content-Type: text/html\r\n\r\n"
WITH_IMAGE = b"""\
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= & <b>more</b>\r
Content-Type: multipart/related; boundary=b\r
\r
--b\r
Content-Type: text/html; charset=iso-8859-1\r
\r
<!doctype html><link rel=preconnect href=//x.example><img src="cid:logo%40corp.example"><img src='cid:other'>\xfc\r
--b\r
Content-Type: image/png\r
Content-ID: <logo@corp.example>\r
Content-Transfer-Encoding: base64\r
\r
iVBORw0KGgo=\r
--b\r
Content-Type: text/html\r
Content-Disposition: attachment; filename="../../page.html"\r
\r
<script>alert(1)</script>\r
--b--\r
"""


def received(content: bytes = HTML, **fields: Any) -> ReceivedMail:
    """Return a mail from Alice to Bob."""
    values = {
        "mail_from": "alice@corp.example",
        "recipients": ("bob@corp.example",),
        "authenticated_as": r"CORP\alice",
        "mechanism": "NTLM",
        "tls_version": "TLSv1.3",
        "helo_name": "worker",
    }
    return ReceivedMail(content=content, **values | fields)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as inbox:
        yield inbox


@contextmanager
def asking(inbox: Inbox, path: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
    """Send a GET, and yield the response while the connection is open."""
    connection = http.client.HTTPConnection("127.0.0.1", int(inbox.url.rpartition(":")[2].strip("/")), timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        yield connection.getresponse()
    finally:
        connection.close()


def get(inbox: Inbox, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Return status, header fields and body."""
    with asking(inbox, path, **headers) as response:
        return response.status, response.headers, response.read()


def show(inbox: Inbox, number: int = 1) -> dict[str, Any]:
    """Return what the page gets of a mail."""
    status, _, body = get(inbox, f"/mails/{number}")
    assert status == 200
    mail: dict[str, Any] = json.loads(body)
    return mail


def next_event(events: http.client.HTTPResponse) -> tuple[str, dict[str, Any]]:
    """Wait for a server-sent event; return its id and its data."""
    lines = [events.readline().decode() for _ in range(3)]
    assert lines[2] == "\n"
    return lines[0].removeprefix("id: ").strip(), json.loads(lines[1].removeprefix("data: "))


# --- The list


def test_a_mail_is_announced_to_every_browser_when_it_arrives(inbox: Inbox) -> None:
    """With envelope, subject, size, and how its session was authenticated and encrypted."""
    inbox.add(received())
    with asking(inbox, "/events") as one, asking(inbox, "/events") as other:
        assert [len(next_event(events)[1]["mails"]) for events in (one, other)] == [1, 1]
        inbox.add(received(b"Subject: Load =?utf-8?q?f=C3=A4llt?=\r\n aus\r\n\r\n"))
        for events in (one, other):
            _, change = next_event(events)
            [mail] = change["mails"]
            assert not change["all"]
            assert (mail["number"], mail["from"], mail["to"]) == (2, "alice@corp.example", "bob@corp.example")
            assert (mail["subject"], mail["size"]) == ("Load fällt aus", 46)
            assert (mail["user"], mail["mechanism"], mail["tls"]) == (r"CORP\alice", "NTLM", "TLSv1.3")


def test_a_browser_that_connects_again_gets_what_it_lacks(inbox: Inbox) -> None:
    """By the id of the last event; the id of another run of the relay counts for nothing."""
    for _ in range(3):
        inbox.add(received())
    with asking(inbox, "/events") as events:
        last_id, change = next_event(events)
        assert change["all"]
    inbox.add(received())
    for sent, numbers in ((last_id, [4]), (f"0-{last_id.partition('-')[2]}", [1, 2, 3, 4]), ("4" * 999, [1, 2, 3, 4])):
        with asking(inbox, "/events", **{"Last-Event-ID": sent}) as events:
            _, change = next_event(events)
            assert [mail["number"] for mail in change["mails"]] == numbers
            assert change["all"] == (sent != last_id)


def test_it_knows_whether_a_browser_shows_it(inbox: Inbox) -> None:
    """As long as the browser is connected."""
    assert not inbox.is_watched
    inbox.wait_until_unwatched()
    with asking(inbox, "/events") as events:
        next_event(events)
        assert inbox.is_watched
    inbox.wait_until_unwatched()
    assert not inbox.is_watched


def test_it_ends_although_a_browser_shows_it() -> None:
    """The browser gets the end of the stream."""
    with Inbox() as inbox:
        open_page = asking(inbox, "/events")
        events = open_page.__enter__()
        next_event(events)
    assert events.read() == b""
    open_page.__exit__(None, None, None)


def test_the_oldest_of_thousands_of_mails_are_dropped(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list and the memory are bounded, and the page learns which ones it still can open."""
    monkeypatch.setattr(inbox_module, "KEPT_MAILS", 100)
    for _ in range(5000):
        inbox.add(received())
    with asking(inbox, "/events") as events:
        _, change = next_event(events)
        assert [mail["number"] for mail in change["mails"]] == list(range(4901, 5001))
        assert change["oldest"] == 4901
        monkeypatch.setattr(inbox_module, "KEPT_OCTETS", 1_000_000)
        inbox.add(received(b"x" * 999_900))
        _, change = next_event(events)
        assert change["oldest"] > 4990
        inbox.add(received(b"x" * 2_000_000))
        _, change = next_event(events)
        assert change["oldest"] == 5002
    assert get(inbox, "/mails/5001")[0] == 404
    assert get(inbox, "/mails/5002")[0] == 200


# --- Who may ask


@pytest.mark.parametrize("path", ["/", "/events", "/mails/1", "/mails/1/html", "/mails/1/parts/0", "/mails/1/source"])
def test_a_page_of_another_host_cannot_read_mails_by_dns_rebinding(inbox: Inbox, path: str) -> None:
    """Its name is in the Host field, whatever address the name resolves to."""
    inbox.add(received())
    for host in ("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1]"):
        status, _, body = get(inbox, path, Host=host)
        assert (status, body) == (400, b"Invalid host header")
    for host in ("localhost", "127.0.0.1:1"):
        with asking(inbox, path, Host=host) as response:
            assert response.status == 200


def test_it_listens_on_the_loopback_interface_alone(inbox: Inbox) -> None:
    """And says so if it cannot."""
    port = int(inbox.url.rpartition(":")[2].strip("/"))
    assert inbox.url == f"http://127.0.0.1:{port}/"
    with (
        pytest.raises(OSError, match=rf"^The inbox cannot listen on 127\.0\.0\.1, port {port}: .* Choose another port"),
        Inbox(port),
    ):
        pass


def test_every_answer_forbids_what_it_does_not_need(inbox: Inbox) -> None:
    """No guess of a type, no copy in a cache, no referrer, and a policy without scripts but that of the page."""
    inbox.add(received(WITH_IMAGE))
    for path in ("/", "/mails/1", "/mails/1/html", "/mails/1/parts/0", "/mails/1/parts/1", "/mails/1/source"):
        status, headers, _ = get(inbox, path)
        content_policy = headers["Content-Security-Policy"]
        assert status == 200
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in content_policy
        assert ("script-src" in content_policy) == (path == "/")
        assert "unsafe-inline" not in content_policy.replace("style-src 'unsafe-inline'", "")
        if path != "/":
            assert re.match(r"sandbox(;| allow-popups allow-popups-to-escape-sandbox;)", content_policy)


@pytest.mark.parametrize("path", ["/mails/2", "/mails/0", "/mails/x", "/mails/-1", "/mails/" + "9" * 5000, "/x"])
def test_what_is_not_there_is_404(inbox: Inbox, path: str) -> None:
    """Whatever number is asked for."""
    inbox.add(received())
    assert get(inbox, path)[0] == 404
    assert get(inbox, f"/mails/1/parts/{path.rpartition('/')[2]}")[0] == (200 if path == "/mails/0" else 404)


# --- A mail


def test_a_mail_is_shown_with_its_parts(inbox: Inbox) -> None:
    """Header fields are decoded, and text stays text."""
    inbox.add(received(WITH_IMAGE, recipients=tuple(f"{n}@corp.example" for n in range(9))))
    mail = show(inbox)
    assert mail["subject"] == "Grüße & <b>more</b>"
    assert mail["headers"][0] == ["Subject", "Grüße & <b>more</b>"]
    assert mail["to"].count("@") == 9
    assert mail["helo"] == "worker"
    assert (mail["html"], mail["text"], mail["fault"]) == (True, None, "")
    assert [(each["part"], each["name"], each["size"]) for each in mail["attachments"]] == [
        (1, "image.png", 8),
        (2, "page.html", 25),
    ]
    assert mail["source"].encode().startswith(b"Subject: =?utf-8?q?Gr")


def test_its_html_gets_its_inline_images_and_its_links_a_new_tab(inbox: Inbox) -> None:
    """It is sent as UTF-8, begins with its document type, and connects to no other host."""
    inbox.add(received(WITH_IMAGE))
    _, headers, body = get(inbox, "/mails/1/html")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert body.decode().strip() == (
        '<!doctype html><base target="_blank"><inert-link rel=preconnect href=//x.example>'
        f"<img src=\"{inbox.url}mails/1/parts/1\"><img src='cid:other'>ü"
    )
    assert f"img-src {inbox.url}mails/1/parts/ data:;" in headers["Content-Security-Policy"]


def test_attachments_are_downloaded_and_never_shown(inbox: Inbox) -> None:
    """HTML of a part does not run in the origin of the inbox; a part that is no image has no type at all."""
    inbox.add(received(WITH_IMAGE))
    for part, kind, name in ((0, "application/octet-stream", "text.html"), (1, "image/png", "image.png")):
        _, headers, _ = get(inbox, f"/mails/1/parts/{part}")
        assert headers["Content-Type"] == kind
        assert headers["Content-Disposition"] == f"attachment; filename=\"{name}\"; filename*=UTF-8''{name}"
    _, headers, body = get(inbox, "/mails/1/parts/2")
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"].startswith('attachment; filename="page.html"')
    assert body == b"<script>alert(1)</script>"


def test_the_source_is_the_mail_as_it_was_received(inbox: Inbox) -> None:
    """Octet for octet."""
    inbox.add(received(WITH_IMAGE))
    _, headers, body = get(inbox, "/mails/1/source")
    assert body == WITH_IMAGE
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"].startswith('attachment; filename="0001.eml"')


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("report.pdf", "report.pdf"),
        ("Übersicht – März.xlsx", "Übersicht – März.xlsx"),
        ("../../.ssh/authorized_keys", "authorized_keys"),
        ("/etc/passwd", "passwd"),
        (r"C:\Windows\win.ini", "win.ini"),
        (r"..\..\x", "x"),
        (".bashrc", "bashrc"),
        ("..", "attachment"),
        ("a/", "attachment"),
        ("", "attachment"),
        ("a\r\nSet-Cookie: x", "a__Set-Cookie_ x"),
        ("invoice\u202efdp.exe", "invoice_fdp.exe"),
        ('a"; filename="b', "a_; filename=_b"),
        ("a\ud800\0", "a__"),
        ("x" * 5000 + ".pdf", "x" * 80 + ".pdf"),
        ("x" * 5000, "x" * 100),
        ("a." + "x" * 5000, "a." + "x" * 19),
    ],
)
def test_the_name_of_an_attachment_is_made_safe(name: str, safe: str) -> None:
    """No folder, no control or invisible character, nothing hidden, and not endless."""
    assert make_safe_name(name) == safe


@pytest.mark.parametrize(
    "parameter",
    [b"filename*=UTF-8''%2e%2e%2f%c3%bc%0d%0a.pdf", b'filename="=?utf-8?q?..=2F=C3=BC=0D=0A.pdf?="'],
)
def test_an_encoded_name_is_made_safe_too(inbox: Inbox, parameter: bytes) -> None:
    """RFC 2231 and RFC 2047; the field of the response is ASCII, and has the name in UTF-8 besides."""
    inbox.add(received(b"Content-Type: text/x\r\nContent-Disposition: attachment; " + parameter + b"\r\n\r\nx"))
    _, headers, _ = get(inbox, "/mails/1/parts/0")
    assert headers["Content-Disposition"] == "attachment; filename=\"___.pdf\"; filename*=UTF-8''%C3%BC__.pdf"


# --- Hostile mails


def nested(depth: int, body: bytes) -> bytes:
    """Return a mail of multiparts in multiparts."""
    return (
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(depth))
        + b"\n"
        + body
    )


HOSTILE = {
    "nothing": b"",
    "no header": b"\r\n\r\nx",
    "nulls": b"\0" * 1000,
    "no line": b"x" * 2_000_000,
    "empty lines": b"\n" * 2_000_000,
    "long subject": b"Subject: " + b"=?utf-8?q?a?= " * 500_000,
    "broken words": b"Subject: =?utf-8?b?A?= =?no-such?q?=FF?= =?punycode?q?a-?= =?hex?q?x?= \xff",
    "many fields": b"a: b\n" * 200_000 + b"\nx",
    "many parameters": b"Content-Disposition: attachment;" + b"".join(b"filename*%d=a;" % n for n in range(60_000)),
    "quoted parameters": b"Content-Type: text/html; " + b'a="b;c"; ' * 200_000 + b"\n\nx",
    "unknown charset": b"Content-Type: text/html; charset=no-such\n\n\xff",
    "slow charset": b"Content-Type: text/html; charset=punycode\n\n" + b"a-" * 1_000_000,
    "surrogates": b"Content-Type: text/html; charset=unicode_escape\n\n\\ud800",
    "charset with a null": b"Content-Type: text/html; charset=a\0b\n\nx",
    "bad base64": b"Content-Type: text/html\nContent-Transfer-Encoding: base64\n\nA",
    "no boundary": b"Content-Type: multipart/mixed\n\n--\n\nx",
    "no end": b"Content-Type: multipart/mixed; boundary=b\n\n--b\n",
    "many parts": b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n" * 200_000,
    "many reports": b"Content-Type: message/delivery-status\n\n" + b"a:b\n\n" * 200_000,
    "mails in mails": b"Content-Type: message/rfc822\n\n" * 5000,
    "deep": nested(5000, b"x"),
    "many images": HTML + b"=cid:x " * 500_000,
    "broken parameter": b"Content-Type: text/html; charset*=x'y\nContent-Disposition: attachment; filename*=%\n\nx",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.timeout(120)
def test_a_hostile_mail_is_shown_as_far_as_it_can_be_read(inbox: Inbox, content: bytes) -> None:
    """At least with its source, which can be downloaded; the next mail is shown as usual."""
    inbox.add(received(content))
    inbox.add(received(WITH_IMAGE))
    mail = show(inbox)
    assert len(json.dumps(mail)) < 6_000_000
    assert len(mail["subject"]) <= 301
    assert mail["source"][:10].encode(errors="replace")[:5] == content.decode(errors="replace")[:10].encode()[:5]
    assert get(inbox, "/mails/1/html")[0] == 200
    assert all(get(inbox, f"/mails/1/parts/{each['part']}")[0] == 200 for each in mail["attachments"])
    assert get(inbox, "/mails/1/source")[2] == content
    assert show(inbox, 2)["subject"] == "Grüße & <b>more</b>"


def test_a_mail_that_takes_long_to_parse_is_not_parsed_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is compared with each boundary; the source of the mail is shown, and why it is all."""
    monkeypatch.setattr(inbox_module, "PARSING_TIME", 0.1)
    parsed = ParsedMail.parse(nested(90, b"--x\n" * 900_000))
    assert (parsed.parts, parsed.fault) == ((), "Parsing it takes more than 0.1 s.")
    assert ParsedMail.parse(nested(90, b"--x\n")).fault == ""


def test_header_fields_are_looked_for_at_the_beginning_only() -> None:
    """A field that is folded is one field; the body has none."""
    assert read_headers(b"A: b\r\n c\r\nD:e\r\n\r\nF: g") == [("A", "b c"), ("D", "e")]
    assert read_headers(b"A: b\n\tc\n\nF: g") == [("A", "b\tc")]
    assert read_headers(b"\r\nF: g") == []
    assert sum(len(value) for _, value in read_headers(b"a: " + b"x" * 1_000_000)) <= 4001
    assert len(read_headers(b"a: b\n" * 1_000_000)) < 20_000
