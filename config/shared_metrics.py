"""Processes of one machine answer one scrape together, from files in which each keeps its counters.

Whoever starts them decides it, before prometheus_client is first imported, which looks at the
variable once. The files of a process that died stay until the next start: what it counted counts.
"""

import tempfile
from typing import Final

from config.environment import Environment

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


def shared_by_service(environment: Environment) -> dict[str, str]:
    """For all parts under one supervisor: a folder without the files of an earlier start."""
    folder = environment.data_dir / "metrics"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink()
    return {VARIABLE: str(folder)}


def shared_by_part(part: str, environment: Environment) -> dict[str, str]:
    """For a part that runs alone and has several processes: a folder of its own.

    DATA_DIR may be shared with containers in which other processes have the same numbers.
    """
    is_shared = environment.web_workers > 1 if part == "web" else environment.metrics_port
    if not is_shared:
        return {}
    return {VARIABLE: tempfile.mkdtemp(prefix=f"spendgate-metrics-{part}-")}
