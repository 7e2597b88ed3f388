"""pyspnego's loggers never show a token, and levels above INFO are kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import spnego

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.smtp.auth.ntlm import create_ntlm_context, find_ntlm_identity
from tests.smtp.auth.test_sasl import CHALLENGE

NAMES = ("spnego", "spnego._ntlm", "spnego._context", "spnego._negotiate")


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    """Restore the levels."""
    assert spnego
    loggers = [logging.getLogger(), *map(logging.getLogger, NAMES)]
    before = [logger.level for logger in loggers]
    for logger in loggers[1:]:
        logger.setLevel(logging.NOTSET)
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def sign_in() -> None:
    """Create both tokens of the client."""
    manager = SmtpConnectionManager(host="h", auth_mode=AuthMode.WINDOWS, login=r"CORP\alice", password="correct horse")
    context, _ = create_ntlm_context(manager, find_ntlm_identity(manager), None, mechanism="NTLM")
    context.step(CHALLENGE)


@pytest.mark.parametrize("name", ["", *NAMES])
def test_a_level_below_info_shows_no_token(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The level of the root logger, of pyspnego's, or of one of its modules."""
    logging.getLogger(name).setLevel(logging.DEBUG)
    sign_in()
    assert [record for record in caplog.records if record.name.startswith("spnego")] == []


@pytest.mark.parametrize("name", ["", *NAMES])
@pytest.mark.parametrize("level", [logging.WARNING, logging.CRITICAL])
def test_a_level_above_info_stays(name: str, level: int) -> None:
    """Including that of the root logger."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger(name).setLevel(level)
    before = [(logging.getLogger(each).level, logging.getLogger(each).getEffectiveLevel()) for each in NAMES]
    sign_in()
    assert before == [(logging.getLogger(each).level, logging.getLogger(each).getEffectiveLevel()) for each in NAMES]
