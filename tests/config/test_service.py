"""The service as a stranger runs it: started, used over HTTP, broken, stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from config import processes
from config.queues import queue_of
from config.supervisor import folder_identity

READY_SECONDS = 60.0


class Running:
    """A real service on a folder and a port of its own."""

    def __init__(self, data_dir: Path) -> None:
        with socket.socket() as attempt:
            attempt.bind(("127.0.0.1", 0))
            port = attempt.getsockname()[1]
        self.data_dir = data_dir
        self.url = f"http://127.0.0.1:{port}"
        self.environ = {**os.environ, "DATABASE_URL": "", "DEMO": "0", "PORT": str(port)}
        self.environ |= {"DATA_DIR": str(data_dir), "DJANGO_SETTINGS_MODULE": "config.settings"}
        self.words = data_dir.with_name("words")
        with self.words.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "config.supervisor"],
                env=self.environ,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def answers(self) -> bool:
        try:
            return bool(self.get("/readyz")["status"] == "ready")
        except OSError:
            return False

    def get(self, path: str, api_key: str = "", body: Any = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def manage(self, *arguments: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(
            command, env=self.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def has_run(self, task: str) -> bool:
        """Whether the metrics of all parts, as the web process tells them, count such a run."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        runs = (
            f'spendgate_task_runs_total{{outcome="success",queue="{queue_of(task)}",task="{task}"}}'
        )
        return any(line.startswith(runs) for line in lines)

    def parts(self) -> list[int]:
        return processes.with_environment(f"SPENDGATE_RUN={folder_identity(self.data_dir)}")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "data")
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()
    processes.end_all(running.parts(), patience_seconds=1.0)


def test_a_service_takes_an_event_survives_a_kill_and_stops_cleanly(service: Running) -> None:
    assert processes.wait_until(service.answers, READY_SECONDS), service.words.read_text()
    made = service.manage("create_tenant", "Example", "--owner", "o@example.com", "--json")
    api_key = json.loads(made.splitlines()[-1])["api_key"]
    event = {"id": "a", "provider": "openai", "model": "gpt-4o", "input_tokens": 1_000_000}
    event |= {"output_tokens": 0, "agent": "mine"}
    counts = service.get("/v1/events", api_key, event)
    assert (counts["accepted"], counts["duplicates"], counts["rejected"]) == (1, 0, 0)

    for pid in service.parts():
        if "granian" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    assert processes.wait_until(service.answers, READY_SECONDS), service.words.read_text()
    assert service.get("/v1/events", api_key, event)["duplicates"] == 1
    totals = service.get("/v1/usage?interval=none&group_by=agent", api_key)
    assert [(row["group"], row["cost_usd"]) for row in totals["data"]] == [
        ({"agent": "mine"}, "2.5")
    ]

    for task in ("metering.jobs.tasks.expire_reservations", "alerts.tasks.notify"):
        assert processes.wait_until(partial(service.has_run, task), READY_SECONDS), task

    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == 0
    assert service.parts() == []
    assert "Zero drift" in service.manage("audit_ledger")
