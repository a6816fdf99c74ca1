"""`python -m bench.exactly_once`: exit 0 when everything was stored and counted once, else 1."""

import argparse
import secrets
import sys

from rich.console import Console

from bench.exactly_once.trial import run


def main() -> int:
    """Read the command line, run the proof, print what it found."""
    parser = argparse.ArgumentParser(prog="python -m bench.exactly_once")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, help="repeats what is sent; when processes die varies")
    parser.add_argument("--seconds", type=float, help="spread the events over at least this time")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    outcome = run(
        events=options.events,
        clients=options.clients,
        seed=seed,
        seconds=options.seconds,
        console=Console(),
    )
    return 0 if outcome.is_proved else 1


if __name__ == "__main__":
    sys.exit(main())
