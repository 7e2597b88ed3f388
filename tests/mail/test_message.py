"""A mail is checked when it is made, and one error names all faults."""

from __future__ import annotations

import contextlib
import pickle
import time
from dataclasses import FrozenInstanceError, replace

import pytest

from airflow_provider_smtpcm.errors import MessageError, Phase
from airflow_provider_smtpcm.mail import Address, Attachment, Mail, Priority

JANE = "jane@corp.example"


def fault(**fields: object) -> str:
    with pytest.raises(MessageError) as caught:
        Mail(**{"to": JANE, **fields})  # type: ignore[arg-type]
    assert caught.value.phase is Phase.MESSAGE
    assert not caught.value.retryable
    return str(caught.value)


def test_a_mail_without_recipients_is_refused() -> None:
    """Blanks and separators name no recipient."""
    assert "no recipient" in fault(to=None)
    assert "no recipient" in fault(to=" ; ", cc=[], bcc="")


def test_all_faults_are_told_together_each_with_its_remedy() -> None:
    """One error has all of them."""
    message = fault(to="jane", subject="a\nb", priority="urgent", headers={"Subject": "x"}, attachments=7)

    assert message.count("\n  - ") == 5
    for part in ("To: ", "Subject: ", "Priority ", "Use subject.", "Attachments: ", "'high', 'normal', 'low'"):
        assert part in message
    assert "no recipient" not in message


def test_a_single_fault_is_the_error() -> None:
    """Without a list of one."""
    assert "\n" not in fault(subject="a\nb")


@pytest.mark.parametrize(
    "character", ["\r\n", "\n", "\r", "\0", "\t", "\x0b", "\x7f", "\x9f", "\u2028", "\u2029", "\ud800"]
)
def test_a_control_character_is_refused_in_everything_that_becomes_a_header(character: str) -> None:
    """A line break would begin another header; some servers fail at the others."""
    text = f"x{character}Bcc: eve@corp.example"
    kind = "lone surrogate" if character == "\ud800" else "control character"
    said = f"contains the {kind} U+{ord(character[0]):04X}"

    for name, label in (
        *(("from_address", "From"), ("to", "To"), ("cc", "Cc"), ("bcc", "Bcc"), ("reply_to", "Reply-To")),
        ("subject", "Subject"),
    ):
        message = fault(**{name: text})
        assert message.startswith(label) and said in message
    assert said in fault(headers={"X-Report": text})
    assert said in fault(headers={"Sender": text})
    assert "cannot be the name" in fault(headers={text: "x"})
    assert "message id" in fault(message_id=f"<a{character}@corp.example>")
    assert "content id" in fault(html="x", inline_images={text: "a.png"})
    assert said in fault(attachments=[f"a{character}.csv"])


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("From", "from_address"),
        ("TO", "Use to."),
        ("Cc", "Use cc."),
        ("bcc", "Use bcc"),
        ("Resent-Bcc", "Use bcc"),
        ("Reply-To", "reply_to"),
        ("Subject", "subject"),
        ("Message-Id", "message_id"),
        ("Importance", "priority"),
        ("X-Priority", "priority"),
        ("Priority", "priority"),
        ("Date", "leave it out"),
        ("MIME-Version", "leave it out"),
        ("Content-Type", "leave it out"),
        ("Content-Transfer-Encoding", "leave it out"),
        ("content-disposition", "leave it out"),
        ("Content-ID", "leave it out"),
        ("Content-Length", "leave it out"),
        ("Return-Path", "envelope_from"),
        ("Received", "leave it out"),
    ],
)
def test_a_header_that_the_package_writes_is_refused_with_the_field_to_use(name: str, remedy: str) -> None:
    """Each header can be set in one way only."""
    assert remedy in fault(headers={name: "x"})


@pytest.mark.parametrize("name", ["", "X Report", "X:Report", "X-Bericht-ü", "X" * 77, 7, None])
def test_a_header_needs_a_name(name: str) -> None:
    """RFC 5322 3.6.8: printable ASCII without blanks and colons."""
    assert "cannot be the name of a header" in fault(headers={name: "x"})


@pytest.mark.parametrize("headers", [7, "X-Report: x", b"x", ["X-Report"], [("a", "b", "c")]])
def test_headers_have_a_shape(headers: object) -> None:
    """A mapping or pairs."""
    assert "mapping or pairs" in fault(headers=headers)


def test_a_header_that_a_mail_has_once_is_given_once() -> None:
    """RFC 5322 3.6; others may be repeated."""
    assert "twice" in fault(headers=[("Auto-Submitted", "no"), ("auto-submitted", "no")])
    assert len(Mail(to=JANE, headers=[("X-Tag", "a"), ("X-Tag", "b")]).headers) == 2


@pytest.mark.parametrize(
    "message_id",
    [
        "",
        "a@b",
        "<a>",
        "<a@b",
        "<a b@c>",
        "<a@b>\r\n",
        "<a@b> x",
        "<a@@b>",
        "<ü@b>",
        "<a@>",
        "<>",
        7,
        f"<{'a' * 900}@b>",
    ],
)
def test_a_message_id_has_a_form(message_id: str) -> None:
    """RFC 5322 3.6.4."""
    assert "<left@right>" in fault(message_id=message_id)


