"""Processes of one machine answer one scrape together, from files in which each keeps its counters.

The process that starts them decides it, before prometheus_client is first imported, which reads
the variable once. The files of a process that died stay until the next start: its counts count.
"""

import tempfile
from typing import Final

from config.environment import Environment

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


def shared_by_service(environment: Environment) -> dict[str, str]:
    """Make a folder for all parts under one supervisor, without files of an earlier start."""
    folder = environment.data_dir / "metrics"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink()
    return {VARIABLE: str(folder)}


def shared_by_part(part: str, environment: Environment) -> dict[str, str]:
    """Make a folder for a part that runs alone and has several processes.

    DATA_DIR may be shared with containers in which other processes have the same numbers.
    """
    is_shared = environment.web_workers > 1 if part == "web" else environment.metrics_port
    if not is_shared:
        return {}
    return {VARIABLE: tempfile.mkdtemp(prefix=f"spendgate-metrics-{part}-")}
