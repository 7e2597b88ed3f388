"""A real Airflow with the CeleryExecutor: PostgreSQL, Redis, and workers that can be killed one by one.

Everything is on loopback ports and in a temporary folder: a PostgreSQL or a Redis of the machine is neither used nor
changed. Each worker has its name in the Airflow variable `worker`, so that a mail can contain it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from signal import SIGINT
from typing import Any

from demo.airflow_stack import AIRFLOW, AirflowStack
from demo.processes import LOOPBACK, Service, free_port, processes_in, stop
from tests.integration.programs import LIBRARIES, ServerProgram, absent, run

_INITDB = "postgresql/*/bin/initdb"
_NOBODY, _NOGROUP = "nobody", "nogroup"


class Daemon(ServerProgram):
    """A server on a free port, with a password of its own, that never runs as root."""

    # On SIGTERM PostgreSQL waits for its clients to leave; on SIGINT both servers shut down at once.
    stop_signal = SIGINT

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self.password = secrets.token_hex(16)

    def _start(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, _NOBODY, _NOGROUP)
        command = [*_unprivileged(), *self._prepare(self.folder)]
        self._launch(command, self._is_ready, env={"LANG": "C"})

    def _prepare(self, folder: Path) -> list[str]:
        """Write its configuration, and return the command that starts it."""
        raise NotImplementedError

    def _is_ready(self) -> bool:
        """Look for the line that both servers log when ready; an open port alone does not mean that."""
        return "ready to accept connections" in self.log().lower()

    def _secret_file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text)
        if os.geteuid() == 0:
            shutil.chown(path, _NOBODY, _NOGROUP)
        return path


class Postgresql(Daemon):
    """Airflow's database, which also has the ledgers of the tasks."""

    name = "postgresql"

    @property
    def dsn(self) -> str:
        """The URI of its database."""
        return f"postgresql://airflow:{self.password}@{LOOPBACK}:{self.port}/postgres"

    def _prepare(self, folder: Path) -> list[str]:
        programs, data = max(LIBRARIES.glob(_INITDB)).parent, folder / "data"
        password = self._secret_file("password", self.password)
        make = ["--username=airflow", f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"]
        run([*_unprivileged(), str(programs / "initdb"), f"--pgdata={data}", "--no-sync", *make])
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "off",  # it lives as long as the test
        }
        return [
            str(programs / "postgres"),
            "-D",
            str(data),
            *(word for option, value in options.items() for word in ("-c", f"{option}={value}")),
        ]


class Redis(Daemon):
    """The broker of the workers."""

    name = "redis"

    @property
    def url(self) -> str:
        """The URI of its first database."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def _prepare(self, folder: Path) -> list[str]:
        settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "requirepass": self.password,
            "save": '""',
            "appendonly": "no",
            "dir": str(folder),
        }
        text = "".join(f"{setting} {value}\n" for setting, value in settings.items())
        return ["redis-server", str(self._secret_file("redis.conf", text))]


class CeleryStack(AirflowStack):
    """Airflow with two workers or more as a context manager.

    Args:
        dags_folder: see `AirflowStack`.
        workers: their names.
        concurrency: tasks that each runs at the same time.
        config: further options of Airflow.
    """

    def __init__(
        self,
        dags_folder: Path,
        *,
        workers: tuple[str, ...] = ("one", "two"),
        concurrency: int = 4,
        config: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(dags_folder, config=config)
        self._names = workers
        self._concurrency = concurrency
        self._workers: dict[str, Service] = {}
        self._daemons = ExitStack()
        self.postgresql = Postgresql()
        self._redis = Redis()

    @classmethod
    def missing(cls) -> str | None:
        """Return what it needs and this machine lacks, or None."""
        return absent(("redis-server",), {_INITDB: "postgresql"})

    def start(self) -> None:
        """Start the servers, the components, and then the workers."""
        try:
            self._daemons.enter_context(self.postgresql)
            self._daemons.enter_context(self._redis)
            super().start()
            for name in self._names:
                self._start_worker(name)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything; the servers last, so that their clients log no errors."""
        super().stop()
        self._daemons.close()

    def wait_until_healthy(self, timeout: float = 180) -> None:
        """Wait for the workers too."""
        super().wait_until_healthy(timeout)
        for name, worker in self._workers.items():

            def ready(name: str = name, worker: Service = worker) -> bool:
                return f"celery@{name} ready" in worker.log.read_text(errors="replace")

            self.wait_for(ready, timeout, f"the worker {name} to be ready")

    def wait_for(self, answer: Callable[[], bool], timeout: float, what: str) -> None:
        """Wait until the answer is true; a component that ends by itself meanwhile is an error."""
        self._wait_for(answer, timeout, what)

    @property
    def workers(self) -> tuple[str, ...]:
        """The workers that are running."""
        return tuple(self._workers)

    def kill(self, worker: str) -> None:
        """Kill a worker with all that it runs at the same moment, without a report, as a power failure does."""
        service = self._workers.pop(worker)
        # From now on its end is not an error.
        self._services = [other for other in self._services if other is not service]
        # Stopped first, so that none of them reports the end of another.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in processes_in({service.session}):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        stop([service], grace_period=0)

    def worker_of(self, pid: int) -> str:
        """Return the worker that runs a process."""
        return next(name for name, worker in self._workers.items() if worker.session == os.getsid(pid))

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return all task instances of a run, from the pages of the REST API."""
        path, found = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances", []
        while True:
            page = self._request("GET", f"{path}?limit=100&offset={len(found)}&order_by=id")
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def task_log(self, task: Mapping[str, Any]) -> str:
        """Return the log of the last try, as JSON."""
        path = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/logs/{try_number}"
        return json.dumps(self._request("GET", f"{path.format(**task)}?map_index={task['map_index']}")["content"])

    def _environment(self, folder: Path) -> dict[str, str]:
        ours = {
            "core.executor": "CeleryExecutor",
            "core.parallelism": "32",
            "database.sql_alchemy_conn": self.postgresql.dsn.replace("postgresql://", "postgresql+psycopg2://"),
            "celery.broker_url": self._redis.url,
            "celery.worker_enable_remote_control": "True",
        }
        self._config = {**ours, **self._config}
        return super()._environment(folder)

    def _start_worker(self, name: str) -> None:
        assert self._folder is not None
        arguments = ["--celery-hostname", name, "--concurrency", str(self._concurrency), "--skip-serve-logs"]
        service = Service(
            f"worker {name}",
            [*AIRFLOW, "celery", "worker", *arguments, "--pid", str(self._folder / f"{name}.pid")],
            env={**self._env, "AIRFLOW_VAR_WORKER": name, "C_FORCE_ROOT": "1"},
            log=self._folder / f"worker-{name}.log",
        )
        self._services.append(service)
        self._workers[name] = service


def _unprivileged() -> list[str]:
    """Return a prefix that runs a command without privileges, since PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOGROUP}", "--clear-groups"]
