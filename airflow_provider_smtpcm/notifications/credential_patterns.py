"""Redacts credentials in text by their form, even those that Airflow's secrets masker does not know.

A mail reaches more readers than a log. What drivers, clients, shells and configuration files show in errors is
redacted: passwords in URLs, headers, `name=value` and `name: value` in every notation, command lines, and keys and
tokens of well-known forms. Sentences are kept (`password: authentication failed`, `the token expired`), since an alert
must give the reason. The shell's `PWD=/home/etl` is kept too.

The text may be megabytes of arbitrary content, so no pattern may backtrack without bound: each repetition is limited,
or can match in only one way. The value of a name, once redacted, is not searched for further names.
"""

from __future__ import annotations

import base64
import re

# Replaces a credential.
_REDACTED = "***"

# --- Names of credentials. `token_count`, `password_file` and `primary_key` end in another word and do not match.

_NAMES_OF_PASSWORDS = (
    r"pass(?:word|wd|phrase|code)s?|pwd|(?<![A-Za-z])pass|(?<=[a-z])(?-i:Pass)"
    r"|(?<![A-Za-z])(?:admin|conn|db|ftp|ldap|mail|my|mysql|pg|root|smtp|ssh|sudo|user)pass"
    r"|(?<![A-Za-z])pw(?![A-Za-z])"
)
_NAMES_OF_KEYS = (
    r"(?:access|account|api|auth|encryption|fernet|license|master|private|secret|service|shared|signing|ssh|storage"
    r"|subscription)[_-]?(?:access[_-]?)?keys?"
)
_NAMES_OF_TOKENS = rf"secrets?|token|{_NAMES_OF_KEYS}|credentials?|(?:nt|lm|ntlm)[_-]?hash"
_NAME_SUFFIX = r"(?:[_-]?(?:value|text|hash|b64|base64|plain|plaintext|encoded|encrypted)|_?\d{1,3})?"


def redact_credentials(text: str) -> str:
    """Return the text with `***` in place of every credential. Servers, users and everything else are kept."""
    return _redact_named_values(_redact_known_forms(text))


def _redact_known_forms(text: str) -> str:
    """Redact keys and tokens of well-known forms, headers, XML elements, URLs and command lines."""
    for pattern, replacement in _KNOWN_FORMS:
        text = pattern.sub(replacement, text)
    text = _BASIC_AUTH.sub(_redact_basic_auth, text)
    if "//" in text and "@" in text:
        text = _NON_BLANKS.sub(_redact_userinfo, text)
    return _redact_command_options(text)


# --- Credentials that are recognized by their own form, not by a name before them

_AUTH_SCHEMES = "basic|bearer|negotiate|ntlm|token|apikey|api-key|aws4-hmac-sha256|sharedkey|sharedaccesssignature"
_HEADER_SEPARATOR = r"\\{0,15}['\"]?\s{0,3}[:=,]\s{0,3}b?\\{0,15}['\"]?"
# The value of a header ends at the closing quote, or at the end of the line.
_HEADER_VALUE = r"(?:[^\n'\"\\]|\\[^\n'\"]|[\"'](?=[\w./+=-]))+"
_BARE_HEADER_VALUE = r"(?=[^\s'\"]{0,512}[\d._~+/=])[^\s'\",;]{4,}"
_CREDENTIAL_NAME = rf"(?:{_NAMES_OF_PASSWORDS}|{_NAMES_OF_TOKENS}){_NAME_SUFFIX}"

