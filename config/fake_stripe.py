"""The fake Stripe beside the demo: a process of its own, on a free port of loopback."""

import socket
import sys

from config.child import Child
from config.environment import Environment

FILE = "fake_stripe"


def fake_stripe_child(environment: Environment) -> tuple[Child, dict[str, str]]:
    """Return the process, and what tells the others where it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [sys.executable, "-m", "fake_stripe", "--bank", "--port", str(port)]
    arguments += ["--file", str(environment.data_dir / FILE)]
    return Child("fake Stripe", arguments), {"STRIPE_FAKE_BASE": f"http://127.0.0.1:{port}"}
