"""`python -m bench.soak`: exit 0 when nothing deviates, else 1."""

import argparse
import secrets
import sys

from rich.console import Console

from bench.soak.trial import run


def main() -> int:
    """Read the command line, run the soak, print what it found."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, help="repeats what is drawn; what meets what varies")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--clients", type=int, default=12, help="clients of each process")
    parser.add_argument("--seconds", type=float, default=0.0, help="spread over this time at least")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    outcome = run(
        operations=options.operations,
        seed=seed,
        processes=options.processes,
        clients=options.clients,
        seconds=options.seconds,
        console=Console(),
    )
    return 0 if outcome.is_proved else 1


if __name__ == "__main__":
    sys.exit(main())
