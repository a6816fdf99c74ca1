"""One run of the proof, from an empty folder to the table of what was found."""

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from bench.exactly_once.budgets import AGENTS, CUSTOMERS, LATE, TEAMS, TENANT, Budget
from bench.exactly_once.calls import Plan, make_plan
from bench.exactly_once.killing import EVERYTHING, POSTGRES, Due, Killer
from bench.exactly_once.proof import Check, prove
from bench.exactly_once.traffic import Tally, Traffic
from bench.exactly_once.victim import ServiceEnded, Victim, running_victim

EVENTS_PER_SECOND: Final = 5_000
LEAST_SECONDS: Final = 15.0
SENT_AGAIN: Final = 1_000
CONFIGURED_WITHIN_SECONDS: Final = 60.0


class NotProved(Exception):
    """Something deviates; the outcome's table says what."""


@dataclass(frozen=True)
class Outcome:
    """What a run found."""

    checks: list[Check]
    deaths: Counter[str]
    tally: Tally
    seconds: float

    @property
    def is_proved(self) -> bool:
        """Whether every check holds."""
        return bool(self.checks) and all(check.holds for check in self.checks)


def run(
    *,
    events: int = 200_000,
    clients: int = 8,
    seed: int = 1,
    seconds: float | None = None,
    awaits_roll_ups: bool = True,
    console: Console | None = None,
) -> Outcome:
    """Send events while the service is killed, then prove that each was stored and counted once.

    Takes two clients or more. Roll-ups of scattered batches are made after a minute: who does not
    await them proves that answers hold before, and saves that minute.
    Starts a service of its own on an empty folder, which goes afterwards; where the proof fails the
    folder stays, and the output names it.
    """
    console = console or Console(quiet=True)
    console.print(f"Exactly once: {events:,} events, {clients} clients, seed {seed}.")
    spread_seconds = max(LEAST_SECONDS, events / EVENTS_PER_SECOND) if seconds is None else seconds
    plan = make_plan(events=events, clients=clients, seed=seed, now=datetime.now(UTC))
    outcomes: list[Outcome] = []
    try:
        with running_victim() as victim:
            trial = _Trial(victim, plan, seed=seed, seconds=spread_seconds, console=console)
            outcomes.append(trial.outcome(awaits_roll_ups=awaits_roll_ups))
            if not outcomes[0].is_proved:
                console.print(f"The service's folder stays: {victim.data_dir}")
                raise NotProved
    except NotProved:
        pass
    console.print(events_table(outcomes[0], plan), checks_table(outcomes[0]))
    return outcomes[0]