@pytest.mark.parametrize("name", ["subject", "text", "html"])
@pytest.mark.parametrize("value", [7, b"text", ["text"]])
def test_text_is_text(name: str, value: object) -> None:
    """The encoding of bytes is unknown."""
    assert "must be text, not" in fault(**{name: value})


def test_half_a_character_or_a_nul_in_a_body_is_refused() -> None:
    """UTF-8 cannot encode the one, and many programs end the text at the other."""
    assert "Text contains the lone surrogate U+D83D" in fault(text="smile \ud83d")
    assert "Html contains the lone surrogate U+DC80" in fault(html="<p>\udc80</p>")
    assert "Text contains the control character U+0000" in fault(text="a\0b")
    assert "Html contains the control character U+0000" in fault(html="ü\0")


def test_images_need_an_html_that_shows_them() -> None:
    """Without html, nothing refers to them."""
    assert "no HTML" in fault(inline_images={"logo": "logo.png"})
    assert "no HTML" in fault(inline_images={"logo": "logo.png"}, html="", text="x")


@pytest.mark.parametrize(
    "html",
    [
        '<img src="cid:logo">',
        "<img src='CID:logo'>",
        "<img src=cid:logo>",
        '<td background="cid:logo">',
        '<p style="background: url(cid:logo)">',
        "<p style=\"background: url('cid:logo')\">",
        '<p style="background: url(&quot;cid:logo&quot;)">',
        '<img src="cid:%6Cogo">',
        '<img src="cid:l&#111;go">',
        "<IMG alt=it's SRC = 'cid:logo'/>",
        '<a title="a > b" href="cid:logo">',
        '<img srcset="cid:logo 2x">',
        "<style>td { background: url(cid:logo) }</style>",
        '<!--[if mso]><v:fill src="cid:logo"/><![endif]-->',
    ],
)
def test_an_html_that_refers_to_no_image_is_refused(html: str) -> None:
    """The recipient would see a broken picture."""
    assert "cid:logo" in fault(html=html)
    assert "cid:logo" in fault(html=html, inline_images={"other": "a.png"})
    assert Mail(to=JANE, html=html, inline_images={"logo": "a.png"}).inline_images[0].content_id == "logo"


@pytest.mark.parametrize(
    "html",
    [
        "<p>Account CID:4711, see acid:rain and cid: 5</p>",
        "KeyError: no customer with key=cid:4711",
        "<td>ref='cid:4711' or url(cid:4711)</td>",
        "<code>src=cid:logo &lt;img src='cid:logo'&gt;</code>",
        '<td title="key src=cid:4711">',
        '<td data-note="cid:4711" title=cid:4711>',
        '<a href="https://crm.example/?account=cid:4711">',
        "<!-- <img src='cid:old'> -->",
        "a < b src=cid:4711",
    ],
)
def test_cid_in_the_text_of_an_html_is_no_image(html: str) -> None:
    """`CID:` may be an abbreviation in a report, and "key=cid:4711" part of an exception."""
    assert Mail(to=JANE, html=html).html == html


@pytest.mark.parametrize(
    "part", ["<a ", "<!--", "<style", "<style>", "= ", '="', "='", "x", " ", "<a x=", 'src="cid:', "url( ", "url(cid:"]
)
def test_references_are_found_in_linear_time(part: str) -> None:
    """The text of an alert may be long, and anything."""
    started_at = time.monotonic()
    with contextlib.suppress(MessageError):
        Mail(to=JANE, html=f"<img title={part * 100_000} cid:")
    assert time.monotonic() - started_at < 5


def test_two_images_with_one_content_id_are_refused() -> None:
    """Even if one of them is an attachment."""
    html = '<img src="cid:logo">'

    assert "'logo'" in fault(
        html=html, inline_images=[Attachment("a.png", content_id="logo"), Attachment("b.png", content_id="logo")]
    )
    assert "'logo'" in fault(
        html=html, inline_images={"logo": "a.png"}, attachments=[Attachment("b.png", content_id="logo")]
    )


def test_priority_is_a_word_in_any_case() -> None:
    """SSIS writes High."""
    assert "'urgent'" in fault(priority="urgent")
    assert "Priority" in fault(priority=1)

    assert Mail(to=JANE, priority="High").priority is Priority.HIGH
    assert Priority(" LOW ") is Priority.LOW
    assert Mail(to=JANE).priority is Priority.NORMAL


def test_an_empty_mail_is_legal() -> None:
    """A mail may have no body and no subject."""
    mail = Mail(bcc=JANE)

    assert (mail.subject, mail.text, mail.html, mail.attachments, mail.from_address, mail.message_id) == (
        "",
        None,
        None,
        (),
        None,
        None,
    )


