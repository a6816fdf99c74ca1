"""One run of the soak: the service is started, a part is tried, and what it found is shown."""

from contextlib import suppress
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.kit.checks import checks_table, counts_table
from bench.kit.service import running_service
from bench.soak.parts import Outcome, Parts
from bench.soak.plan import Scale
from bench.soak.trial import Trial

WEB_WORKERS: Final = "2"


class NotProved(Exception):
    """Something deviates; the outcome's table says what."""


def run(
    scale: Scale,
    *,
    seed: int,
    folder: Path | None = None,
    awaits_roll_ups: bool = True,
    console: Console | None = None,
) -> Outcome:
    """Run the operations and events of `scale` while breaking the service, then compare the books.

    Without a folder the service gets an empty one, removed afterwards unless something deviates.
    Roll-ups of scattered batches are made after a minute; not waiting for them proves that answers
    are right before that, and saves a minute.
    """
    console = console or Console(quiet=True)
    outcomes: list[Outcome] = []
    with (
        suppress(NotProved),
        running_service({"WEB_WORKERS": WEB_WORKERS}, folder=folder) as service,
    ):
        parts = Parts(service.folder / "parts.json", seed)
        console.print(
            f"Soak: part {parts.number}, {scale.operations:,} operations, {scale.events:,} events,"
            f" {scale.processes} processes of {scale.clients} clients, seed {parts.seed}."
        )
        trial = Trial(service, parts, scale, console)
        outcomes.append(trial.outcome(awaits_roll_ups=awaits_roll_ups))
        if not outcomes[0].is_proved:
            console.print(f"The service's folder stays: {service.folder}")
            raise NotProved
    (outcome,) = outcomes
    memory, tally = outcome.memory, outcome.memory.tally
    done = {
        **dict(sorted(memory.operations.items())),
        **{f"... refused by {what}": n for what, n in sorted(memory.refusals.items())},
        **{f"... answered {status}": n for status, n in sorted(tally.answers.items())},
        "... cut off, so asked again": tally.cut_off,
        "seconds": round(outcome.seconds),
        **dict(sorted(outcome.faults.items())),
    }
    verdict = "nothing deviates" if outcome.is_proved else "DEVIATIONS"
    console.print(
        counts_table("Done under these conditions", done),
        checks_table(f"Soak: {verdict}", outcome.checks),
    )
    return outcome
