"""Credentials that are known by their form, or by the tool that they are given to; and how credentials are called."""

from __future__ import annotations

import base64
import re

#: What stands in a credential's place.
HIDDEN = "***"

# --- What a credential is called. `token_count`, `password_file` and `primary_key` end in another word.

PHRASES = (
    r"pass(?:word|wd|phrase|code)s?|pwd|(?<![A-Za-z])pass|(?<=[a-z])(?-i:Pass)"
    r"|(?<![A-Za-z])(?:admin|conn|db|ftp|ldap|mail|my|mysql|pg|root|smtp|ssh|sudo|user)pass"
    r"|(?<![A-Za-z])pw(?![A-Za-z])"
)
_KEYS = (
    r"(?:access|account|api|auth|encryption|fernet|license|master|private|secret|service|shared|signing|ssh|storage"
    r"|subscription)[_-]?(?:access[_-]?)?keys?"
)
TOKEN_WORDS = rf"secrets?|token|{_KEYS}|credentials?|(?:nt|lm|ntlm)[_-]?hash"
ENDING = r"(?:[_-]?(?:value|text|hash|b64|base64|plain|plaintext|encoded|encrypted)|_?\d{1,3})?"


def without_known_forms(text: str) -> str:
    """The text without keys and tokens of a well-known form, headers, XML elements, addresses and short options."""
    for pattern, shown in _FORMS:
        text = pattern.sub(shown, text)
    text = _BASIC.sub(_basic, text)
    if "//" in text and "@" in text:
        text = _RUN.sub(_without_userinfo, text)
    return _in_commands(text)


# --- What is known by its form, whatever stands before it.

_SCHEMES = "basic|bearer|negotiate|ntlm|token|apikey|api-key|aws4-hmac-sha256|sharedkey|sharedaccesssignature"
_HEADER_SIGN = r"\\{0,15}['\"]?\s{0,3}[:=,]\s{0,3}b?\\{0,15}['\"]?"
# A value of a header: to the quote that ends it, or to the end of the line.
_TO_END = r"(?:[^\n'\"\\]|\\[^\n'\"]|[\"'](?=[\w./+=-]))+"
_PLAIN_HEADER = r"(?=[^\s'\"]{0,512}[\d._~+/=])[^\s'\",;]{4,}"
_XML_NAME = rf"(?:{PHRASES}|{TOKEN_WORDS}){ENDING}"

_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)"
            r"(?:(?!-----END)[\s\S]){0,20000}(-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?"
        ),
        r"\1***\2",
    ),
    (re.compile(r"(jdbc:oracle:\w{1,10}:[^\s/:@'\"]{1,128}/)[^\s'\"]{1,256}@"), r"\1***@"),
    (re.compile(rf"(?i)((?:proxy-)?authorization{_HEADER_SIGN})digest\s[^\n]+"), r"\1***"),
    (
        re.compile(rf"(?i)((?:proxy-)?authorization{_HEADER_SIGN})(?:{_SCHEMES})\s(?!auth|is\b|not\b)(?:{_TO_END})"),
        r"\1***",
    ),
    (re.compile(rf"(?i)((?:proxy-)?authorization{_HEADER_SIGN}){_PLAIN_HEADER}"), r"\1***"),
    (re.compile(rf"(?i)(\b(?:set-)?cookie{_HEADER_SIGN})(?=[^\s=]{{1,256}}=){_TO_END}"), r"\1***"),
    (re.compile(r"(?i)(\b(?:bearer|token) )(?=[^\s]{0,512}[\d._~+/=])[\w.~+/=-]{8,}"), r"\1***"),
    (re.compile(r"(?i)(\bnegotiate )[A-Za-z0-9+/]{20,}={0,2}"), r"\1***"),
    (re.compile(r"TlRMTVNTUA[A-Za-z0-9+/]{8,}={0,2}"), HIDDEN),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)*"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), HIDDEN),
    (
        re.compile(
            r"\b(?:gh[opsur]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,}|AIza[\w-]{30,}"
            r"|ya29\.[\w-]{10,}|[rs]k_(?:live|test)_\w{10,}|sk-[\w-]{20,}|SG\.[\w-]{10,}\.[\w-]{10,}|dapi[0-9a-f]{32}"
            r"|npm_\w{30,}|pypi-[\w-]{30,}|hf_\w{30,}|dop_v1_\w{30,}|AccountKey-[\w+/=]{20,})"
        ),
        HIDDEN,
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
    # user:password@host:port or user:password@host/, without a scheme
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
        re.compile(rf"(?i)(<(?:[\w.-]{{1,40}}:)?[\w.-]{{0,60}}(?:{_XML_NAME})(?:\s[^<>]{{0,300}})?(?<!/)>)[^<]+"),
        r"\1***",
    ),
    (
        re.compile(
            rf"(?i)(\b(?:name|key|id)=[\"'][^\"'<>]{{0,100}}(?:{_XML_NAME})[\"'][^<>]{{0,200}}?\bvalue=)"
            r"(?:\"[^\"<>\n]*\"|'[^'<>\n]*')"
        ),
        r"\1***",
    ),
    (
        re.compile(
            rf"(?i)(<[^<>]{{1,100}}\b(?:name|key|id)=[\"'][^\"'<>]{{0,100}}(?:{_XML_NAME})[\"'][^<>]{{0,200}}(?<!/)>)[^<]+"
        ),
        r"\1***",
    ),
    # The second of a pair: `auth=` or `HTTPBasicAuth` with a user, or the name of a credential.
    (
        re.compile(
            r"(?i)(auth\w{0,20}\s{0,2}=?\s{0,2}\(\s{0,4}['\"][^'\"\n]{0,200}['\"]\s{0,4},\s{0,4})['\"][^'\"\n]{0,1000}['\"]"
        ),
        r"\1***",
    ),
    (
        re.compile(
            rf"(?i)(\(\s{{0,4}}['\"][\w.-]{{0,60}}(?:{_XML_NAME})['\"]\s{{0,4}},\s{{0,4}})"
            r"(?:b?'(?:[^'\\\n]|\\.)*'|b?\"(?:[^\"\\\n]|\\.)*\")(?=\s{0,4}\))"
        ),
        r"\1***",
    ),
    (re.compile(r"(?i)(identified\s{1,4}by\s{1,4})(?:'[^'\n]*'|\"[^\"\n]*\"|[^\s;'\"]+)"), r"\1***"),
    (
        re.compile(r"(?i)(convertto-securestring\s{1,4}(?:-string\s{1,4})?)(?:'[^'\n]*'|\"[^\"\n]*\"|(?!-)[^\s;'\"]+)"),
        r"\1***",
    ),
    (re.compile(r"(?i)(\bpass(?:in|out)\s{1,4}pass:)[^\s'\"]+"), r"\1***"),
)
_BASIC = re.compile(
    r"(\bBasic |['\"]_?auth['\"]\s?[:=]\s?['\"]|\b_auth\s?=\s?)([A-Za-z0-9+/]{4,}={0,2})(?![\w+/=])", re.IGNORECASE
)


