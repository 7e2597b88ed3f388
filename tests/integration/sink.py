"""Postfix' smtp-sink, which discards every mail, and fails as its options say."""

from __future__ import annotations

import os
import shutil

from demo.processes import LOOPBACK, free_port
from tests.integration.programs import ServerProgram, is_listening, system_path


class Sink(ServerProgram):
    """The sink as a context manager.

    Args:
        options: of smtp-sink(1): `-f`, `-r`, `-q` and `-Q` have the commands that fail.
    """

    name = "smtp-sink"

    def __init__(self, *options: str) -> None:
        super().__init__()
        self._options = options
        self.port = free_port()

    def _start(self) -> None:
        program = shutil.which("smtp-sink", path=system_path())
        assert program is not None
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        command = [program, "-4", *user, *self._options, f"{LOOPBACK}:{self.port}", "64"]
        self._launch(command, lambda: is_listening(self.port))
