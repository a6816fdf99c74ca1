import os
import signal
import sys
from collections.abc import Iterator

import pytest

from config import child as child_module
from config import processes
from config.child import Child, KeepsFailing

FAILING = "import sys; sys.exit(3)"


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "RESTART_MOST_SECONDS", 0.0)
    monkeypatch.setattr(child_module, "JUDGE_SECONDS", 0.0)


@pytest.fixture
def failing() -> Iterator[Child]:
    child = Child("web", [sys.executable, "-c", FAILING], judge=lambda child: False)
    child.has_own_output = True
    yield child
    child.kill()


def die_once(child: Child) -> None:
    child.start(os.environ)
    assert child.process is not None
    child.process.wait()
    child.notice()


def test_a_child_that_never_came_up_is_given_up_at_the_fifth_death(failing: Child) -> None:
    for _ in range(4):
        die_once(failing)
        assert failing.is_due()
    with pytest.raises(
        KeepsFailing, match="web ended with status 3 and came up in none of 5 tries"
    ):
        die_once(failing)


def test_a_child_that_came_up_once_is_never_given_up(failing: Child) -> None:
    failing.has_been_up = True
    for _ in range(10):
        die_once(failing)
    assert failing.is_due()


def test_what_a_child_started_dies_with_it() -> None:
    program = "import subprocess, time; subprocess.Popen(['sleep', '611']); time.sleep(600)"
    child = Child("web", [sys.executable, "-c", program], has_own_output=True)
    child.start(os.environ)
    assert processes.wait_until(lambda: len(processes.with_title("sleep\x00611")) == 1, 10.0)
    assert child.process is not None
    os.kill(child.process.pid, signal.SIGKILL)
    child.process.wait()
    child.notice()
    assert processes.wait_until(lambda: processes.with_title("sleep\x00611") == [], 5.0)
