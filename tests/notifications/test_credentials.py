"""Credentials are redacted by their form, even if Airflow's masker does not have them; ordinary words stay."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from airflow_provider_smtpcm.notifications.credential_patterns import redact_credentials
from airflow_provider_smtpcm.notifications.event import read_event
from airflow_provider_smtpcm.notifications.html_page import render_page
from tests.notifications.shapes import raised, run_failed, task_failed

SECRET = "T0p-s3cret!"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJldGwifQ.c2lnbmF0dXJl"
BASIC = base64.b64encode(b"etl:hunter").decode()
PEM = "-----BEGIN RSA PRIVATE KEY-----{0}MIIEowIBAAKCAQEAs3cret{0}c2VjcmV0{0}-----END RSA PRIVATE KEY-----"


def spelled(text: str, *kept: str, hidden: str = SECRET) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return a text, the parts of it that have to be redacted, and the parts that have to stay."""
    return text, (hidden,), kept


#: A text, what of it is withheld, and what stays.
CREDENTIALS: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    # YAML, INI, and what looks like them
    spelled(f"PASSWORD: '{SECRET}'", "PASSWORD: "),
    spelled(f'Password: "{SECRET}"', "Password: "),
    spelled(f"password: {SECRET}"),
    spelled("password: hunter", hidden="hunter"),
    spelled("host: dw\npassword: hunter\nuser: etl", "host: dw\n", "\nuser: etl", hidden="hunter"),
    spelled("  db_password:   hunter  # rotate", "# rotate", hidden="hunter"),
    spelled("{host: dw, password: hunter, user: etl}", "host: dw", "user: etl", hidden="hunter"),
    spelled("password: |\n  line1hunter\n  line2hunter\nuser: etl", "\nuser: etl", hidden="hunter"),
    spelled("- name: x\n  secret: >-\n    line1hunter\n  user: etl", "  user: etl", hidden="hunter"),
    spelled(f"client_secret: {SECRET}"),
    spelled(f"clientSecret: {SECRET}"),
    spelled(f"[smtp]\npassword = {SECRET}\nport = 25", "port = 25"),
    spelled("password=hunter", "password=", hidden="hunter"),
    spelled("passwd = hunter", hidden="hunter"),
    spelled("pass: Hunter2x", hidden="Hunter2x"),
    spelled("passphrase=hunter", hidden="hunter"),
    spelled("machine dw login etl password hunter", "machine dw login etl", hidden="hunter"),
    spelled(f"password => '{SECRET}'"),
    spelled(f"password := {SECRET}"),
    spelled(f"the password is {SECRET} as ever"),
    spelled(f"password: {SECRET} (used by etl)", "(used by etl)"),
    spelled(f"old_password='{SECRET}', new_password1='{SECRET}'"),
    spelled("db_pw=hunter", hidden="hunter"),
    spelled("api_key: hunter", hidden="hunter"),
    spelled("x:\n  token: hunter", hidden="hunter"),
    spelled("  - client_secret: hunter", hidden="hunter"),
    spelled("accessToken: hunter", hidden="hunter"),
    spelled("userPassword:: aHVudGVy", hidden="aHVu"),
    spelled("password: x", "password: ", hidden=" x"),
    # JSON
    spelled(f'{{"password": "{SECRET}", "user": "etl"}}', '"user": "etl"'),
    spelled(json.dumps({"password": f'S3"{SECRET}', "user": "etl"}), '"user": "etl"'),
    spelled('{"password": "S3\\"hunter", "b": 1}', '"b": 1', hidden="hunter"),
    spelled('{"password": "S3\\\\", "b": 1}', '"b": 1', hidden="S3"),
    spelled('{"password": "S3\\\\\\"hunter", "b": 1}', '"b": 1', hidden="hunter"),
    spelled('{"password":"hunter"}', hidden="hunter"),
    spelled('{"password": 471147}', hidden="471147"),
    spelled('{"passwords": ["hunter", "hunter"], "b": 1}', '"b": 1', hidden="hunter"),
    spelled('{"secret": {"value": "hunter", "x": ["y"]}, "b": 1}', '"b": 1', hidden="hunter"),
    spelled(json.dumps(json.dumps({"password": SECRET, "user": "etl"})), "etl"),
    spelled(json.dumps(json.dumps({"password": 'S3"hunter', "user": "etl"})), "etl", hidden="hunter"),
    spelled(json.dumps(json.dumps(json.dumps({"password": 'S3"hunter', "user": "etl"}))), "etl", hidden="hunter"),
    spelled(json.dumps({"error": f"login with password='{SECRET}' failed"}), "failed"),
    spelled(f'{{"access_token": "{SECRET}", "token_type": "x", "expires_in": 3600}}', "token_type", "3600"),
    spelled(f'{{"refresh_token":"{SECRET}","id_token":"{SECRET}"}}'),
    spelled(f'{{"apiKey": "{SECRET}"}}'),
    spelled('{"password": "hunter', hidden="hunter"),
    spelled("{&quot;password&quot;: &quot;hunter&quot;, &quot;b&quot;: 1}", "&quot;b&quot;", hidden="hunter"),
    # Python
    spelled(f"{{'user': 'etl', 'password': '{SECRET}'}}", "'user': 'etl'"),
    spelled(f"connect(user='etl', password='{SECRET}', port=1)", "user='etl'", "port=1"),
    spelled('connect(password="it\'s hunter", port=1)', "port=1", hidden="hunter"),
    spelled("connect(password='it\\'s hunter', port=1)", "port=1", hidden="hunter"),
    spelled("Settings(host='dw', password=b'hun\\'ter2', port=1)", "host='dw'", "port=1", hidden="ter2"),
    spelled("Settings(host='dw', api_key=SecretKey('x'), token='hunter')", "host='dw'", hidden="hunter"),
    spelled('Settings(password="""hunter""", port=1)', "port=1", hidden="hunter"),
    spelled("[('user', 'etl'), ('password', 'hunter')]", "('user', 'etl')", hidden="hunter"),
    spelled("os.environ['DB_PASSWORD'] = 'hunter'", "os.environ['DB_PASSWORD']", hidden="hunter"),
    spelled("    if password == 'hunter':", hidden="hunter"),
    spelled("get(url, auth=('etl', 'hunter'))", "'etl'", hidden="hunter"),
    spelled("HTTPBasicAuth('etl', 'hunter')", "'etl'", hidden="hunter"),
    spelled("Connection(conn_id='x', login='etl', password='hunter', port=None)", "port=None", hidden="hunter"),
    spelled("connect(user=etl, password=hunter, port=1)", "user=etl", "port=1", hidden="hunter"),
    spelled("connect(password=hunter)", hidden="hunter"),
    spelled("user=etl,password=hun,ter2,host=dw", "user=etl", "host=dw", hidden="ter2"),
    spelled("host=dw user=etl password=hunter dbname=x", "host=dw user=etl", "dbname=x", hidden="hunter"),
    spelled("host=dw password='hun ter2' dbname=x", "dbname=x", hidden="ter2"),
    spelled("def connect(user: str, password: str = 'hunter') -> None:", "user: str", hidden="hunter"),
    spelled("Settings(password=SecretStr('hunter'))", hidden="hunter"),
    spelled("Settings(Password('hunter'))", hidden="hunter"),
    spelled("get(url, cookies={'sid': 'hunter'})", "url", hidden="hunter"),
    # Shells
    spelled(f"run --password {SECRET} --user etl", "--user etl"),
    spelled("run --password hunter --user etl", "--user etl", hidden="hunter"),
    spelled(f"run --password={SECRET}"),
    spelled("run --password 'hunter x' --y", "--y", hidden="hunter"),
    spelled("run --db-password hunter", hidden="hunter"),
    spelled("run -password hunter", hidden="hunter"),
    spelled("run --token hunter", hidden="hunter"),
    spelled("run --api-key hunter", hidden="hunter"),
    spelled("run --secret-access-key=hunter", hidden="hunter"),
    spelled("['run', '--password', 'hunter', '--user', 'etl']", "'--user', 'etl'", hidden="hunter"),
    spelled('["run", "--password=hunter", "x"]', '"x"', hidden="hunter"),
    spelled("mysql -u etl -phunter dw", "mysql -u etl -p", " dw", hidden="hunter"),
    spelled("['mysqldump', '-uetl', '-phunter', 'dw']", "'dw'", hidden="hunter"),
    spelled("curl -u etl:hunter https://dw.corp.example/x", "curl -u etl:", "https://dw", hidden="hunter"),
    spelled("curl -s --user 'etl:hunter' https://dw", "https://dw", hidden="hunter"),
    spelled("['curl', '-u', 'etl:hunter', 'https://dw']", "'https://dw'", hidden="hunter"),
    spelled("wget --http-password=hunter https://dw", "https://dw", hidden="hunter"),
    spelled("sshpass -p 'x hunter' ssh etl@dw", "ssh etl@dw", hidden="hunter"),
    spelled("curl -uetl:hunter https://dw", "https://dw", hidden="hunter"),
    spelled("tool /user:etl /password:hunter /x", "/user:etl", "/x", hidden="hunter"),
    spelled("sshpass -p hunter ssh etl@dw", "ssh etl@dw", hidden="hunter"),
    spelled("sqlcmd -S dw -U etl -P hunter -Q x", "-S dw -U etl", "-Q x", hidden="hunter"),
    spelled("bcp dw.dbo.t out x -U etl -Phunter", "-U etl", hidden="hunter"),
    spelled("ldapsearch -D cn=etl -w hunter -b x", "-b x", hidden="hunter"),
    spelled("redis-cli -h cache -a hunter ping", "ping", hidden="hunter"),
    spelled("docker login -u etl -p hunter registry", "registry", hidden="hunter"),
    spelled("smbclient //files/x -U 'etl%hunter'", "//files/x", hidden="hunter"),
    spelled(r"net use Z: \\files\x /user:CORP\etl hunter", r"/user:CORP\etl", hidden="hunter"),
    spelled("sqlplus etl/hunter@dw", "etl/", "@dw", hidden="hunter"),
    spelled("openssl rsa -passin pass:hunter -in x", "-in x", hidden="hunter"),
    spelled("unzip -P hunter x.zip", "x.zip", hidden="hunter"),
    spelled("ConvertTo-SecureString 'hunter' -AsPlainText -Force", "-Force", hidden="hunter"),
    spelled("$env:DB_PASSWORD = 'hunter'", hidden="hunter"),
    # Environments
    spelled("PGPASSWORD=hunter psql -h dw", "psql -h dw", hidden="hunter"),
    spelled("export MYSQL_PWD=hunter", hidden="hunter"),
    spelled("DB_PASS=hunter\nDB_USER=etl", "DB_USER=etl", hidden="hunter"),
    spelled("set PASSWORD=hunter", hidden="hunter"),
    spelled("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPx", hidden="wJalr"),
    spelled("AIRFLOW__CORE__FERNET_KEY=81HqDtbqAywKSOumSha3=", hidden="81Hq"),
    spelled("environ({'DB_PASSWORD': 'hunter', 'HOME': '/root'})", "'HOME': '/root'", hidden="hunter"),
    spelled("SLACK_TOKEN=hunter", hidden="hunter"),
    # Headers
    spelled(f"Authorization: Basic {BASIC}", "Authorization: ", hidden=BASIC),
    spelled(f"'Authorization': 'Basic {BASIC}', 'Accept': 'x'", "'Accept': 'x'", hidden=BASIC),
    spelled(f"sent Basic {BASIC} twice", "sent Basic ", " twice", hidden=BASIC),
    spelled(f"Basic {BASIC}", hidden=BASIC),
    spelled(f"basic {BASIC.rstrip('=')}", hidden=BASIC.rstrip("=")),
    spelled("Authorization: Negotiate YIIJvwYGKwYBBQUCoIIJszCCCa+gMDAuBgkqhkiC9xIB", hidden="YIIJv"),
    spelled("WWW-Authenticate: Negotiate oYG2MIGzoAMKAQChCwYJKoZIgvcSAQICooGeBIGb", hidden="oYG2"),
    spelled("Authorization: NTLM TlRMTVNTUAABAAAABzIAAAYABgAr", hidden="TlRM"),
    spelled("sent TlRMTVNTUAADAAAAGAAYAHYAAAAYABgA to it", "sent ", " to it", hidden="TlRM"),
    spelled(f'"auths": {{"registry": {{"auth": "{BASIC}"}}}}', "registry", hidden=BASIC),
    spelled("C: AUTH PLAIN AGV0bABodW50ZXI=", "AUTH PLAIN ", hidden="AGV0"),
    spelled("Authorization: Token hunter", hidden="hunter"),
    spelled('Authorization: Digest username="etl", response="hunter"', hidden="hunter"),
    spelled("Authorization: AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=hunter", hidden="hunter"),
    spelled("Proxy-Authorization: Bearer hunter", hidden="hunter"),
    spelled('-H "Authorization: Bearer hunter" https://dw', "https://dw", hidden="hunter"),
    spelled("('Authorization', 'Bearer hunter')", hidden="hunter"),
    spelled(f"x-api-key: {SECRET}"),
    spelled("x-api-key: hunter", hidden="hunter"),
    spelled("X-Auth-Token: hunter", hidden="hunter"),
    spelled("X-Vault-Token: s.hunter2abc", hidden="hunter"),
    spelled("Ocp-Apim-Subscription-Key: 0123hunter", hidden="hunter"),
    spelled("curl -H 'x-api-key: hunter' https://dw", "https://dw", hidden="hunter"),
    spelled("Cookie: session=hunter; theme=dark\nHost: dw", "\nHost: dw", hidden="hunter"),
    spelled("Set-Cookie: sid=hunter; Path=/; HttpOnly", hidden="hunter"),
    spelled("{'Cookie': 'sid=hunter', 'Host': 'dw'}", "'Host': 'dw'", hidden="hunter"),
    spelled(f"bearer {JWT} x", "bearer ", " x", hidden=JWT[:12]),
    # Addresses
    spelled("postgresql://etl:hunter@dw.corp.example/dw", "postgresql://etl:", "@dw.corp.example/dw", hidden="hunter"),
    spelled("mssql://etl:hun@ter2@dw/x", "mssql://etl:", "@dw/x", hidden="ter2"),
    spelled("mssql://etl:hun/ter2@dw/x", "@dw/x", hidden="ter2"),
    spelled("mssql://etl:hun%40ter2@dw/x", "@dw/x", hidden="ter2"),
    spelled("mssql://etl:hun'ter2@dw/x", "@dw/x", hidden="ter2"),
    spelled("mssql://etl:hun#ter2?x@dw/x", "@dw/x", hidden="ter2"),
    spelled("'mssql://etl:hunter@dw/x', 'y@z'", "etl", "@dw/x'", "'y@z'", hidden="hunter"),
    spelled("https://x.example/a,https://etl:hunter@dw/b", "https://x.example/a", "@dw/b", hidden="hunter"),
    spelled("mongodb://etl:hunter@h1:27017,h2:27017/x", "@h1:27017,h2:27017/x", hidden="hunter"),
    spelled("cannot reach etl:hunter@dw:5432/x", "etl:", "@dw:5432/x", hidden="hunter"),
    spelled("redis://:hunter@cache:6379/0", "redis://:", "@cache:6379/0", hidden="hunter"),
    spelled("ftp://etl:4711@dw/x", "@dw/x", hidden="4711"),
    spelled("https://ghs3cr3tt0k3n0123456789@github.com/x", "@github.com/x", hidden="ghs3cr3t"),
    spelled("jdbc:oracle:thin:etl/hunter@//dw:1521/x", "@//dw:1521/x", hidden="hunter"),
    spelled("jdbc:sqlserver://dw;user=etl;password=hunter;encrypt=true", "user=etl", "encrypt=true", hidden="hunter"),
    spelled("smtpcm://etl:hunter@mail:25/?auth_mode=windows", "@mail:25/?auth_mode=windows", hidden="hunter"),
    spelled("GET /blob?sv=2024&sig=ab%2Fhunter%3D&se=1 403", "sv=2024", "&se=1 403", hidden="hunter"),
    spelled("https://x/?access_token=hunter&b=1", "&b=1", hidden="hunter"),
    spelled("https://x/?b=1&api_key=hunter#top", "b=1", hidden="hunter"),
    spelled("https://x/?key=AIhunter2345&b=1", "&b=1", hidden="hunter"),
    spelled("https://x/?password=hunter", hidden="hunter"),
    spelled("https://s3/x?X-Amz-Date=2024&X-Amz-Signature=hunter&b=1", "X-Amz-Date=2024", "&b=1", hidden="hunter"),
    spelled("https://s3/x?X-Amz-Security-Token=hunter%2F&b=1", "&b=1", hidden="hunter"),
    spelled("next=%2F%3Fpassword%3Dhunter%26b%3D1", "%26b%3D1", hidden="hunter"),
    spelled("%7B%22password%22%3A%22hunter%22%2C%22b%22%3A1%7D", "%22b%22", hidden="hunter"),
    spelled("https://hooks.slack.com/services/T000/B000/hunter2x", "hooks.slack.com", hidden="hunter"),
    # ODBC, ADO, OLE DB
    spelled(f"Server=dw;Uid=etl;Pwd={SECRET};Encrypt=yes", "Uid=etl", ";Encrypt=yes"),
    spelled("DRIVER={x};SERVER=dw;UID=etl;PWD={hun;ter}}2};Encrypt=yes", "UID=etl", ";Encrypt=yes", hidden="ter"),
    spelled("Data Source=dw;User ID=etl;Password=hun ter2;Encrypt=yes", "User ID=etl", ";Encrypt=yes", hidden="ter2"),
    spelled('Data Source=dw;Password="hun;ter2";Encrypt=yes', "Encrypt=yes", hidden="ter2"),
    spelled('Data Source=dw;Password="hun""ter2";Encrypt=yes', "Encrypt=yes", hidden="ter2"),
    spelled("Data Source=dw;Password='hun\"ter2';Encrypt=yes", "Encrypt=yes", hidden="ter2"),
    spelled("Server=dw;Password=hun,ter2;Encrypt=yes", "Encrypt=yes", hidden="ter2"),
    spelled("Server=dw;Password=hun)ter2", "Server=dw", hidden="ter2"),
    spelled("Server=dw;Password=hun'ter2;x=1", "x=1", hidden="ter2"),
    spelled("Server=dw;Password=hun<ter2;x=1", "x=1", hidden="ter2"),
    spelled("Server=dw;Password=hun&ter2;x=1", "x=1", hidden="ter2"),
    spelled("Server=dw;Password=hun=ter2;x=1", "x=1", hidden="ter2"),
    spelled("'Server=dw;Pwd=hunter' failed", "' failed", hidden="hunter"),
    spelled("Server=dw;PWD=/home/hunter;x=1", "x=1", hidden="hunter"),
    spelled("AccountName=x;AccountKey=hunter+/==;EndpointSuffix=y", "EndpointSuffix=y", hidden="hunter"),
    spelled("Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=hunter=", "SharedAccessKeyName=n", hidden="hunter"),
    # SQL
    spelled("CREATE USER etl IDENTIFIED BY 'hunter'", "CREATE USER etl", hidden="hunter"),
    spelled("ALTER USER etl WITH PASSWORD 'hun''ter2' VALID", "VALID", hidden="ter2"),
    spelled("CREATE LOGIN etl WITH PASSWORD = N'hunter', CHECK_POLICY=OFF", hidden="hunter"),
    # XML
    spelled("<password>hunter</password><user>etl</user>", "<user>etl</user>", hidden="hunter"),
    spelled('<db:Password type="x">hun&amp;ter</db:Password>', hidden="ter"),
    spelled('<DTS:Property DTS:Name="Password" Sensitive="1">hunter</DTS:Property>', hidden="hunter"),
    spelled('<add key="DbPassword" value="hunter" x="1"/>', 'x="1"', hidden="hunter"),
    spelled('<login user="etl" password="hunter"/>', 'user="etl"', hidden="hunter"),
    spelled("<login user='etl' Password='hunter'/>", "user='etl'", hidden="hunter"),
    spelled("<clientSecret>hunter</clientSecret>", hidden="hunter"),
    # Keys and tokens by their form
    spelled(f"got {JWT} there", "got ", " there", hidden=JWT[:12]),
    spelled(PEM.format("\n") + "\nrest", "BEGIN RSA PRIVATE KEY", "\nrest", hidden="c2Vj"),
    spelled(json.dumps({"key": PEM.format("\n"), "b": 1}), '"b": 1', hidden="c2Vj"),
    spelled(PEM.format(" "), hidden="c2Vj"),
    spelled("-----BEGIN PRIVATE KEY-----\nhunter", hidden="hunter"),
    spelled("AKIAIOSFODNN7EXAMPLE", hidden="AKIA"),
    spelled("ghp_abcdefghijklmnopqrstuvwxyz0123456789", hidden="ghp_"),
    spelled("xoxb-123456789012-abcdefghijkl", hidden="xoxb"),
    spelled("glpat-abcdefghijklmnopqrst", hidden="glpat"),
    spelled("nt_hash=8846f7eaee8fb117ad06bdd830b7586c", hidden="8846"),
]  # fmt: skip

