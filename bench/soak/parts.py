"""The parts of a soak: what each found, and what it left behind.

A long soak is made of parts on one folder. Each part has tenants of its own, so that what its
clients remember is compared at its end and then forgotten: neither memory nor records grow with
the number of parts. The database does grow, and is the same one throughout: the service's audit
proves all of it at the end of each part, and what earlier parts booked must be as they left it.
`parts.json` in the folder keeps the seed and what each part booked, so a run that is given the
folder continues with the next part.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.kit.checks import Check, result_row
from bench.soak.nuisance import MISUSE
from bench.soak.plan import Scale
from bench.soak.records import Memory


@dataclass(frozen=True)
class Outcome:
    """What a part found."""

    part: int
    seed: int
    checks: Sequence[Check]
    faults: Counter[str]
    memory: Memory
    scale: Scale
    seconds: float

    @property
    def is_proved(self) -> bool:
        """Whether every check holds."""
        return bool(self.checks) and all(check.holds for check in self.checks)

    def _kinds(self) -> list[tuple[str, int]]:
        """Return the faults with all that the misbehaving tenant does in one."""
        kinds = Counter[str]()
        for what, n in self.faults.items():
            kinds[MISUSE if what.startswith(MISUSE) else what] += n
        return sorted(kinds.items())

    def row(self) -> str:
        """Return the line of this part for docs/proof.md."""
        return result_row(
            str(self.seed),
            str(self.part),
            f"{self.scale.operations:,}",
            f"{self.scale.events:,}",
            f"{self.seconds / 60:.0f}",
            ", ".join(f"{n:,} {what}" for what, n in self._kinds()),
            "proved" if self.is_proved else "DEVIATIONS",
        )


class Parts:
    """What earlier parts on the same folder left behind."""

    def __init__(self, file: Path, seed: int) -> None:
        self._file = file
        stored = json.loads(file.read_text()) if file.exists() else {}
        self.seed = int(stored.get("seed", seed))
        # By part, and by tenant: what is booked in all.
        self._booked: list[dict[str, str]] = stored.get("booked", [])

    @property
    def number(self) -> int:
        """The number of the next part, from 1."""
        return len(self._booked) + 1

    def changed(self, sums: Mapping[str, str]) -> list[str]:
        """Return the tenants of earlier parts whose books are not as those parts left them."""
        return [
            tenant
            for booked in self._booked
            for tenant, sum_then in booked.items()
            if sums.get(tenant) != sum_then
        ]

    def close(self, sums: Mapping[str, str]) -> None:
        """Keep what the tenants of this part have booked."""
        own = {name: text for name, text in sums.items() if name.endswith(f"-{self.number}")}
        self._booked.append(own)
        self._file.write_text(json.dumps({"seed": self.seed, "booked": self._booked}))
