"""A relay has its own process, which changes nothing here and ends with the process that started it."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_smtpcm.testing import ReceivedMail, Relay, RelayError
from tests.testing.clients import PASSWORD, USER, USERS, connect, log_in, send
from tests.waiting import wait_until


def is_free(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except ConnectionRefusedError:
        return True
    return False


def pid_of(relay: Relay) -> int:
    assert relay._server is not None
    return relay._server._process.pid


def user_files(folder: Path) -> list[Path]:
    return list(folder.glob("smtpcm-relay-*/*"))


# --- Whose environment


def test_the_environment_here_is_never_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a relay with users runs, a client without a password still has none."""
    monkeypatch.delenv("NTLM_USER_FILE", raising=False)
    before = dict(os.environ)
    with Relay(users=USERS) as relay, connect(relay) as client:
        assert log_in(client)[0] == 235
        assert "NTLM_USER_FILE" not in os.environ
        assert dict(os.environ) == before
    assert dict(os.environ) == before


def test_a_client_without_a_password_is_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no credentials; a server in the same process would have given it some."""
    import spnego

    monkeypatch.delenv("NTLM_USER_FILE", raising=False)
    with Relay(users=USERS), pytest.raises(spnego.exceptions.SpnegoError):
        spnego.client(hostname="localhost", service="smtp", protocol="ntlm").step()


def test_the_client_s_environment_does_not_reach_the_relay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other users and another NTLM level are set for clients here."""
    (tmp_path / "users").write_text("CORP:mallory:known\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(tmp_path / "users"))
    with Relay(users=USERS) as relay, connect(relay) as client:
        assert log_in(client, r"CORP\mallory", "known")[0] == 535
        monkeypatch.setenv("LM_COMPAT_LEVEL", "0")
        assert log_in(client)[0] == 535, "NTLMv1 is not taken"
        monkeypatch.delenv("LM_COMPAT_LEVEL")
        assert log_in(client)[0] == 235


def test_the_user_file_is_private_and_removed_with_the_relay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Mode 0600 in a folder of mode 0700; both are removed afterward."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Relay(users=USERS):
        [path] = user_files(tmp_path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_passwords_are_on_no_command_line_and_in_no_repr() -> None:
    """Neither `ps` nor a log shows them."""
    with Relay(users=USERS) as relay:
        assert PASSWORD.encode() not in Path(f"/proc/{pid_of(relay)}/cmdline").read_bytes()
        assert PASSWORD.encode() not in Path(f"/proc/{pid_of(relay)}/environ").read_bytes()
        assert PASSWORD not in repr(relay) + repr(relay._settings)


def test_files_in_the_current_folder_do_not_hide_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests may run in a folder with an `email.py` and an `ssl.py`."""
    for name in ("email.py", "ssl.py", "spnego.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    with Relay(users=USERS) as relay, connect(relay) as client:
        assert log_in(client)[0] == 235


# --- Whose life

HOLDER = """
    import sys, time
    from airflow_provider_smtpcm.testing import Relay
    relay = Relay(users={"alice": "secret"}).start()
    print(relay.port, relay._server._process.pid, flush=True)
    if "leave" in sys.argv:
        sys.exit()
    time.sleep(300)
"""


@pytest.mark.parametrize("end", ["killed", "forgotten"])
def test_the_relay_ends_with_the_process_that_started_it(end: str, tmp_path: Path) -> None:
    """After kill -9 and after a forgotten stop(), no process, port or file remains."""
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), *(["leave"] if end == "forgotten" else [])],
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        port, pid = map(int, holder.stdout.readline().split())
        if end == "killed":
            assert not is_free(port)
            assert len(user_files(tmp_path)) == 1
            holder.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text())
    assert is_free(port)
    wait_until(lambda: list(tmp_path.iterdir()) == [])


def test_a_fork_does_not_stop_the_relay() -> None:
    """It belongs to the process that started it; in a fork, its use is an error."""
    with Relay(ssl_mode="none") as relay:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:  # pragma: no cover
            signal.alarm(30)  # should it wait after all
            try:
                relay.stop()
                relay.messages  # noqa: B018
            except RelayError as error:
                os.write(writing, str(error).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(pid, 0)
        with os.fdopen(reading, "rb") as pipe:
            assert f"belongs to process {os.getpid()}".encode() in pipe.read()
        assert relay.messages == []


def test_ctrl_c_in_the_terminal_is_not_for_the_relay() -> None:
    """It has its own process group, so that its owner can use it and then stop it."""
    with Relay(ssl_mode="none") as relay:
        assert os.getpgid(pid_of(relay)) != os.getpgid(0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_cleanly(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The next use is an error, rather than an empty list."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Relay(users=USERS) as relay:
        os.kill(pid_of(relay), number)
        with pytest.raises(RelayError, match="ended unexpectedly, with exit status 0"):
            wait_until(lambda: relay.messages != [])
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_a_killed_relay_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wait for mail fails at once, and no password remains in the file system."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Relay(users=USERS) as relay:
        os.kill(pid_of(relay), signal.SIGKILL)
        with pytest.raises(RelayError, match="exit status -9"):
            relay.wait_for_messages(1, timeout=3600)
        assert len(user_files(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_named() -> None:
    """With the remedy."""
    with Relay(ssl_mode="none") as first:
        with pytest.raises(RelayError, match=rf"port {first.port}: Address already in use. Choose another port, or 0"):
            Relay(ssl_mode="none", port=first.port).start()
        assert first.messages == []


def test_a_relay_is_started_before_it_is_used_and_once() -> None:
    """Each mistake is named."""
    relay = Relay(ssl_mode="none")
    with pytest.raises(RelayError, match="has not been started"):
        relay.port  # noqa: B018
    with pytest.raises(RelayError, match="has not been started"):
        relay.wait_for_messages(1)
    relay.stop()
    with relay, pytest.raises(RelayError, match="already running"):
        relay.start()


def test_a_relay_can_be_stopped_twice_and_started_again() -> None:
    """Its mails are kept after stop(), and dropped by start()."""
    with Relay(ssl_mode="none") as probe:
        port = probe.port
    relay = Relay(ssl_mode="none", port=port)
    with relay, connect(relay) as client:
        send(client)
        relay.stop()
        relay.stop()
        assert len(relay.messages) == 1
        assert relay.port == port
        assert is_free(port)
    with relay, connect(relay) as client:
        assert relay.messages == []
        send(client)
        assert len(relay.messages) == 1


# --- What has arrived


def test_waiting_in_vain_says_how_many_arrived() -> None:
    """After the timeout, and at once if the relay is stopped."""
    with Relay(ssl_mode="none") as relay:
        with connect(relay) as client:
            send(client)
        with pytest.raises(TimeoutError, match=r"Waited for 2 mails; 1 arrived within 0\.1 s"):
            relay.wait_for_messages(2, timeout=0.1)
    with pytest.raises(TimeoutError, match="1 arrived before the relay was stopped"):
        relay.wait_for_messages(2, timeout=60)
    assert len(relay.wait_for_messages(1)) == 1


def test_waiting_ends_when_the_mail_comes() -> None:
    """From another thread, while this one waits."""
    with Relay(ssl_mode="none") as relay:

        def later() -> None:
            time.sleep(0.2)
            with connect(relay) as client:
                send(client, "a@corp.example")
                send(client, "b@corp.example")

        thread = threading.Thread(target=later)
        thread.start()
        mails = relay.wait_for_messages(2, timeout=60)
        thread.join()
        assert [mail.recipients for mail in mails] == [("a@corp.example",), ("b@corp.example",)]


def test_an_accepted_mail_is_in_the_list_at_once() -> None:
    """A mail is in the list before its 250; clear() removes exactly these."""
    with Relay(ssl_mode="none") as relay, connect(relay) as client:
        for number in range(100):
            send(client, f"{number}@corp.example")
            assert [mail.recipients for mail in relay.messages] == [(f"{number}@corp.example",)]
            assert len(relay.clear()) == 1
            assert relay.messages == []


def test_a_large_mail_comes_through() -> None:
    """Twenty million octets."""
    with Relay(ssl_mode="none") as relay, connect(relay) as client:
        content = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * 256_410
        send(client, content=content)
        assert relay.messages[0].content == content


def test_many_clients_at_once() -> None:
    """Each mail under its own sender's name."""
    users = {rf"CORP\user{number}": f"password {number}" for number in range(8)}
    with Relay(users=users) as relay:

        def work(user: str, password: str) -> None:
            with connect(relay) as client:
                assert log_in(client, user, password)[0] == 235
                for _ in range(5):
                    client.sendmail(f"{user[5:]}@corp.example", ["bob@corp.example"], b"Subject: x\r\n")

        threads = [threading.Thread(target=work, args=user) for user in users.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(relay.messages) == 40
        for mail in relay.messages:
            assert mail.authenticated_as == rf"CORP\{mail.mail_from.removesuffix('@corp.example')}"


def test_importing_the_relay_is_cheap() -> None:
    """No slow module is loaded before a relay starts, and few after."""
    heavy = ("aiosmtpd", "trustme", "spnego", "cryptography", "ssl", "smtplib", "email", "asyncio", "airflow")
    program = f"""
import sys
from airflow_provider_smtpcm.testing import ReceivedMail, Relay
assert not [name for name in {heavy!r} if name in sys.modules], sys.modules
with Relay(users={{"alice": "secret"}}) as relay:
    relay.messages
assert not [name for name in {heavy!r} if name in sys.modules], sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it; without TLS no certificates are needed."""
    from airflow_provider_smtpcm.testing import relay

    monkeypatch.setattr(relay, "find_spec", lambda _name: None)
    with pytest.raises(ModuleNotFoundError, match=r"aiosmtpd and trustme.*'airflow-provider-smtpcm\[testing\]'"):
        Relay().start()
    with pytest.raises(ModuleNotFoundError, match=r"needs aiosmtpd\. "):
        Relay(ssl_mode="none").start()


def test_a_received_mail_cannot_be_changed_and_tells_little_of_its_content() -> None:
    """A failing test should not print all of it."""
    with Relay(ssl_mode="none") as relay, smtplib.SMTP("localhost", relay.port, timeout=60) as client:
        client.sendmail("alice@corp.example", ["bob@corp.example"], "Subject: hidden")
        [mail] = relay.messages
    assert isinstance(mail, ReceivedMail)
    with pytest.raises(AttributeError):
        mail.mail_from = "mallory@corp.example"  # type: ignore[misc]
    assert "hidden" not in repr(mail)
    assert USER not in repr(mail)