#: What stays as it is.
WORDS = [
    "Login failed for user 'etl': the password is wrong",
    "password is wrong for user bob",
    "password: authentication failed",
    "password: wrong",
    "Password: (none given)",
    'password authentication failed for user "etl"',
    "the token expired",
    "token: expired",
    "Unexpected token: EOF",
    "Unexpected token '}', line 3",
    "SyntaxError: Unexpected token < in JSON at position 0",
    "401 Unauthorized: invalid token",
    "access token has expired or is not yet valid",
    "max_tokens=4096, prompt_tokens: 55, token_count=5",
    "token_url=https://login.corp.example/oauth2, token_type: bearer",
    "secret 'prod/db' not found in the secrets backend",
    "secret_name=prod/db; password_file=/run/secrets/db",
    "PWD=/home/airflow\nHOME=/home/airflow",
    "pwd: /home/x",
    "PWD=/opt/airflow/dags",
    "Basic authentication is refused by https://dw.corp.example:8443/path",
    "basic auth failed; Basic support is missing",
    "the bearer of bad news",
    "Authorization: denied",
    "Authorization: Basic authentication is required",
    "250-AUTH PLAIN LOGIN NTLM",
    "the token: it has expired",
    "mailto:jane@corp.example/x",
    "authorization failed for user etl",
    "cookie: expired",
    "GET https://dw.corp.example:8443/people?mail=jane@corp.example was refused",
    "no route to smtp://relay.corp.example:25; ask jane@corp.example",
    "ssh://git@git.corp.example/repo.git and mailto:jane@corp.example",
    "Cannot connect to //files/share; write to ops@corp.example",
    "signature mismatch: expected 3 arguments",
    "bad signature: (x: int, y: str) -> bool",
    "KeyError: 'password'",
    "missing column: password, in table users",
    "columns ['id', 'password', 'email']",
    "argument --password: expected one argument",
    "use --password to give one, or --password-file",
    "run --password-stdin --user etl",
    "password=None, token=null",
    '{"password": null}',
    "    if token == expected_token and password != other:",
    "def connect(user: str, password: str) -> None:",
    "primary_key=id, sort_key=name, foreign key: user_id",
    "bypass: true; compass=north; passport: none; secretary: Jane",
    "tests: pass: 12, fail: 3",
    "passwordless login for etl",
    "password must be changed; password has expired",
    "Wrong username or password.",
    "ORA-01017: invalid username/password; logon denied",
    "mysql: Access denied for user 'etl'@'dw' (using password: YES)",
    "mysql -u etl -h dw", "curl -u etl https://dw", "the curl -s option",
    "scp -p file host:", "mkdir -p /srv/data; docker run -p",
    'column name="id" value="5"',
    "<passwordPolicy>strict</passwordPolicy>",
    "ssis package 4711.dtsx: row 12, value 7",
]  # fmt: skip


