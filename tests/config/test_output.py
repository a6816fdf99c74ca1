"""Lines that no one reads any more stop nothing."""

import io
import sys

import pytest
import structlog


class ClosedPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_log_whose_reader_is_gone_is_lost_and_fails_no_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    structlog.get_logger("test").warning("no one reads this")
