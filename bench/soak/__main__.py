"""`python -m bench.soak`: exit 0 when nothing deviates, else 1."""

import argparse
import secrets
import sys
from pathlib import Path

from rich.console import Console

from bench.soak.plan import Scale
from bench.soak.run import run


def main() -> int:
    """Read the command line, run the soak, print what it found."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--operations", type=int, default=250_000)
    parser.add_argument("--events", type=int, default=50_000, help="events reported in bodies")
    parser.add_argument("--seed", type=int, help="repeats what is drawn; what meets what varies")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--clients", type=int, default=12, help="clients of each process")
    parser.add_argument("--seconds", type=float, default=0.0, help="spread over this time at least")
    parser.add_argument("--folder", type=Path, help="keep the data here; another run continues it")
    parser.add_argument("--report", type=Path, help="append a line to the table of this file")
    options = parser.parse_args()
    outcome = run(
        Scale(**{name: getattr(options, name) for name in Scale._fields}),
        seed=secrets.randbelow(1_000_000) if options.seed is None else options.seed,
        folder=options.folder,
        console=Console(),
    )
    sys.stdout.write(outcome.row() + "\n")
    if options.report is not None:
        with options.report.open("a") as table:
            table.write(outcome.row() + "\n")
    return 0 if outcome.is_proved else 1


if __name__ == "__main__":
    sys.exit(main())