@pytest.mark.parametrize(("said", "hidden", "kept"), CREDENTIALS)
def test_a_credential_in_any_notation_is_redacted(said: str, hidden: tuple[str, ...], kept: tuple[str, ...]) -> None:
    """The servers, users and words around it stay."""
    for text in (said, f"{said}\n", f"failed: {said}"):
        shown = redact_credentials(text)
        assert [piece for piece in hidden if piece in shown] == []
        assert [piece for piece in kept if piece not in shown] == []
        assert "***" in shown
        assert redact_credentials(shown) == shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"postgresql://etl:{SECRET}@dw.corp.example/dw", "postgresql://etl:***@dw.corp.example/dw"),
        (f"mssql+pyodbc://etl:{SECRET}/p@ss@dw", "mssql+pyodbc://etl:***@dw"),
        (f"redis://:{SECRET}@cache:6379/0 is down", "redis://:***@cache:6379/0 is down"),
        (f"Authorization: Bearer {JWT}", "Authorization: ***"),
        (f"{{'Authorization': 'Basic {JWT}'}}", "{'Authorization': '***'}"),
        (f"sent bearer {JWT} twice", "sent bearer *** twice"),
        (f"Server=dw;Uid=sa;Pwd={SECRET};Encrypt=yes", "Server=dw;Uid=sa;Pwd=***;Encrypt=yes"),
        (f"Server=dw;PWD={{{SECRET};x}};Encrypt=yes", "Server=dw;PWD=***;Encrypt=yes"),
        (f"connect(user='etl', password='{SECRET}')", "connect(user='etl', password=***)"),
        (f"User ID=etl;Password = {SECRET}", "User ID=etl;Password = ***"),
        (f'{{"client_secret": "{SECRET}", "scope": "x"}}', '{"client_secret": ***, "scope": "x"}'),
        (f"{{'db_password': '{SECRET}'}}", "{'db_password': ***}"),
        (f"GET /blob?sv=2024&sig={SECRET}&se=1 403", "GET /blob?sv=2024&sig=***&se=1 403"),
        (f"AccountKey={SECRET}==;EndpointSuffix=x", "AccountKey=***;EndpointSuffix=x"),
    ],
)
def test_the_text_around_a_credential_stays(said: str, shown: str) -> None:
    """The reader needs to see which server and which user it was."""
    assert redact_credentials(said) == shown


