"""The quick start, followed literally: its commands in its terminals, its files in its folder, up to the alert.

Unlike on a reader's machine, pip installs this package from a wheel of this tree, and finds its dependencies already
installed; and Airflow listens on free ports.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from demo.processes import LOOPBACK, free_port, processes_in
from tests.documents.newest import ON_THE_NEWEST_AIRFLOW
from tests.documents.pages import DOCS, Block, blocks_of, text_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PAGE = DOCS / "quick-start.md"
ROOT = DOCS.parent
PATIENCE = 900  # seconds for a step, of which none takes a tenth
OURS = ("airflow_provider_smtpcm", "_airflow_provider_smtpcm", "_editable_impl", "__editable__")


class Terminal:
    """A shell in which commands are typed.

    Args:
        folder: its working directory.
        environment: of the shell.
        screen: the file with its output.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], screen: Path) -> None:
        self._screen = screen
        self._typed = 0
        with screen.open("wb") as output:
            self._shell = subprocess.Popen(
                ["bash"],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    @property
    def shown(self) -> str:
        """Everything on the screen."""
        return self._screen.read_text(encoding="utf-8", errors="replace")

    def type(self, command: str) -> None:
        """Type a command and Enter, and do not wait."""
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{command}\n")
        self._shell.stdin.flush()

    def run(self, command: str, *, status: int = 0) -> str:
        """Type a command, wait for its end, and return its output; fail if it ends with another status."""
        self._typed += 1
        before, mark = len(self.shown), f"[[{self._typed} ended with "
        self.type(f"{command}\necho '{mark}'$?']]'")
        self.wait_for(lambda: mark in self.shown, f"the end of {command!r}")
        said = self.shown[before:]
        assert f"{mark}{status}]]" in said, f"$ {command}\n{said}"
        return said

    def wait_for(self, seen: Callable[[], object], what: str) -> None:
        """Wait until this is on the screen."""
        deadline = time.monotonic() + PATIENCE
        while not seen():
            assert time.monotonic() < deadline, f"Waited in vain for {what}:\n{self.shown[-3000:]}"
            time.sleep(0.2)

    def close(self) -> None:
        """Press Ctrl-C, and end all that was started in it."""
        members = processes_in({self._shell.pid})
        os.killpg(self._shell.pid, signal.SIGINT)
        deadline = time.monotonic() + 30
        while len(members := processes_in({self._shell.pid})) > 1 and time.monotonic() < deadline:
            time.sleep(0.2)
        for pid in members:
            os.kill(pid, signal.SIGKILL)
        self._shell.wait()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture
def environment(tmp_path: Path, wheels: Path) -> dict[str, str]:
    """The environment of a user without an Airflow."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "PYTHON", "VIRTUAL_"))
    }
    port = str(free_port())
    return kept | {
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "NO_PROXY": f"{LOOPBACK},localhost",
        "no_proxy": f"{LOOPBACK},localhost",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",  # a busy machine exceeds the default of 5 s
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": port,
        "AIRFLOW__API__BASE_URL": f"http://localhost:{port}",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
    }


def lend_packages(venv: Path) -> None:
    """Add what pip would install besides this package, and `airflow`, to the new environment."""
    here = Path(sysconfig.get_path("purelib"))
    lent = venv / "lent"
    lent.mkdir()
    for entry in here.iterdir():
        if not entry.name.startswith(OURS) and entry.suffix != ".pth":
            (lent / entry.name).symlink_to(entry)
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(f"{lent}\n")
    program = venv / "bin/airflow"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(str(venv / "bin/python"))} -m airflow "$@"\n')
    program.chmod(0o755)


class Walk:
    """A reader who follows the page.

    Args:
        folder: the empty folder.
    """

    def __init__(self, folder: Path, terminals: Mapping[str, Terminal]) -> None:
        self._folder = folder
        self._terminals = terminals

    def follow(self, block: Block) -> None:
        """Do what a block of the page is for."""
        if block.language == "python":
            (self._folder / block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "text":
            terminal = self._terminals[block.title]
            for line in block.code.splitlines():
                # The size of an alert depends on the time and the host.
                pattern = re.sub(r"[\d,]+\\ octets", r"[\\d,]+ octets", re.escape(line))
                terminal.wait_for(partial(lambda seen: re.search(seen, terminal.shown), pattern), repr(line))
        else:
            assert block.language == "console", block
            for line in block.code.splitlines():
                self._command(self._terminals[block.title], line.removeprefix("$ "))

    def inbox_url(self) -> str:
        """Return the address that the relay has printed."""
        [url] = re.findall(r"In a browser, its mails are at (\S+)", self._terminals["Terminal 1"].shown)
        return str(url)

    def _command(self, terminal: Terminal, command: str) -> None:
        if " relay " in command:
            terminal.type(command)
            terminal.wait_for(lambda: "Stop it with Ctrl-C" in terminal.shown, "the relay")
        elif command == "airflow api-server":
            terminal.type(command)
            terminal.wait_for(lambda: "Uvicorn running on" in terminal.shown, "the API server")
            assert re.search(r"Password for user 'admin': \w+", terminal.shown)
        elif command == "airflow dags test nightly_load":
            assert "\nDagRun failed" in terminal.run(command, status=1)
        else:
            said = terminal.run(command)
            if command.startswith("python3 -m venv"):
                lend_packages(self._folder / command.rsplit(maxsplit=1)[-1])
            elif command.startswith("pip install"):
                assert "Successfully installed airflow-provider-smtpcm" in said
            elif command == "airflow db migrate":
                assert "Now copy the whole line that begins with `airflow connections add`" in text_of(PAGE)
                printed = self._terminals["Terminal 1"].shown.splitlines()
                [line] = [line for line in printed if line.startswith("airflow connections add")]
                assert "Successfully added `conn_id`=smtpcm_default" in terminal.run(line)
            elif " check " in command:
                assert "\nThe connection works." in said


@pytest.fixture
def walk(tmp_path: Path, environment: dict[str, str]) -> Iterator[Walk]:
    """Two terminals in an empty folder."""
    folder = tmp_path / "empty"
    folder.mkdir()
    titles = sorted({block.title for block in blocks_of(PAGE) if block.language == "console"})
    assert titles == ["Terminal 1", "Terminal 2"]
    with ExitStack() as stack:
        terminals = {}
        for title in titles:
            terminals[title] = Terminal(folder, environment, tmp_path / f"{title}.txt")
            stack.callback(terminals[title].close)
        yield Walk(folder, terminals)
    shutil.rmtree(folder)


if ON_THE_NEWEST_AIRFLOW:

    def test_from_an_empty_folder_to_the_alert_of_a_failed_dag(walk: Walk) -> None:
        """Block by block; the alert was sent with Windows Authentication."""
        blocks = list(blocks_of(PAGE))
        for block in blocks:
            walk.follow(block)
        shown = [block for block in blocks if block.language == "text"]
        assert "Subject: [Airflow] Failed: nightly_load.load" in shown[-1].code
        assert r"authenticated as CORP\alice with NTLM" in shown[-1].code
        url = walk.inbox_url()
        with urllib.request.urlopen(f"{url}events", timeout=60) as events:  # noqa: S310
            assert b"[Airflow] Failed: nightly_load.load" in b"".join(events.readline() for _ in range(3))
        with urllib.request.urlopen(f"{url}mails/2/html", timeout=60) as html:  # noqa: S310
            assert b"orders.csv is not there" in html.read()
