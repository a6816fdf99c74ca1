"""Statements that a trial proves, each with what must be and what is."""

import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from rich.markup import escape
from rich.table import Table

from bench.kit.service import CHECKOUT, Service

SHOWN: Final = 8


class Check(NamedTuple):
    """One statement: it holds when what was found is what must be."""

    what: str
    expected: object
    actual: object

    @property
    def holds(self) -> bool:
        """Whether nothing deviates."""
        return self.expected == self.actual


def audit(service: Service) -> Check:
    """Return what the service's own audit says."""
    try:
        said = service.manage("audit_ledger").splitlines()[-1]
    except subprocess.CalledProcessError as error:
        words = [*error.stdout.splitlines()[:8], *error.stderr.splitlines()[-1:]]
        return Check(
            "manage.py audit_ledger", "exit 0", "\n".join([f"exit {error.returncode}", *words])
        )
    return Check("manage.py audit_ledger", "zero drift", said.partition(":")[0].lower())


def lines(counts: Mapping[str, int]) -> str:
    """Return deviations as lines of a table's cell, or "none"."""
    return "\n".join(f"{n:,} x {what}" for what, n in list(counts.items())[:SHOWN]) or "none"


def counts_table(title: str, counts: Mapping[str, int]) -> Table:
    """Show how often something happened."""
    table = Table(title, "", title_justify="left")
    for what, count in counts.items():
        table.add_row(what, f"{count:,}")
    return table


def checks_table(title: str, checks: Iterable[Check]) -> Table:
    """Show what was found beside what must be."""
    table = Table(title, "Must be", "Is")
    for check in checks:
        style = "green" if check.holds else "bold red"
        table.add_row(*(escape(str(part)) for part in check), style=style)
    return table


def result_row(*cells: str) -> str:
    """Return a line of the table in docs/proof.md: the day, these cells, and the commit."""
    git = ("git", "describe", "--always", "--dirty", "--exclude=*")
    commit = subprocess.run(
        git, cwd=CHECKOUT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"| {datetime.now(UTC):%Y-%m-%d} | {' | '.join(cells)} | {commit or 'unknown'} |"