def test_a_mail_keeps_what_it_was_given_in_one_form() -> None:
    """Strings, lists and mappings become tuples."""
    mail = Mail(
        from_address="Reports <reports@corp.example>",
        to="a@corp.example; b@corp.example",
        cc=["c@corp.example"],
        reply_to=Address(local_part="d", domain="corp.example"),
        subject="  Daily report  ",
        attachments="a.csv|b.csv|",
        headers={"X-Report": " daily "},
        message_id="<a.b@[10.0.0.1]>",
    )

    assert mail.from_address == Address(display_name="Reports", local_part="reports", domain="corp.example")
    assert [address.address for address in (*mail.to, *mail.cc, *mail.reply_to)] == [
        f"{name}@corp.example" for name in "abcd"
    ]
    assert mail.subject == "Daily report"
    assert [attachment.name for attachment in mail.attachments] == ["a.csv", "b.csv"]
    assert mail.headers == (("X-Report", "daily"),)
    with pytest.raises(FrozenInstanceError):
        mail.subject = "other"  # type: ignore[misc]


def test_a_blank_sender_is_left_to_the_connection() -> None:
    """A template that renders to nothing means the default."""
    assert Mail(from_address=" ", to=JANE).from_address is None


def test_the_missing_sender_is_filled_in_by_replacing() -> None:
    """All else is unchanged."""
    mail = Mail(
        to=JANE,
        cc="Doe, Jane <j@corp.example>;",
        html='<img src="cid:a">',
        inline_images={"a": "a.png"},
        headers={"X-A": "b"},
    )
    filled = replace(mail, from_address="reports@corp.example", message_id="<a@b>")  # type: ignore[arg-type]

    assert filled.from_address is not None and filled.from_address.address == "reports@corp.example"
    assert replace(filled, from_address=None, message_id=None) == mail


def test_every_recipient_is_in_the_envelope_once() -> None:
    """In the order of To, Cc, Bcc; only the domain ignores the case of letters (RFC 5321 2.4)."""
    mail = Mail(
        to="Jane <jane@corp.example>; x@bücher.example",
        cc="jane@CORP.example; Jane@corp.example; x@xn--bcher-kva.example",
        bcc='"jane"@corp.example; eve@corp.example',
    )

    assert [recipient.address for recipient in mail.recipients] == [
        "jane@corp.example",
        "x@xn--bcher-kva.example",
        "Jane@corp.example",
        "eve@corp.example",
    ]


def test_a_mail_travels_between_processes() -> None:
    """Airflow pickles what it maps over."""
    mail = Mail(to=JANE, subject="x", attachments=[Attachment(content=b"x", name="a.csv")], priority="low")

    assert pickle.loads(pickle.dumps(mail)) == mail  # noqa: S301


def test_an_identity_that_is_wrong_is_refused() -> None:
    """Each of its three parts is checked."""
    mail = Mail(to=JANE)
    for changes in ({"from_address": "jane"}, {"reply_to": "a@b, c"}, {"message_id": "1"}):
        with pytest.raises(MessageError) as caught:
            mail.with_identity(**changes)  # type: ignore[arg-type]
        with pytest.raises(MessageError) as expected:
            replace(mail, **changes)
        assert str(caught.value) == str(expected.value)


def test_a_mail_with_another_identity_is_the_same_in_all_else() -> None:
    """All else is unchanged, and so is the original mail."""
    mail = Mail(to=JANE, cc="a@corp.example", subject="x", html="<p>", headers={"X-A": "b"}, priority="low")
    same = mail.with_identity()
    assert same == mail and same is not mail

    changes = {
        "from_address": "Jörg <j@corp.example>",
        "reply_to": ["h@corp.example"],
        "message_id": "<1@corp.example>",
    }
    changed = mail.with_identity(**changes)  # type: ignore[arg-type]
    assert changed == replace(mail, **changes)  # type: ignore[arg-type]
    assert changed.with_identity(message_id="<2@corp.example>").from_address == changed.from_address
    assert (mail.from_address, mail.reply_to, mail.message_id) == (None, (), None)


def test_a_mail_with_a_remote_file_has_remote_files() -> None:
    """As attachment or as image, but not for bytes and local paths."""

    class Stored:
        name = "a.png"

        def open(self, mode: str) -> None: ...

        def stat(self) -> None: ...

    near = Attachment(content=b"x", name="b.png")
    assert Mail(to=JANE, attachments=[near, Stored()]).has_remote_files
    assert Mail(to=JANE, html="x", inline_images=[near, Stored()]).has_remote_files
    assert not Mail(to=JANE).has_remote_files
    assert not Mail(to=JANE, html="x", attachments=[near, "/srv/a.csv"], inline_images=[near]).has_remote_files


def test_the_same_text_is_the_same_address_whatever_was_parsed_before() -> None:
    """The cache of addresses has only results: a fault is raised each time, with its own field."""
    for _ in range(2):
        with pytest.raises(MessageError, match=r"^From: "):
            Mail(to=JANE, from_address="jane")
        with pytest.raises(MessageError, match=r"^Reply-To: "):
            Mail(to=JANE, reply_to="jane")
        assert Mail(to=JANE, from_address="J <jane@corp.example>").from_address == Address(
            display_name="J", local_part="jane", domain="corp.example"
        )
        assert Mail(to=JANE, from_address=JANE).from_address == Address(local_part="jane", domain="corp.example")
