"""The servers of these tests leave nothing behind, whether they start or not."""

from __future__ import annotations

import pytest

from demo.processes import processes_in
from tests.integration.programs import ProgramError, ServerProgram


class Shell(ServerProgram):
    """A server that is ready once its script has said so."""

    name = "shell"

    def __init__(self, script: str) -> None:
        super().__init__()
        self._script = script

    @property
    def session(self) -> int:
        """The id of its session."""
        assert self._service is not None
        return self._service.session

    def _start(self) -> None:
        self._launch(["sh", "-c", self._script], lambda: "ready" in self.log())


def test_a_program_that_ends_before_it_is_ready_says_why() -> None:
    """At once, and its folder is removed."""
    server = Shell("echo The configuration is broken.; exit 3")
    with pytest.raises(ProgramError, match=r"shell does not start:\nThe configuration is broken\.\n$"), server:
        pytest.fail("It has started.")
    assert not server.folder.exists()


def test_a_server_ends_with_all_that_it_has_started() -> None:
    """Also with a process that its own end does not concern."""
    with Shell("sleep 600 & echo ready; wait") as server:
        session = server.session
        assert len(processes_in({session})) == 2
    assert processes_in({session}) == []
    assert not server.folder.exists()