class _Trial:
    def __init__(
        self, victim: Victim, plan: Plan, *, seed: int, seconds: float, console: Console
    ) -> None:
        victim.create_tenant()
        self.victim = victim
        self.plan = plan
        self.seconds = seconds
        self.console = console
        self.pick = random.Random(seed)  # noqa: S311 - load, not secrets
        self.traffic = Traffic(
            port=victim.port,
            headers=victim.headers,
            batches=plan.batches,
            seconds=seconds,
            seed=seed,
        )
        self.killer = Killer(victim=victim, traffic=self.traffic, pick=self.pick)
        self.budgets: list[Budget] = []

    def outcome(self, *, awaits_roll_ups: bool) -> Outcome:
        """Send and kill, then compare."""
        for budget in (TENANT, AGENTS, CUSTOMERS, TEAMS):
            self._make(budget)
        begun = time.monotonic()
        checks = self._send_and_kill()
        seconds = time.monotonic() - begun
        if self.victim.process.poll() is None and self.traffic.share >= 1:
            self.victim.wait_until_ready()
            checks += prove(
                self.victim, self.plan.calls, self.budgets, awaits_roll_ups=awaits_roll_ups
            )
            checks.append(self._send_again())
            checks.append(
                Check("exit status of the service when asked to stop", 0, self.victim.stop())
            )
        return Outcome(checks, self.killer.deaths, self.traffic.tally, seconds)

    def _send_and_kill(self) -> list[Check]:
        """Everything acknowledged, whatever died meanwhile."""
        patience_seconds = 120 + 10 * self.seconds
        problem = "none"
        with ExitStack() as stack:
            tick = self._progress(stack)
            stack.callback(self.traffic.stop)
            self.traffic.start()
            try:
                self.killer.run(
                    self._dues(), give_up_at=time.monotonic() + patience_seconds, tick=tick
                )
            except ServiceEnded as error:
                problem = str(error)
        tally = self.traffic.tally
        wrong = [f"{count} x {words}" for words, count in tally.wrong.most_common(5)]
        return [
            Check("reason why the service ended by itself", "none", problem),
            Check("answers other than 200 and 'try again'", "none", "\n".join(wrong) or "none"),
            Check(
                "events acknowledged, those sent again included",
                self.traffic.total,
                tally.acknowledged,
            ),
            Check("events accepted twice", 0, max(0, tally.accepted - len(self.plan.calls))),
            Check("times the whole service was killed", 1, self.killer.deaths[EVERYTHING]),
            Check("times PostgreSQL was stopped at once", 1, self.killer.deaths[POSTGRES]),
        ]

    def _dues(self) -> list[Due]:
        return [
            Due(0.15, self.killer.kill_celery),
            Due(0.30, self.killer.stop_postgres_at_once),
            Due(0.50, lambda: self._make(LATE)),
            Due(0.60, self.killer.kill_celery),
            Due(0.70, self.killer.kill_everything),
        ]

    def _make(self, budget: Budget) -> None:
        """Make a budget, however often it takes; the same key makes it once."""
        end = time.monotonic() + CONFIGURED_WITHIN_SECONDS
        while True:
            try:
                made = self.victim.make("/v1/budgets", budget.body(), key=f"make {budget.name}")
            except (OSError, HTTPException):
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
            else:
                made_at = datetime.fromisoformat(made["created_at"])
                self.budgets.append(replace(budget, id=made["id"], made_at=made_at))
                return

    def _send_again(self) -> Check:
        """Afterwards the service still knows every name under which a call was reported."""
        calls = self.pick.sample(self.plan.calls, min(SENT_AGAIN, len(self.plan.calls)))
        events = [call.body(is_alias=call.has_alias) for call in calls]
        answer = self.victim.call("POST", "/v1/events", events)
        counts = {name: answer[name] for name in ("accepted", "duplicates", "rejected")}
        expected = {"accepted": 0, "duplicates": len(calls), "rejected": 0}
        return Check("events sent once more that are known", expected, counts)

    def _progress(self, stack: ExitStack) -> Callable[[], None]:
        """A bar on a terminal; the answer brings it up to date."""
        if not self.console.is_terminal:
            return lambda: None
        progress = stack.enter_context(Progress(console=self.console))
        task = progress.add_task("acknowledged", total=self.traffic.total)

        def update() -> None:
            deaths = self.killer.deaths.total()
            progress.update(
                task,
                completed=self.traffic.tally.acknowledged,
                description=f"acknowledged; {deaths} deaths",
            )

        return update


def events_table(outcome: Outcome, plan: Plan) -> Table:
    """What was sent, and what it met."""
    table = Table("Sent under these conditions", "", title_justify="left")
    tally, count = outcome.tally, len(plan.calls)
    again = plan.reports_count - count
    aliases = sum(call.has_alias for call in plan.calls)
    refused = [(f"... answered {one}, so sent again", n) for one, n in tally.put_off.items()]
    rows: list[tuple[str, int]] = [
        ("events", count),
        (f"... sent again by plan ({again / count:.1%} more)", again),
        ("... of these under another source and id", aliases),
        ("requests", tally.requests),
        ("... cut off, so sent again", tally.cut_off),
        *refused,
        ("events stored by requests whose answer never came", count - tally.accepted),
        ("seconds until all was acknowledged", round(outcome.seconds)),
        *sorted(outcome.deaths.items()),
    ]
    for what, figure in rows:
        table.add_row(what, f"{figure:,}")
    return table


def checks_table(outcome: Outcome) -> Table:
    """What was found beside what must be."""
    verdict = "proved" if outcome.is_proved else "NOT PROVED"
    table = Table(f"Exactly once: {verdict}", "Must be", "Is")
    for check in outcome.checks:
        style = "green" if check.holds else "bold red"
        table.add_row(*(escape(_shown(part)) for part in check), style=style)
    return table


def _shown(part: object) -> str:
    if isinstance(part, dict):
        return ", ".join(f"{count:,} {name}" for name, count in part.items())
    return f"{part:,}" if isinstance(part, int) else str(part)
