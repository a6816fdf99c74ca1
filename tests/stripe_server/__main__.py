"""`python -m tests.stripe_server --port 12111`: the stand-in as a process of its own.

With --webhook-url and --webhook-secret it sends what happens as webhooks.
"""

import argparse
import time

from tests.stripe_server.server import NOT_REAL, StripeServer
from tests.stripe_server.webhooks import send

POLL_SECONDS = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.stripe_server", description=NOT_REAL)
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--webhook-url", default="")
    parser.add_argument("--webhook-secret", default="")
    given = parser.parse_args()
    server = StripeServer(given.port)
    print(f"{NOT_REAL} Listening on {server.url}", flush=True)  # noqa: T201 - a command
    sent = 0
    try:
        while True:
            time.sleep(POLL_SECONDS)
            events = server.world.events[sent:]
            sent += len(events)
            if given.webhook_url and events:
                now = server.world.now
                send(events, url=given.webhook_url, secret=given.webhook_secret, at=now)
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main()