_KNOWN_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)"
            r"(?:(?!-----END)[\s\S]){0,20000}(-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?"
        ),
        r"\1***\2",
    ),
    (re.compile(r"(jdbc:oracle:\w{1,10}:[^\s/:@'\"]{1,128}/)[^\s'\"]{1,256}@"), r"\1***@"),
    (re.compile(rf"(?i)((?:proxy-)?authorization{_HEADER_SEPARATOR})digest\s[^\n]+"), r"\1***"),
    (
        re.compile(
            rf"(?i)((?:proxy-)?authorization{_HEADER_SEPARATOR})(?:{_AUTH_SCHEMES})\s(?!auth|is\b|not\b)(?:{_HEADER_VALUE})"
        ),
        r"\1***",
    ),
    (re.compile(rf"(?i)((?:proxy-)?authorization{_HEADER_SEPARATOR}){_BARE_HEADER_VALUE}"), r"\1***"),
    (re.compile(rf"(?i)(\b(?:set-)?cookie{_HEADER_SEPARATOR})(?=[^\s=]{{1,256}}=){_HEADER_VALUE}"), r"\1***"),
    (re.compile(r"(?i)(\b(?:bearer|token) )(?=[^\s]{0,512}[\d._~+/=])[\w.~+/=-]{8,}"), r"\1***"),
    (re.compile(r"(?i)(\bnegotiate )[A-Za-z0-9+/]{20,}={0,2}"), r"\1***"),
    # NTLM messages: base64 of "NTLMSSP"
    (re.compile(r"TlRMTVNTUA[A-Za-z0-9+/]{8,}={0,2}"), _REDACTED),
    # JSON web tokens: base64 of '{"'
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)*"), _REDACTED),
    # AWS access key ids
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), _REDACTED),
    # Tokens that begin with a vendor's prefix: GitHub, GitLab, Slack, Google, Stripe, OpenAI, SendGrid, Databricks,
    # npm, PyPI, Hugging Face, DigitalOcean
    (
        re.compile(
            r"\b(?:gh[opsur]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,}|AIza[\w-]{30,}"
            r"|ya29\.[\w-]{10,}|[rs]k_(?:live|test)_\w{10,}|sk-[\w-]{20,}|SG\.[\w-]{10,}\.[\w-]{10,}|dapi[0-9a-f]{32}"
            r"|npm_\w{30,}|pypi-[\w-]{30,}|hf_\w{30,}|dop_v1_\w{30,}|AccountKey-[\w+/=]{20,})"
        ),
        _REDACTED,
    ),
    (
        re.compile(
            r"(\bAUTH (?:PLAIN|LOGIN|CRAM-MD5|XOAUTH2|OAUTHBEARER|NTLM|GSSAPI|GSS-SPNEGO) )(?=\S{0,256}[a-z0-9=])"
            r"[A-Za-z0-9+/]{4,}={0,2}"
        ),
        r"\1***",
    ),
    (re.compile(r"(?i)(\bcookies?['\"]?\s{0,3}[=:]\s{0,3})\{[^{}\n]{1,2000}\}"), r"\1***"),
    (re.compile(r"(\b(?:SecretStr|SecretBytes|Secret|Password)\()b?(?:'[^'\n]+'|\"[^\"\n]+\")"), r"\1***"),
    # user:password@host:port or user:password@host/, without a URL scheme
    (
        re.compile(
            r"(?<![\w./:@-])(?!mailto:|sips?:|xmpp:)([\w.-]{1,64}:)[^\s:@/'\"<>]{1,128}@(?=[\w.-]{1,100}(?::\d{2,5}|/))"
        ),
        r"\1***@",
    ),
    (re.compile(r"(hooks\.slack\.com/services/)[\w/]{10,}"), r"\1***"),
    (re.compile(r"([?&](?:key|code|assertion|hmac|SAMLResponse)=)[^\s&'\"<>]{8,}"), r"\1***"),
    # <password>x</password>, <add key="password" value="x"/>, <item name="password">x</item>
    (
        re.compile(
            rf"(?i)(<(?:[\w.-]{{1,40}}:)?[\w.-]{{0,60}}(?:{_CREDENTIAL_NAME})(?:\s[^<>]{{0,300}})?(?<!/)>)[^<]+"
        ),
        r"\1***",
    ),
    (
        re.compile(
            rf"(?i)(\b(?:name|key|id)=[\"'][^\"'<>]{{0,100}}(?:{_CREDENTIAL_NAME})[\"'][^<>]{{0,200}}?\bvalue=)"
            r"(?:\"[^\"<>\n]*\"|'[^'<>\n]*')"
        ),
        r"\1***",
    ),
    (
        re.compile(
            rf"(?i)(<[^<>]{{1,100}}\b(?:name|key|id)=[\"'][^\"'<>]{{0,100}}(?:{_CREDENTIAL_NAME})[\"'][^<>]{{0,200}}(?<!/)>)[^<]+"
        ),
        r"\1***",
    ),
    # The second item of a pair: auth=('user', 'x'), HTTPBasicAuth('user', 'x'), ('password', 'x')
    (
        re.compile(
            r"(?i)(auth\w{0,20}\s{0,2}=?\s{0,2}\(\s{0,4}['\"][^'\"\n]{0,200}['\"]\s{0,4},\s{0,4})['\"][^'\"\n]{0,1000}['\"]"
        ),
        r"\1***",
    ),
    (
        re.compile(
            rf"(?i)(\(\s{{0,4}}['\"][\w.-]{{0,60}}(?:{_CREDENTIAL_NAME})['\"]\s{{0,4}},\s{{0,4}})"
            r"(?:b?'(?:[^'\\\n]|\\.)*'|b?\"(?:[^\"\\\n]|\\.)*\")(?=\s{0,4}\))"
        ),
        r"\1***",
    ),
    (re.compile(r"(?i)(identified\s{1,4}by\s{1,4})(?:'[^'\n]*'|\"[^\"\n]*\"|[^\s;'\"]+)"), r"\1***"),
    (
        re.compile(r"(?i)(convertto-securestring\s{1,4}(?:-string\s{1,4})?)(?:'[^'\n]*'|\"[^\"\n]*\"|(?!-)[^\s;'\"]+)"),
        r"\1***",
    ),
    # openssl -passin pass:x
    (re.compile(r"(?i)(\bpass(?:in|out)\s{1,4}pass:)[^\s'\"]+"), r"\1***"),
)
_BASIC_AUTH = re.compile(
    r"(\bBasic |['\"]_?auth['\"]\s?[:=]\s?['\"]|\b_auth\s?=\s?)([A-Za-z0-9+/]{4,}={0,2})(?![\w+/=])", re.IGNORECASE
)


