"""Real servers for the tests in this folder, each started when the first test needs it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from demo.processes import LOOPBACK
from tests.integration import odbc_databases
from tests.integration.binding_server import BindingServer
from tests.integration.binding_settings import BindingSettings
from tests.integration.celery_stack import Postgresql
from tests.integration.gssapi_postfix import GssapiPostfix
from tests.integration.kerberos import KerberosRealm
from tests.integration.loopback_postfix import LoopbackPostfix
from tests.integration.odbc_databases import Database
from tests.integration.postfix import Postfix
from tests.integration.programs import KERBEROS_COMMAND
from tests.integration.samba_domain import SambaDomain
from tests.integration.system_packages import skip_for_want_of, skip_unless_root

# What holds for a task that is killed and retried depends on Airflow's version (docs/guarantees.md). From 3.3 on
# a ledger outlives the task, which the first tests are for. Before that such a task would send all its mails
# again; the last test is for that. A test that is named explicitly is collected on any Airflow.
_NEED_A_LEDGER = ["test_celery.py", "test_kill_in_a_merge.py"]
_BEFORE_LEDGERS = ["test_kill_without_a_ledger.py"]
_AIRFLOW = tuple(int(number) for number in version("apache-airflow").split(".")[:2])
collect_ignore = _BEFORE_LEDGERS if _AIRFLOW >= (3, 3) else _NEED_A_LEDGER

#: By these a Kerberos or NTLM client would find an identity that no test gave it.
IDENTITY_VARIABLES = ("KRB5CCNAME", "KRB5_KTNAME", "KRB5_CLIENT_KTNAME", "NTLM_USER_FILE")


def _skip_unless_it_can_start(postfix: type[LoopbackPostfix]) -> None:
    if missing := postfix.missing():
        skip_for_want_of(missing)
    skip_unless_root("Postfix")


@pytest.fixture(scope="session")
def running_postfix() -> Iterator[Postfix]:
    """A Postfix for all tests."""
    _skip_unless_it_can_start(Postfix)
    with Postfix() as server:
        yield server


@pytest.fixture
def postfix(running_postfix: Postfix) -> Iterator[Postfix]:
    """Postfix with an empty mailbox."""
    running_postfix.clear()
    yield running_postfix
    running_postfix.clear()


# --- Databases through ODBC.


@pytest.fixture(scope="session")
def running_postgresql() -> Iterator[Postgresql]:
    """A PostgreSQL for all tests."""
    with Postgresql() as server:
        yield server


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Each database; a table that a test needs, it creates itself."""
    if missing := odbc_databases.missing():
        skip_for_want_of(missing)
    pytest.importorskip("pyodbc", reason="Python's pyodbc missing: make venv")
    if request.param == "SQLite":
        with odbc_databases.open_sqlite(tmp_path) as database:
            yield database
    else:
        with odbc_databases.open_postgresql(request.getfixturevalue("running_postgresql")) as database:
            yield database


# --- Kerberos, and the servers that support it.


@pytest.fixture(scope="session")
def running_realm() -> Iterator[KerberosRealm]:
    """A Kerberos realm for all tests, which no process has entered yet."""
    if missing := KerberosRealm.missing():
        skip_for_want_of(missing)
    if missing := ", ".join(name for name in ("gssapi", "krb5") if find_spec(name) is None):
        pytest.skip(f"Python's {missing} missing: {KERBEROS_COMMAND}")
    with KerberosRealm() as realm:
        yield realm


@pytest.fixture
def kerberos(running_realm: KerberosRealm, monkeypatch: pytest.MonkeyPatch) -> KerberosRealm:
    """The realm, entered by this process, which has no identity but what the test gives it.

    MIT's library reads its variables again for each context, so they may change from test to test.
    """
    for name in IDENTITY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in running_realm.environment().items():
        monkeypatch.setenv(name, value)
    return running_realm


@pytest.fixture(scope="module")
def running_domain() -> Iterator[SambaDomain]:
    """An Active Directory domain for the tests of a file; a machine can have one at a time."""
    if missing := SambaDomain.missing():
        skip_for_want_of(missing)
    skip_unless_root("Samba's domain controller")
    if missing := ", ".join(name for name in ("gssapi", "krb5") if find_spec(name) is None):
        pytest.skip(f"Python's {missing} missing: {KERBEROS_COMMAND}")
    with SambaDomain() as domain:
        yield domain


@pytest.fixture
def samba(running_domain: SambaDomain, monkeypatch: pytest.MonkeyPatch) -> SambaDomain:
    """The domain, entered by this process, which has no identity but what the test gives it."""
    for name in IDENTITY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in running_domain.environment().items():
        monkeypatch.setenv(name, value)
    return running_domain


@pytest.fixture(scope="module")
def running_samba_server(running_domain: SambaDomain) -> Iterator[BindingServer]:
    """A server of the domain for the tests of a file."""
    with BindingServer(
        running_domain, BindingSettings(channel_binding="allow", mechanisms=("GSSAPI", "NTLM"))
    ) as server:
        yield server


@pytest.fixture
def samba_server(running_samba_server: BindingServer, samba: SambaDomain) -> BindingServer:
    """The server, without an attempt, in the domain of this process."""
    running_samba_server.clear()
    return running_samba_server


@pytest.fixture
def corp_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """For this process every name in corp.example resolves to this machine."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        is_ours = isinstance(name, str) and name.endswith(f".{KerberosRealm.domain}")
        return resolve(LOOPBACK if is_ours else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture(scope="session")
def running_gssapi_postfix(running_realm: KerberosRealm) -> Iterator[GssapiPostfix]:
    """A Postfix with GSSAPI and GSS-SPNEGO for all tests."""
    _skip_unless_it_can_start(GssapiPostfix)
    with GssapiPostfix(running_realm) as server:
        yield server


@pytest.fixture
def gssapi_postfix(running_gssapi_postfix: GssapiPostfix, kerberos: KerberosRealm) -> Iterator[GssapiPostfix]:
    """Postfix with an empty mailbox, in the realm of this process."""
    running_gssapi_postfix.clear()
    yield running_gssapi_postfix
    running_gssapi_postfix.clear()


@pytest.fixture(scope="session")
def running_binding_servers(running_realm: KerberosRealm) -> Iterator[Callable[[BindingSettings], BindingServer]]:
    """One server for all tests with the same settings."""
    if missing := BindingServer.missing():
        skip_for_want_of(missing)
    servers: dict[BindingSettings, BindingServer] = {}
    with ExitStack() as running:

        def start(settings: BindingSettings) -> BindingServer:
            if settings not in servers:
                servers[settings] = running.enter_context(BindingServer(running_realm, settings))
            return servers[settings]

        yield start


@pytest.fixture
def binding_server(
    running_binding_servers: Callable[[BindingSettings], BindingServer], kerberos: KerberosRealm
) -> Callable[..., BindingServer]:
    """Return a function that takes `BindingSettings` and returns a server that checks channel bindings."""

    def get(**settings: Any) -> BindingServer:
        server = running_binding_servers(BindingSettings(**settings))
        server.clear()
        return server

    return get