@pytest.mark.parametrize("said", WORDS)
def test_ordinary_words_stay(said: str) -> None:
    """The reason is what the mail is for."""
    assert redact_credentials(said) == said


def test_no_credential_is_in_the_default_mail() -> None:
    """Not in the subject, not in the traceback, not split by terminal colors."""
    cause = OSError(f"pwd=\x1b[31m{SECRET}\x1b[0m")
    error = raised(OSError(f"no answer: postgresql://etl:{SECRET}@dw/dw"), cause=cause)
    made = render_page(read_event(task_failed(error)))
    assert "postgresql://etl:***@dw/dw" in made.subject
    assert "pwd=***" in made.text
    assert SECRET not in made.subject + made.text + made.html


@pytest.mark.parametrize(
    "changes",
    [
        {"rendered_map_index": f"load --password {SECRET}"},
        {"hostname": f"https://etl:{SECRET}@worker"},
        {"exception": RuntimeError(f"password: {SECRET}")},
        {"exception": f"password: {SECRET}"},
    ],
)
def test_no_credential_from_another_value_of_the_context_is_in_the_mail(changes: dict[str, Any]) -> None:
    """The label of a mapped task is rendered from data."""
    exception = changes.pop("exception", None)
    made = render_page(read_event(task_failed(exception, **changes)))
    assert "***" in made.text
    assert SECRET not in made.subject + made.text + made.html