def _redact_basic_auth(match: re.Match[str]) -> str:
    """Redact base64 of `user:password` after `Basic` or in `_auth` (.npmrc); any other word there is kept."""
    text = match[2]
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return match[0]
    return f"{match[1]}{_REDACTED}" if b":" in decoded else match[0]


# --- URLs

_LETTER, _DIGIT = re.compile(r"[^\W\d_]"), re.compile(r"\d")
_NON_BLANKS = re.compile(r"[^\s<>]+")
_URL_END = re.compile(r"['\"](?:[,;)\]}:]|\Z)")
_PORT_OR_PATH = re.compile(r"\d{1,5}[/?#'\",;]")


def _redact_userinfo(match: re.Match[str]) -> str:
    """Redact the password of `scheme://user:password@host`, up to the URL's last @, or the token of `scheme://token@host`.

    If a port and a path follow the colon, as in `scheme://host:8443/path?to=user@host`, the URL is kept.
    """
    word = match[0]
    if "@" not in word or "//" not in word:
        return word
    scheme, *addresses = word.split("//")
    return "//".join((scheme, *map(_redact_url_password, addresses)))


def _redact_url_password(address: str) -> str:
    end = _URL_END.search(address)
    at = address.rfind("@", 0, end.start() if end else len(address))
    user, colon, password = address[: max(at, 0)].partition(":")
    if not colon:
        is_token = len(user) >= 20 and "/" not in user and _DIGIT.search(user) and _LETTER.search(user)
        return f"{_REDACTED}{address[at:]}" if is_token else address
    if not password or re.search(r"[/@'\"]", user) or _PORT_OR_PATH.match(password):
        return address
    return f"{user}:{_REDACTED}{address[at:]}"


# --- Command lines, where the meaning of a short option depends on the tool

