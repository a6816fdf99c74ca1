"""One run of the soak, from an empty folder to the table of what was found."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar
from rich.table import Table

from bench.exactly_once.proof import Check, audit
from bench.exactly_once.victim import ServiceEnded, Victim, running_victim
from bench.soak.books import Books, count_open, read_books
from bench.soak.caller import Caller, Progress
from bench.soak.caps import Caps
from bench.soak.clients import Clients, Plan
from bench.soak.killing import LONG, SHORT, SoakKiller
from bench.soak.nuisance import NUISANCE, Nuisance
from bench.soak.overseer import Overseer
from bench.soak.proof import (
    Findings,
    Proof,
    grants_while_halted,
    paced_too_fast,
    revised_as_told,
)
from bench.soak.records import Fate, Memory
from bench.soak.watch import Watch
from bench.soak.world import (
    PACED_AGENT,
    PACED_PER_MINUTE,
    ROUGH,
    TIDY,
    Budget,
    budgets_of_the_soak,
    nanos_of,
)

WEB_WORKERS: Final = "2"
LONG_OPERATIONS: Final = 50_000
# With deaths in between; a run that takes much longer hangs.
LEAST_PER_SECOND: Final = 20
PATIENCE_SECONDS: Final = 180.0
EXPIRED_WITHIN_SECONDS: Final = 60.0
LOOK_SECONDS: Final = (0.15, 1.0)
ASKED_AGAIN: Final = 200
# More than any limit lets through, so that it is refused.
TOO_MUCH_USD: Final = "9999999"
SHOWN: Final = 8


class NotProved(Exception):
    """Something deviates; the outcome's table says what."""


@dataclass(frozen=True)
class Outcome:
    """What a run found."""

    checks: Sequence[Check]
    deaths: Counter[str]
    memory: Memory
    seconds: float

    @property
    def is_proved(self) -> bool:
        """Whether every check holds."""
        return bool(self.checks) and all(check.holds for check in self.checks)


def run(
    *,
    operations: int,
    seed: int,
    processes: int = 4,
    clients: int = 12,
    seconds: float = 0.0,
    console: Console | None = None,
) -> Outcome:
    """Make so many operations while the service is killed, then compare everything.

    Starts a service of its own on an empty folder, which goes afterwards; where something deviates
    the folder stays, and the output names it.
    """
    console = console or Console(quiet=True)
    console.print(
        f"Soak: {operations:,} operations, {processes} processes of {clients} clients, seed {seed}."
        f' Again: make soak SOAK="--operations {operations} --seed {seed}"'
    )
    outcomes: list[Outcome] = []
    try:
        with running_victim({"WEB_WORKERS": WEB_WORKERS}) as victim:
            trial = Trial(victim, seed=seed, operations=operations, console=console)
            trial.plan(processes=processes, clients=clients, seconds=seconds)
            outcomes.append(trial.outcome())
            trial.close()
            if not outcomes[0].is_proved:
                console.print(f"The service's folder stays: {victim.data_dir}")
                raise NotProved
    except NotProved:
        pass
    console.print(what_was_done(outcomes[0]), checks_table(outcomes[0]))
    return outcomes[0]