def test_no_credential_from_a_run_s_name_is_in_the_mail() -> None:
    """Nor from the reason of its failure."""
    run = run_failed(f"token={SECRET}")
    run["run_id"] = f"manual?api_key={SECRET}"
    made = render_page(read_event(run))
    assert made.text.count("***") >= 2
    assert SECRET not in made.subject + made.text + made.html


PIECES = [
    "a.", "password=", "password: ", "password='", "password=''", "password is ", "password: |\n", "password: |\n  x",
    "://", "://a:", "//a:b@", "token='", "bearer ", "authorization:", "authorization: basic a", "Cookie: a=", "pwd={",
    "\\", "'", "(", "<password ", "<password>", 'key="password" ', "-----BEGIN PRIVATE KEY-----", "mysql -p",
    "curl -u a:", "sqlplus a/", "eyJaaaaaaaaa.", "password='\\", '\\"password\\": \\"', "('password','", "auth('a','",
    "'secret': {", '"secret": [', "--password ", "a=b;password=c ", "password=a,", "Basic YWJj", "passpasspass",
    "password%3D%", "password=&quot;", "sig=a&", "login a password ", "identified by ", "x-api-key: ", "a:b@", "@",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_near_matches_are_matched_in_linear_time(piece: str) -> None:
    """A pattern that backtracks would exceed the test's timeout."""
    text = piece * (100_000 // len(piece))
    assert redact_credentials(text)


@pytest.mark.parametrize("piece", ["password='", "password=''", "://a:b", "'secret': {", "-----BEGIN PRIVATE KEY-----"])
def test_a_megabyte_of_near_matches_is_matched_in_linear_time(piece: str) -> None:
    """On one line; more than an alert reads."""
    text = piece * (1_000_000 // len(piece))
    assert redact_credentials(text)
