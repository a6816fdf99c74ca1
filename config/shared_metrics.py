"""Several web workers answer one scrape together, from files in which each keeps its counters.

Decided before prometheus_client is first imported, which looks at the variable once.
"""

import os

from config.environment import Environment

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def share_between_workers(environment: Environment) -> None:
    """See that the workers of one service add up, where there is more than one."""
    if environment.web_workers == 1:
        return
    folder = environment.data_dir / "metrics"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.setdefault(VARIABLE, str(folder))
