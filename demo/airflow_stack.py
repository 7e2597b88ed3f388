"""A private, real Airflow on free loopback ports: API server, scheduler (LocalExecutor, SQLite) and DAG processor.

Unlike `airflow standalone`, which opens log servers on every network interface and leaves processes behind when it is
stopped, each component is a session of its own, its home is a temporary folder, and `stop()` ends all of it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from demo.processes import LOOPBACK, Service, free_port, signals_held, stop

AIRFLOW = [sys.executable, "-m", "airflow"]
FINAL_STATES = frozenset({"success", "failed"})
POLL_SECONDS = 0.25

T = TypeVar("T")


class StackError(Exception):
    """Airflow failed; the message has what it printed or logged."""


class AirflowStack:
    """Airflow as a context manager.

    Args:
        dags_folder: its DAGs. The home with logs and database is a temporary folder.
        config: further options of Airflow, as `{"core.test_connection": "Enabled"}`.
        database: an SQLite file with this Airflow's tables, to begin with a copy of; None: they are created.
    """

    def __init__(
        self,
        dags_folder: Path,
        *,
        config: Mapping[str, str] | None = None,
        database: Path | None = None,
    ) -> None:
        self.url = f"http://{LOOPBACK}:{free_port()}"
        self._dags_folder = dags_folder
        self._config = dict(config or {})
        self._database = database
        self._services: list[Service] = []
        self._folder: Path | None = None
        self._env: dict[str, str] = {}
        self._token = ""
        # Without the system's proxy: Airflow runs on this machine.
        self._http = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- Running

    def start(self) -> None:
        """Create the database and start the three components; `wait_until_healthy` waits for them."""
        if self._folder is not None:
            raise StackError("This Airflow is running already; stop() it first.")
        self._folder = Path(tempfile.mkdtemp(prefix="airflow-smtpcm-"))
        try:
            self._env = self._environment(self._folder)
            if self._database is None:
                self.cli("db", "migrate")
            else:
                shutil.copyfile(self._database, self._folder / "home/airflow.db")
            port = self.url.rpartition(":")[2]
            self._launch("api-server", "--host", LOOPBACK, "--port", port, "--workers", "1")
            self._launch("scheduler", "--skip-serve-logs")
            self._launch("dag-processor")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all processes with their children, and remove the home. Idempotent."""
        with signals_held():  # a second Ctrl-C must not leave processes behind
            stop(self._services)
            self._services = []
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def wait_until_healthy(self, timeout: float = 400) -> None:
        """Wait until Airflow reports its database, scheduler and DAG processor as healthy.

        Args:
            timeout: in seconds.

        Raises:
            StackError: it took longer, or a component ended.
        """

        def healthy() -> bool:
            health = self._request("GET", "/api/v2/monitor/health", token=False)
            parts = ("metadatabase", "scheduler", "dag_processor")
            return all(health[part]["status"] == "healthy" for part in parts)

        self._wait_for(healthy, timeout, "Airflow to be healthy")
        self._token = self._request("GET", "/auth/token", token=False)["access_token"]

    def cli(self, *arguments: str) -> str:
        """Run `airflow ...` in this Airflow's environment and return what it printed."""
        done = subprocess.run(
            [*AIRFLOW, *arguments],
            env=self._env,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
        )
        if done.returncode:
            # Only two words of the command: a connection's JSON contains a password.
            command = " ".join(arguments[:2])
            raise StackError(f"`airflow {command}` failed with {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
        return done.stdout

    # --- Airflow's API

    def trigger(self, dag_id: str, *, conf: Mapping[str, Any] | None = None, timeout: float = 300) -> str:
        """Unpause a DAG once it has been parsed, start a run of it, and return the run's id.

        Args:
            conf: the configuration of the run.
            timeout: how long to wait for the DAG, in seconds.
        """
        self._wait_for(lambda: self._has_dag(dag_id), timeout, f"the DAG {dag_id} to be parsed")
        self._request("PATCH", f"/api/v2/dags/{dag_id}?update_mask=is_paused", {"is_paused": False})
        body = {"logical_date": None, "conf": dict(conf or {})}
        run = self._request("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)
        return str(run["dag_run_id"])

    def wait_for_run(self, dag_id: str, run_id: str, *, timeout: float = 400) -> str:
        """Wait for a run to end and return `success` or `failed`."""

        def ended() -> str:
            state = str(self._request("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"])
            return state if state in FINAL_STATES else ""

        return self._wait_for(ended, timeout, f"run {run_id} of {dag_id} to end")

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run, as Airflow's API describes them."""
        found: list[dict[str, Any]] = self._request("GET", self._task_instances_path(dag_id, run_id))["task_instances"]
        return found

    def task_logs(self, dag_id: str, run_id: str) -> str:
        """Return the log of the last try of every task of a run, as the web page shows it."""
        path = self._task_instances_path(dag_id, run_id)
        lines = []
        for task in self.task_instances(dag_id, run_id):
            tried = task["try_number"]
            mapped = f"?map_index={task['map_index']}"
            answer = self._request("GET", f"{path}/{task['task_id']}/logs/{tried}{mapped}")
            lines += [f"--- {task['task_id']}, try {tried}: {task['state']}", *_log_lines(answer["content"])]
        return "\n".join(lines)

    def component_logs(self) -> str:
        """Return the last lines of each component's output."""
        return "\n".join(f"--- {service.name}\n{service.log_tail()}" for service in self._services)

    # --- Internals

    @staticmethod
    def _task_instances_path(dag_id: str, run_id: str) -> str:
        return f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances"

    def _environment(self, folder: Path) -> dict[str, str]:
        """Return the environment with this Airflow's settings, and without those of any other."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        home = folder / "home"
        home.mkdir()
        options = {
            "core.dags_folder": str(self._dags_folder.resolve()),
            "core.load_examples": "False",
            "core.executor": "LocalExecutor",
            "core.parallelism": "2",
            "core.auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            "core.simple_auth_manager_all_admins": "True",
            "core.execution_api_server_url": f"{self.url}/execution/",
            "core.fernet_key": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "database.sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}",
            "api.base_url": self.url,
            "api_auth.jwt_secret": secrets.token_urlsafe(48),
            "dag_processor.parsing_processes": "1",
            "workers.execution_api_timeout": "60",  # a busy machine exceeds the default of 5 s
            "workers.min_heartbeat_interval": "1",  # how often a worker checks that its task still exists
            **self._config,
        }
        for option, value in options.items():
            section, _, key = option.partition(".")
            env[f"AIRFLOW__{section}__{key}".upper()] = value
        env["AIRFLOW_HOME"] = str(home)
        env["NO_PROXY"] = env["no_proxy"] = f"{LOOPBACK},localhost"
        return env

    def _launch(self, component: str, *arguments: str) -> None:
        assert self._folder is not None
        log = self._folder / f"{component}.log"
        with signals_held() as held:  # no signal comes between the start of the process and its registration
            self._services.append(Service(component, [*AIRFLOW, component, *arguments], env=self._env, log=log))
        for number in held:
            signal.raise_signal(number)

    def _has_dag(self, dag_id: str) -> bool:
        try:
            self._request("GET", f"/api/v2/dags/{dag_id}")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
        else:
            return True
        broken = self._request("GET", "/api/v2/importErrors")["import_errors"]
        if broken:
            raise StackError("\n".join(f"{file['filename']}:\n{file['stack_trace']}" for file in broken))
        return False

    def _wait_for(self, answer: Callable[[], T], timeout: float, what: str) -> T:
        """Call `answer` until it returns something true.

        Args:
            answer: asks Airflow. While it raises OSError (no connection yet, or a 5xx status), it is called again.
            timeout: in seconds.
            what: what is waited for, for the error.

        Raises:
            StackError: it took longer, or a component ended.
        """
        deadline = time.monotonic() + timeout
        while True:
            trouble = ""
            try:
                if result := answer():
                    return result
            except OSError as error:
                # A 4xx status is the client's fault and does not pass.
                if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                    raise
                trouble = f" ({error})"
            for service in self._services:
                if service.returncode is not None:
                    raise StackError(f"{service.name} ended with {service.returncode}:\n{service.log_tail()}")
            if time.monotonic() > deadline:
                raise StackError(f"Waited {timeout:.0f} s in vain for {what}{trouble}.\n{self.component_logs()}")
            time.sleep(POLL_SECONDS)

    def _request(self, method: str, path: str, body: object = None, *, token: bool = True) -> Any:
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Accept", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {self._token}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        with self._http.open(request, timeout=30) as answer:
            return json.load(answer)


def _log_lines(content: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a task's log as text, with the type and message of an exception but without its traceback."""
    for entry in content:
        if "timestamp" not in entry or entry["event"].startswith("::"):  # log file, groups
            continue
        yield f"{entry['timestamp']} {entry.get('level', '')} {entry['event']}"
        for error in entry.get("error_detail") or ():
            yield f"    {error['exc_type']}: {error['exc_value']}"
