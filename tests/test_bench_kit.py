"""The faults of the trials must be faults."""

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from bench.kit.clock.sitecustomize import FILE
from bench.kit.service import CHECKOUT
from bench.kit.wire import Connection

CLOCK_FOLDER = CHECKOUT / "bench" / "kit" / "clock"
SAY_TIMES = "from datetime import *; import time; print(datetime.now(UTC).timestamp(), time.time())"
SAY_TIMES_OF_CHILD = (
    f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SAY_TIMES!r}, 'other'])"
)


def shifts_seen(folder: Path, code: str, part: str) -> list[int]:
    file = folder / "clocks.json"
    file.write_text(json.dumps({"skewed": 100}))
    done = subprocess.run(
        [sys.executable, "-c", code, part],
        env={"PYTHONPATH": str(CLOCK_FOLDER), FILE: str(file)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [round((float(moment) - time.time()) / 10) * 10 for moment in done.stdout.split()]


def test_the_clock_of_a_part_and_of_its_children_is_shifted(tmp_path: Path) -> None:
    assert shifts_seen(tmp_path, SAY_TIMES, "skewed") == [100, 100]
    assert shifts_seen(tmp_path, SAY_TIMES_OF_CHILD, "skewed") == [100, 100]


def test_other_parts_keep_their_time(tmp_path: Path) -> None:
    assert shifts_seen(tmp_path, SAY_TIMES, "other") == [0, 0]


def test_a_slow_client_sends_a_byte_at_a_time() -> None:
    pieces: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            client, _ = server.accept()
            with client:
                while piece := client.recv(100):
                    pieces.append(piece)

        taker = threading.Thread(target=take)
        taker.start()
        connection = Connection(server.getsockname()[1])
        connection.drip(b"GET /healthz HTTP/1.1\r\n")
        connection.close()
        taker.join()

    assert b"".join(pieces) == b"GET /healthz HTTP/1.1\r\n"
    assert len(pieces) > 5