# Between an option and its value: nothing, spaces, an equals sign, or the quotes and comma of an argument list.
_OPTION_GAP = r"(?:['\"],)?[ \t=]{0,3}"
_OPTION_BLANKS = r"(?:['\"],[ \t]{0,3}|[ \t]{1,3})"
_OPTION_START = r"(?<![\w-])"
_OPTION_VALUE = r"(?:'[^'\n]*'|\"[^\"\n]*\"|[^\s'\"]+)"
_TOOL_OPTIONS: tuple[tuple[str, str], ...] = (
    (
        r"mysql(?:dump|admin|import|show|check)?|mariadb(?:-dump|-admin)?|7za?|rar|unrar",
        rf"({_OPTION_START}-p){_OPTION_VALUE}",
    ),
    (
        r"sshpass|mongo(?:sh|dump|restore|export|import)?|docker|podman|az|oc|helm|smbmap",
        rf"({_OPTION_START}-p{_OPTION_BLANKS}){_OPTION_VALUE}",
    ),
    (r"sqlcmd|bcp|isql|tsql|osql|zip|unzip", rf"({_OPTION_START}-P{_OPTION_GAP}){_OPTION_VALUE}"),
    (r"ldap(?:search|modify|add|delete|whoami|passwd)", rf"({_OPTION_START}-w{_OPTION_GAP}){_OPTION_VALUE}"),
    (r"redis-cli", rf"({_OPTION_START}-a{_OPTION_GAP}){_OPTION_VALUE}"),
    (
        r"curl|wget|http|https|lftp",
        rf"({_OPTION_START}(?:-u|-U|-a|--user|--proxy-user|--auth){_OPTION_GAP}['\"]?[^\s:,'\"]{{0,128}}[:,]){_OPTION_VALUE}",
    ),
    (r"smbclient|rpcclient|net", rf"({_OPTION_START}-U{_OPTION_GAP}['\"]?[^\s%'\"]{{0,128}}%){_OPTION_VALUE}"),
    (r"net", r"(/user:[^\s'\"]{1,128}[ \t]{1,3})(?![/-])[^\s'\"]+"),
    (r"sqlplus|expdp|impdp|exp|imp|sqlldr", r"((?<![\w/])[\w$#]{1,64}/)(?:[^\s/'\"]+(?=@)|[^\s/@'\"]+)"),
    (r"openssl", rf"({_OPTION_START}-(?:k|K|passwd){_OPTION_BLANKS}){_OPTION_VALUE}"),
)
_TOOLS = tuple(
    (re.compile(rf"(?<![\w.-])(?:{tools})(?:\.exe)?(?=[\s'\"])"), re.compile(option)) for tools, option in _TOOL_OPTIONS
)


def _redact_command_options(text: str) -> str:
    if not any(tool.search(text) for tool, _ in _TOOLS):
        return text
    return "\n".join(map(_redact_command_line, text.split("\n")))


def _redact_command_line(line: str) -> str:
    for tool, option in _TOOLS:
        if match := tool.search(line):
            line = line[: match.end()] + option.sub(r"\1***", line[match.end() :])
    return line


# --- Values that follow the name of a credential

_REDACTED_VALUE = re.compile(r"\*{3}(?!\w)")

_NAME = re.compile(
    rf"(?:(?P<password>{_NAMES_OF_PASSWORDS})|(?P<token>{_NAMES_OF_TOKENS})|(?P<signature>(?<![A-Za-z])sig|signature))"
    rf"{_NAME_SUFFIX}(?![\w-])",
    re.IGNORECASE,
)
_LONG_OPTION = re.compile(r"(?:^|[\s'\"=\[(,])--?[A-Za-z0-9][\w-]{0,60}\Z")

# Between a name and its value: the end of a quoted or subscripted name, then a separator.
_SEPARATOR = re.compile(
    r"(?P<quoted>(?:\\{0,15}['\"]|&quot;|&#3[49];|%2[27])?\]?)\s{0,4}"
    r"(?P<operator>=>|->|:=|==|!=|=|::?|%3[AaDd])[ \t]{0,8}"
)
_TUPLE_COMMA = re.compile(r"\\{0,15}['\"][ \t]{0,4},[ \t]{0,4}(?=\\{0,15}['\"])")
_BLANKS = re.compile(r"[ \t]{1,8}")
_IS_OR_WAS = re.compile(r"[ \t]{1,4}(?:is|was)[ \t]{1,4}", re.IGNORECASE)