class Trial:
    """The service, the clients, and everyone who is at work besides."""

    def __init__(self, victim: Victim, *, seed: int, operations: int, console: Console) -> None:
        self.victim = victim
        self.seed = seed
        self.operations = operations
        self.console = console
        self.is_long = operations >= LONG_OPERATIONS
        self.pick = random.Random(seed)  # noqa: S311 - load, not secrets
        self.caps = Caps()
        self.memory = Memory()
        self.now = datetime.now(UTC)
        self.headers = self._tenants()
        self.callers = {tenant: self._caller(tenant) for tenant in self.headers}
        self.budgets = [self._make(budget) for budget in budgets_of_the_soak(self.now)]
        self._limit_rate()
        self.overseer = Overseer(
            budgets=self.budgets,
            callers=self.callers,
            caps=self.caps,
            memory=Memory(),
            pick=random.Random(seed + 1),  # noqa: S311 - load, not secrets
        )
        self.watch = Watch(
            service=victim,
            budgets=lambda: self.overseer.budgets,
            caps=self.caps,
            every_seconds=LOOK_SECONDS[self.is_long],
        )
        self.nuisance = Nuisance(
            port=victim.port,
            headers=self.headers[NUISANCE],
            caller=self.callers[NUISANCE],
            pick=random.Random(seed + 2),  # noqa: S311 - load, not secrets
        )
        self.clients: Clients
        self.killer: SoakKiller

    def plan(self, *, processes: int, clients: int, seconds: float) -> None:
        """Decide who does how much."""
        self.clients = Clients(
            Plan(
                port=self.victim.port,
                headers=self.headers,
                seed=self.seed,
                operations=self.operations,
                seconds=seconds,
                processes=processes,
                clients=clients,
                now=self.now,
                begins_at=time.monotonic(),
            )
        )
        self.killer = SoakKiller(
            victim=self.victim,
            traffic=self.clients,
            pick=self.pick,
            rhythm=LONG if self.is_long else SHORT,
        )

    def outcome(self) -> Outcome:
        """Work and kill, then compare."""
        begun = time.monotonic()
        problem = self._work()
        seconds = time.monotonic() - begun
        self.memory.add(self.clients.memory)
        self.memory.add(self.overseer.memory)
        self.memory.add(self.nuisance.memory)
        checks = [Check("reason why the service ended by itself", "none", problem)]
        if problem == "none" and not self.clients.is_going():
            self.victim.wait_until_ready()
            checks += self._compare()
        return Outcome(checks, self.killer.deaths, self.memory, seconds)

    def close(self) -> None:
        """Hang up."""
        for caller in self.callers.values():
            caller.close()

    # Before.

    def _tenants(self) -> Mapping[str, Mapping[str, str]]:
        names = (TIDY, ROUGH, NUISANCE)

        def make(name: str) -> Mapping[str, str]:
            owner = f"{name}@example.com"
            printed = self.victim.manage("create_tenant", name, "--owner", owner, "--json")
            key = json.loads(printed.splitlines()[-1])["api_key"]
            return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

        with ThreadPoolExecutor() as pool:
            return dict(zip(names, pool.map(make, names), strict=True))

    def _caller(self, tenant: str) -> Caller:
        return Caller(
            port=self.victim.port,
            headers=self.headers[tenant],
            memory=self.memory,
            pick=self.pick,
            progress=Progress([0, 0]),
        )

    def _make(self, budget: Budget) -> Budget:
        made = replace(budget, id=self._post(budget.tenant, "/v1/budgets", budget.body())["id"])
        self.caps.may_become(made.id, made.limit, time.monotonic())
        return made

    def _limit_rate(self) -> None:
        body = {
            "name": "A slow agent",
            "match": {"agent": PACED_AGENT},
            "limit": {"requests_per_minute": PACED_PER_MINUTE},
            "mode": "enforce",
        }
        self._post(ROUGH, "/v1/rate-limits", body)

    def _post(self, tenant: str, path: str, body: object) -> Any:
        caller = self.callers[tenant]
        answer = caller.ask(caller.request("POST", path, body))
        if answer.status != 201:
            raise ServiceEnded(f"{path}: {answer}")
        return json.loads(answer.body)

    # Meanwhile.

    def _work(self) -> str:
        """Everything done, whatever died meanwhile; answers why not, or "none"."""
        patience_seconds = PATIENCE_SECONDS + self.operations / LEAST_PER_SECOND
        stopping = threading.Event()
        besides = [
            threading.Thread(target=work, args=(stopping,))
            for work in (self.overseer.run, self.watch.run, self.nuisance.run)
        ]
        with ExitStack() as stack:
            tick = self._bar(stack)
            stack.callback(self.clients.stop)
            # Processes are forked before there are threads.
            self.clients.start()
            for thread in besides:
                thread.start()
                stack.callback(thread.join)
            stack.callback(stopping.set)
            try:
                self.killer.run(
                    self.killer.dues(is_long=self.is_long),
                    give_up_at=time.monotonic() + patience_seconds,
                    tick=tick,
                )
            except ServiceEnded as error:
                return str(error)
        return "none"

    def _bar(self, stack: ExitStack) -> Callable[[], None]:
        """A bar on a terminal; the answer brings it up to date."""
        if not self.console.is_terminal:
            return lambda: None
        bar = stack.enter_context(Bar(console=self.console))
        task = bar.add_task("done", total=self.operations)

        def update() -> None:
            deaths = self.killer.deaths.total()
            findings = self.watch.found.total()
            words = f"done; {deaths} deaths, {self.watch.looks:,} looks, {findings} findings"
            bar.update(task, completed=self.clients.done, description=words)

        return update

    # Afterwards.

    def _compare(self) -> list[Check]:
        still_open = self._wait_for_expiry()
        with self.victim.connect() as connection:
            self.watch.look(connection)
            books = read_books(connection)
        proof = Proof(books=books, memory=self.memory, budgets=self.overseer.budgets)
        findings = proof.compare()
        self._compare_revisions(books, findings)
        for grant in grants_while_halted(self.memory.grants, self.overseer.halts):
            findings.note("given although halted", grant)
        self._ask_for_unknown(books, findings)
        wrong = self.memory.wrong.most_common(SHOWN)
        server_errors = {one: n for one, n in self.memory.answers.items() if one == "500"}
        return [
            Check("operations", self.operations, self.clients.done),
            Check("answers that are wrong", "none", _lines(dict(wrong))),
            Check("answers 500", {}, server_errors),
            Check("windows beyond their limit, or that held otherwise, meanwhile", "none",
                  _lines(self.watch.found)),
            Check("reservations open after all have expired", 0, still_open),
            Check("reservations of the slow agent beyond its rate", 0,
                  paced_too_fast(self.memory, books)),
            Check("deviations of what is stored", "none", _deviations(findings)),
            Check("what the misbehaving tenant spent, in nano-dollars",
                  self.nuisance.spent_nanos, self._nuisance_nanos()),
            audit(self.victim),
            Check("exit status of the service when asked to stop", 0, self.victim.stop()),
        ]  # fmt: skip

    def _nuisance_nanos(self) -> int:
        """What its usage says."""
        caller = self.callers[NUISANCE]
        answer = caller.ask(caller.request("GET", "/v1/usage?interval=none"))
        return nanos_of(json.loads(answer.body)["total"]["cost_usd"])

    def _wait_for_expiry(self) -> int:
        """How many reservations are open once all have expired."""
        end = time.monotonic() + EXPIRED_WITHIN_SECONDS
        with self.victim.connect() as connection:
            while (left := count_open(connection)) and time.monotonic() < end:
                time.sleep(0.3)
                for caller in (self.callers[TIDY], self.callers[ROUGH]):
                    # Whoever asks, even in vain, lets go of what has expired.
                    body = {"amount_usd": TOO_MUCH_USD, "agent": "nobody"}
                    caller.ask(caller.request("POST", "/v1/reservations", body))
        return left

    def _compare_revisions(self, books: Books, findings: Findings) -> None:
        for budget_id, between in self.overseer.revised.items():
            counts_from = books.budgets[budget_id].counts_from
            budget = self.overseer.budgets[budget_id]
            is_told = revised_as_told(budget, counts_from, between)
            findings.require(is_told, "revisions that count from elsewhere", (budget, counts_from))

    def _ask_for_unknown(self, books: Books, findings: Findings) -> None:
        """What clients did not learn, the service still tells, as it is stored."""
        unknown = [
            hold
            for hold in self.memory.holds
            if hold.id and any(fate is Fate.UNKNOWN for _, fate in hold.settles)
        ]
        for hold in self.pick.sample(unknown, min(len(unknown), ASKED_AGAIN)):
            caller = self.callers[hold.tenant]
            answer = caller.ask(caller.request("GET", f"/v1/reservations/{hold.id}"))
            facts, row = json.loads(answer.body), books.reservations.get(hold.id)
            is_told = row is not None and facts.get("status") == row.status
            findings.require(is_told, "reservations told otherwise", (facts, row))