def _basic(found: re.Match[str]) -> str:
    """`Basic` and what decodes to `user:password`."""
    text = found[2]
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return found[0]
    return f"{found[1]}{HIDDEN}" if b":" in decoded else found[0]


# --- Addresses.

_LETTER, _DIGIT = re.compile(r"[^\W\d_]"), re.compile(r"\d")
_RUN = re.compile(r"[^\s<>]+")
_ADDRESS_END = re.compile(r"['\"](?:[,;)\]}:]|\Z)")
_PORT_OR_PATH = re.compile(r"\d{1,5}[/?#'\",;]")


def _without_userinfo(found: re.Match[str]) -> str:
    """`scheme://user:password@host`, to the last @ of the address; not `scheme://host:8443/path?to=user@host`."""
    run = found[0]
    if "@" not in run or "//" not in run:
        return run
    return "//".join((run[: (first := run.index("//"))], *map(_without_password, run[first + 2 :].split("//"))))


def _without_password(address: str) -> str:
    ends = _ADDRESS_END.search(address)
    at = address.rfind("@", 0, ends.start() if ends else len(address))
    user, colon, password = address[: max(at, 0)].partition(":")
    if not colon:
        is_token = len(user) >= 20 and "/" not in user and _DIGIT.search(user) and _LETTER.search(user)
        return f"{HIDDEN}{address[at:]}" if is_token else address
    if not password or re.search(r"[/@'\"]", user) or _PORT_OR_PATH.match(password):
        return address
    return f"{user}:{HIDDEN}{address[at:]}"


# --- Command lines: what short options mean depends on the tool.

# Between an option and its value: nothing, a blank or an equals sign, or as a list of arguments is shown.
_GAP = r"(?:['\"],)?[ \t=]{0,3}"
_SPACED = r"(?:['\"],[ \t]{0,3}|[ \t]{1,3})"
_AT = r"(?<![\w-])"
_ARGUMENT = r"(?:'[^'\n]*'|\"[^\"\n]*\"|[^\s'\"]+)"
_OPTIONS: tuple[tuple[str, str], ...] = (
    (r"mysql(?:dump|admin|import|show|check)?|mariadb(?:-dump|-admin)?|7za?|rar|unrar", rf"({_AT}-p){_ARGUMENT}"),
    (
        r"sshpass|mongo(?:sh|dump|restore|export|import)?|docker|podman|az|oc|helm|smbmap",
        rf"({_AT}-p{_SPACED}){_ARGUMENT}",
    ),
    (r"sqlcmd|bcp|isql|tsql|osql|zip|unzip", rf"({_AT}-P{_GAP}){_ARGUMENT}"),
    (r"ldap(?:search|modify|add|delete|whoami|passwd)", rf"({_AT}-w{_GAP}){_ARGUMENT}"),
    (r"redis-cli", rf"({_AT}-a{_GAP}){_ARGUMENT}"),
    (
        r"curl|wget|http|https|lftp",
        rf"({_AT}(?:-u|-U|-a|--user|--proxy-user|--auth){_GAP}['\"]?[^\s:,'\"]{{0,128}}[:,]){_ARGUMENT}",
    ),
    (r"smbclient|rpcclient|net", rf"({_AT}-U{_GAP}['\"]?[^\s%'\"]{{0,128}}%){_ARGUMENT}"),
    (r"net", r"(/user:[^\s'\"]{1,128}[ \t]{1,3})(?![/-])[^\s'\"]+"),
    (r"sqlplus|expdp|impdp|exp|imp|sqlldr", r"((?<![\w/])[\w$#]{1,64}/)(?:[^\s/'\"]+(?=@)|[^\s/@'\"]+)"),
    (r"openssl", rf"({_AT}-(?:k|K|passwd){_SPACED}){_ARGUMENT}"),
)
_TOOLS = tuple(
    (re.compile(rf"(?<![\w.-])(?:{tools})(?:\.exe)?(?=[\s'\"])"), re.compile(rule)) for tools, rule in _OPTIONS
)


def _in_commands(text: str) -> str:
    if not any(tool.search(text) for tool, _ in _TOOLS):
        return text
    return "\n".join(map(_in_command, text.split("\n")))


def _in_command(line: str) -> str:
    for tool, rule in _TOOLS:
        if found := tool.search(line):
            line = line[: found.end()] + rule.sub(r"\1***", line[found.end() :])
    return line