# The notations of a value.
_OPENING_QUOTE = re.compile(r"(?:[bBrRuUfF]{1,2}(?=['\"]))?(\\{0,15})(\"\"\"|'''|\"|'|`)")
_ENTITY_QUOTED = re.compile(
    r"(&quot;|&#3[49];)[^\n]{0,2000}?(?:\1|$)|%2[27][^\s&%]*(?:%(?!2[267])[^\s&%]*)*", re.MULTILINE
)
_PERCENT_ENCODED = re.compile(r"[^\s&'\"<>%]*(?:%(?!2[2367])[^\s&'\"<>%]*)*")
_BRACED = re.compile(r"\{(?:[^}\n]|\}\})*\}?")
# An unquoted value ends at whitespace, `;` or an XML tag; at a quote, unless a letter or digit follows; and at `&`,
# `,`, `|` or a closing bracket, if `_VALUE_END` follows: whitespace, other punctuation, the end, or another name.
_VALUE_END = r"[\s'\"<>)\]},;|]|$|[\w.-]{1,60}\s?[=:]"
_UNQUOTED_VALUE = re.compile(
    rf"(?:[^\s'\"<>&;,|)\]}}]|[&,|)\]}}](?!{_VALUE_END})|['\"](?=\w)|[<>](?![/A-Za-z!])(?=\S))+"
)
_UP_TO_SEMICOLON = re.compile(r"[^;'\"\n]{1,200}(?=;)")
_YAML_BLOCK = re.compile(r"[|>][+-]?\d?[ \t]*\n")
_FOLDER = re.compile(r"/[\w.+-]+(?:/[\w.+-]+)*/?(?![^\s'\",;)\]}])|[A-Za-z]:\\")
_TYPE_ANNOTATION = re.compile(r"[\w.\[\]| ]{1,40}=[ \t]{0,4}(?=b?['\"])")
_AFTER_VALUE = re.compile(r"\s*[,;}#'\"]")
_IDENTIFIER_TAIL = re.compile(r"[\w-]*\Z")
_COMPOUND_NAME = re.compile(r"\w[_-]\w|[a-z][A-Z]")
_WORD = re.compile(r"[^\s,;)\]}]+")

# What precedes the password in a .netrc file.
_NETRC_LOGIN = re.compile(r"\blogin\s{1,4}\S{1,100}\s{1,4}\Z")
# In characters.
_MAX_VALUE_LENGTH = 10_000

_EMPTY_VALUES = {"none", "null", "nil", "undefined", "true", "false", "nan", "...", "…"}
# Words that may follow a name and a colon, or an option, in a sentence: they are not values.
_SENTENCE_WORDS = _EMPTY_VALUES | set(
    """
    accepted and are argument blank cannot changed denied disabled does empty enabled expected expired failed failure
    flag for given has hidden in incorrect instead invalid is leave locked may mismatch missing must needs no not of ok
    on option or rejected required requires reset revoked set should since so the to unchanged unknown unset unused
    valid was when which will with without wrong yes
    """.split()  # noqa: SIM905 - a list with one word per line would have ninety lines
)
_INNER_PUNCTUATION = re.compile(r"[!@#$%^&*+=?~|\\/].")


def _redact_named_values(text: str) -> str:
    """Redact the values that follow the name of a credential."""
    parts: list[str] = []
    end = 0  # of the last redacted value
    for name in _NAME.finditer(text):
        if name.start() < end:
            continue
        found = _find_value(text, name)
        if found is not None and found[0] < found[1] and not _REDACTED_VALUE.match(text, found[0]):
            parts += (text[end : found[0]], _REDACTED)
            end = found[1]
    return "".join((*parts, text[end:]))


def _find_value(text: str, name: re.Match[str]) -> tuple[int, int] | None:
    """Return the span of the value of a name; None if no value follows."""
    if separator := _SEPARATOR.match(text, name.end()):
        return _find_value_after_separator(text, name, separator)
    between = _TUPLE_COMMA.match(text, name.end()) or _BLANKS.match(text, name.end())
    if between and _LONG_OPTION.search(text, max(0, name.start() - 60), name.end()):
        return _find_option_value(text, between.end())
    return None if name["password"] is None else _find_value_after_password(text, name)


