"""How `make test` divides the tests among processes, each of which has a database of its own.

A file's tests run in one process. So do all tests that start a whole service: two services at once
would measure each other. So do all of Chromium, which is warm after the first. As these two take
longest they begin first.
"""

from typing import Final

import pytest
from xdist.scheduler import LoadFileScheduling

SERVICE_FILES: Final = frozenset(
    {
        "tests/test_exactly_once.py",
        "tests/test_soak.py",
        "tests/config/test_brokers.py",
        "tests/config/test_command_database.py",
        "tests/config/test_database_role.py",
        "tests/config/test_edge.py",
        "tests/config/test_embedded_postgres.py",
        "tests/config/test_service.py",
        "tests/config/test_supervisor.py",
    }
)
SERVICES: Final = "services"
BROWSER: Final = "tests/dashboard/browser/"
LONGEST: Final = (SERVICES, BROWSER)


def share_of(nodeid: str) -> str:
    """What is run together with a test, in one process."""
    file = nodeid.partition("::")[0]
    if file in SERVICE_FILES:
        return SERVICES
    return BROWSER if file.startswith(BROWSER) else file


def turn_of(nodeid: str) -> int:
    """When a test's share begins: the longest are first."""
    share = share_of(nodeid)
    return LONGEST.index(share) if share in LONGEST else len(LONGEST)


class SideBySide(LoadFileScheduling):  # type: ignore[misc] # it ships no types
    """Deals out shares in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        config.option.loadscopereorder = False  # by number of tests, which says little of the time
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return share_of(nodeid)