def _deviations(findings: Findings) -> str:
    return _lines(
        {f"{kind}, as {findings.examples[kind]}": n for kind, n in findings.found.items()}
    )


def _lines(found: Mapping[str, int]) -> str:
    """Findings as lines of a table's cell."""
    return "\n".join(f"{n:,} x {what}" for what, n in list(found.items())[:SHOWN]) or "none"


def what_was_done(outcome: Outcome) -> Table:
    """What was done, and what it met."""
    table = Table("Done under these conditions", "", title_justify="left")
    memory = outcome.memory
    rows: dict[str, int] = {
        **dict(sorted(memory.operations.items())),
        **{f"... refused by {one}": n for one, n in sorted(memory.refusals.items())},
        **{f"... answered {one}": n for one, n in sorted(memory.answers.items())},
        "... cut off, so asked again": memory.cut_off,
        "seconds": round(outcome.seconds),
        **dict(sorted(outcome.deaths.items())),
    }
    for what, figure in rows.items():
        table.add_row(what, f"{figure:,}")
    return table


def checks_table(outcome: Outcome) -> Table:
    """What was found beside what must be."""
    verdict = "nothing deviates" if outcome.is_proved else "DEVIATIONS"
    table = Table(f"Soak: {verdict}", "Must be", "Is")
    for check in outcome.checks:
        style = "green" if check.holds else "bold red"
        table.add_row(*(escape(str(part)) for part in check), style=style)
    return table