def _find_value_after_password(text: str, name: re.Match[str]) -> tuple[int, int] | None:
    """Return the span of the value in SQL's `PASSWORD 'x'`, .netrc's `login etl password x`, `the password is X1`.

    Returns None for any other text.
    """
    if (between := _BLANKS.match(text, name.end())) is None:
        return None
    if _OPENING_QUOTE.match(text, between.end()):
        return _find_quoted_value(text, between.end())
    if _NETRC_LOGIN.search(text[max(0, name.start() - 120) : name.start()]):
        return _find_unquoted_value(text, between.end())
    if (between := _IS_OR_WAS.match(text, name.end())) and (word := _WORD.match(text, between.end())):
        return word.span() if _looks_generated(word[0].strip("'\"")) else None
    return None


def _find_value_after_separator(text: str, name: re.Match[str], separator: re.Match[str]) -> tuple[int, int] | None:
    start, operator = separator.end(), separator["operator"]
    is_colon = operator == ":" and not separator["quoted"]
    if enclosed := _find_enclosed_value(text, start, separator, brackets=not is_colon):
        return enclosed
    if operator in ("==", "!=") and start > separator.end("operator"):  # a comparison in source code
        return None
    if (is_colon and name["signature"]) or (name[0].lower() == "pwd" and _is_folder(text, name, start)):
        return None
    return _find_value_after_colon(text, name, start) if is_colon else _find_assigned_value(text, name, start)


def _find_enclosed_value(text: str, start: int, separator: re.Match[str], *, brackets: bool) -> tuple[int, int] | None:
    """Return the span of a value in quotes of any kind; None if the value is not quoted.

    Args:
        brackets: whether lists, objects and ODBC's braces count as quotes.
    """
    if separator["operator"].startswith("%"):
        encoded = _ENTITY_QUOTED.match(text, start) or _PERCENT_ENCODED.match(text, start)
        return encoded.span() if encoded else None
    if entity := _ENTITY_QUOTED.match(text, start):
        return entity.span()
    if _OPENING_QUOTE.match(text, start):
        return _find_quoted_value(text, start)
    if brackets and separator["quoted"] and text.startswith(("{", "["), start):
        return _find_bracketed_value(text, start)
    braced = _BRACED.match(text, start) if brackets else None
    return braced.span() if braced else None


def _find_assigned_value(text: str, name: re.Match[str], start: int) -> tuple[int, int] | None:
    span = _find_unquoted_value(text, start)
    if span is None:
        return None
    value = text[span[0] : span[1]].lower()
    # `pass=12` counts tests that passed.
    is_count = name[0].lower() == "pass" and value.isdigit() and len(value) < 6
    return None if value in _EMPTY_VALUES or is_count else span


def _find_value_after_colon(text: str, name: re.Match[str], start: int) -> tuple[int, int] | None:
    """Return the span of a value in YAML or a header; None if a sentence follows.

    A word that looks generated is a value. Any other word is one only if it stands alone, and its name is that of a
    password or of a setting.
    """
    if _YAML_BLOCK.match(text, start):
        return _find_yaml_block(text, name, start)
    end = text.find("\n", start, start + 2000)
    line = text[start : start + 2000 if end < 0 else end]
    word = re.match(r"[^\s,;'\"]+", line)
    if word is None or word[0].strip(".!?()[]{}").lower() in _SENTENCE_WORDS or set(word[0]) <= set("().,!?[]{}"):
        return None
    if annotated := _TYPE_ANNOTATION.match(line):  # password: str = 'x'
        return _find_quoted_value(text, start + annotated.end())
    after = line[word.end() :]
    # `password:x`, without a blank, is a setting whatever follows.
    is_single = not after.strip(" \t\r,;})]") or _AFTER_VALUE.match(after) is not None or text[start - 1] == ":"
    is_plain = not _looks_generated(word[0]) or (name["token"] is not None and len(word[0]) < 6)
    if is_plain and not (is_single and (name["password"] is not None or _is_setting(text, name))):
        return None
    if name[0].lower() == "pass" and word[0].isdigit():
        return None
    return _find_unquoted_value(text, start)


def _is_setting(text: str, name: re.Match[str]) -> bool:
    """Whether a name is a key in a file, a header's name or an option; otherwise it is a word in a sentence."""
    before = text[max(0, name.start() - 60) : name.start()]
    line = before.rpartition("\n")[2]
    identifier = (_IDENTIFIER_TAIL.search(before) or [""])[0] + name[0]
    return not line.strip(" \t-") or before.endswith("/") or _COMPOUND_NAME.search(identifier) is not None


