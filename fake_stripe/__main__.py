"""`python -m fake_stripe --port 12111`: a process of its own.

With --file it keeps its world over a restart; with --bank invoices are paid by themselves. It sends
what happens as webhooks to the endpoints that are created.
"""

import argparse
import signal
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from fake_stripe.objects import Object
from fake_stripe.server import NOT_REAL, StripeServer
from fake_stripe.store import read_world, write_world
from fake_stripe.webhooks import deliver
from fake_stripe.world import World

POLL_SECONDS: Final = 0.5
# Some 50 MB of them, of more than a thousand invoices.
OBJECTS_MAX: Final = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fake_stripe", description=NOT_REAL)
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--file", type=Path, help="where to keep what there is")
    parser.add_argument("--bank", action="store_true", help="let customers pay what they are sent")
    given = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    world = World() if given.file is None else read_world(given.file)
    world.has_bank = given.bank
    server = StripeServer(given.port, world=world, kept_requests=0, objects_max=OBJECTS_MAX)
    print(f"{NOT_REAL} Listening on {server.url}", flush=True)  # noqa: T201 - a command
    unsent: SimpleQueue[list[Object]] = SimpleQueue()
    # A receiver that is slow holds up neither the file nor the end.
    threading.Thread(target=deliver_all, args=(unsent, world), daemon=True).start()
    sent, kept = len(world.events), world.changes
    while True:
        is_last = ended.wait(POLL_SECONDS)
        events = world.events[sent:]
        sent += len(events)
        if given.file is not None and world.changes != kept:
            with server.lock:
                kept = world.changes
                write_world(world, given.file)
        if is_last:
            server.stop()
            return
        unsent.put(events)


def deliver_all(unsent: SimpleQueue[list[Object]], world: World) -> None:
    """Send what comes to all endpoints that there are then."""
    while True:
        deliver(unsent.get(), to=list(world.webhook_endpoints.values()), at=world.now)


if __name__ == "__main__":
    main()