def _find_option_value(text: str, start: int) -> tuple[int, int] | None:
    """Return the span of x in `--password x`; None if another option or a word of a sentence follows."""
    if _OPENING_QUOTE.match(text, start):
        return _find_quoted_value(text, start)
    span = _find_unquoted_value(text, start)
    if span is None or text[start] == "-" or text[span[0] : span[1]].lower() in _SENTENCE_WORDS:
        return None
    return span


def _find_quoted_value(text: str, start: int) -> tuple[int, int]:
    r"""Return the span of a quoted value with its quotes, or up to the end of the line if the closing quote is missing.

    A quote inside the value is doubled, or has more backslashes before it than the opening one: JSON inside JSON has
    `\"` around its strings and `\\\"` in them.
    """
    opening = _OPENING_QUOTE.match(text, start)
    assert opening is not None
    escape, quote = opening[1], opening[2]
    limit = min(len(text), opening.end() + _MAX_VALUE_LENGTH)
    line_end = text.find("\n", opening.end(), limit)
    line_end = limit if line_end < 0 else line_end
    position = opening.end()
    while (position := text.find(quote, position, line_end)) >= 0:
        before = position
        while before > opening.end() and text[before - 1] == "\\":
            before -= 1
        backslashes, position = position - before, position + len(quote)
        ends = backslashes <= len(escape) if escape else backslashes % 2 == 0
        if ends and len(quote) == 1 and not escape and text.startswith(quote, position):
            position += 1  # doubled
        elif ends:
            return start, position
    return start, line_end


def _find_unquoted_value(text: str, start: int) -> tuple[int, int] | None:
    """Return the span of an unquoted value, or None. Between semicolons, as in ODBC, it may contain spaces."""
    match = _UNQUOTED_VALUE.match(text, start)
    if match is None:
        return None
    end = start + len(match[0].rstrip(".,:")) or match.end()
    line = text.rfind("\n", max(0, start - 300), start) + 1
    if ";" in text[max(line, start - 300) : start] and (longer := _UP_TO_SEMICOLON.match(text, start)):
        end = max(end, longer.end())
    return start, end


def _find_bracketed_value(text: str, start: int) -> tuple[int, int]:
    """Return the span of a list or an object, up to its closing bracket or the end of its line."""
    depth = 0
    for bracket in re.compile(r"[\[\]{}\n]").finditer(text, start, start + _MAX_VALUE_LENGTH):
        if bracket[0] == "\n":
            return start, bracket.start()
        depth += 1 if bracket[0] in "[{" else -1
        if not depth:
            return start, bracket.end()
    return start, min(len(text), start + _MAX_VALUE_LENGTH)


def _find_yaml_block(text: str, name: re.Match[str], start: int) -> tuple[int, int]:
    """Return the span of a YAML block: the following lines with more indentation than the line of the name."""
    line = text.rfind("\n", max(0, name.start() - 300), name.start()) + 1
    indentation = len(text[line : name.start()]) - len(text[line : name.start()].lstrip(" -\t"))
    end = text.find("\n", start)
    while end >= 0:
        following = re.compile(rf"\n(?: {{{indentation + 1},200}}\S[^\n]*|[ \t]*(?=\n))").match(text, end)
        if following is None:
            return start, end
        end = following.end()
        if end == len(text):
            break
    return start, len(text)


def _is_folder(text: str, name: re.Match[str], start: int) -> bool:
    """Whether the value of `PWD` is the shell's working directory, not ODBC's password."""
    return _FOLDER.match(text, start) is not None and text[name.start() - 1 : name.start()] in (
        "",
        " ",
        "\n",
        "\t",
        "'",
    )


def _looks_generated(word: str) -> bool:
    """Whether a word looks like a generated password: letters with digits or inner punctuation, and not a URL."""
    word = word.rstrip(".,:!?")
    letters = _LETTER.search(word)
    if letters is None or word.startswith(("http://", "https://")):
        return False
    return bool(_DIGIT.search(word) or _INNER_PUNCTUATION.search(word))
