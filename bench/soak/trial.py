"""One part of the soak, from the start of the service to the table of what was found."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from rich.console import Console
from rich.progress import Progress as Bar

from bench.kit.caller import Caller, Progress, Tally
from bench.kit.checks import Check, audit, lines
from bench.kit.database import fetch_rows
from bench.kit.money import nanos_of
from bench.kit.service import Service, ServiceEnded, headers_of
from bench.kit.wire import JsonObject
from bench.soak.books import (
    OPEN_RESERVATIONS,
    WAITING_BATCHES,
    Archive,
    sums_by_tenant,
    tenants_named,
)
from bench.soak.caps import Caps
from bench.soak.clients import Clients
from bench.soak.faults import WORKER_SKEW_SECONDS, Due, FaultInjector, Rhythm
from bench.soak.nuisance import NUISANCE, Nuisance
from bench.soak.overseer import Overseer
from bench.soak.parts import Outcome, Parts
from bench.soak.plan import Plan, Scale
from bench.soak.proof import Proof, grants_while_halted, revised_as_told
from bench.soak.records import Event, Fate, Hold, Memory, read_frames
from bench.soak.watch import Watch
from bench.soak.world import (
    BULK,
    COMPARED,
    LATE,
    NOTHING,
    PACED_AGENT,
    PACED_PER_MINUTE,
    ROUGH,
    TIDY,
    Amounts,
    Budget,
    budgets_of_the_soak,
)

LONG_OPERATIONS: Final = 50_000
# With deaths in between; a run that takes much longer hangs.
LEAST_PER_SECOND: Final = 20
PATIENCE_SECONDS: Final = 400.0
EXPIRED_WITHIN_SECONDS: Final = 60.0
ROLLED_UP_WITHIN_SECONDS: Final = 180.0 + 2 * WORKER_SKEW_SECONDS
LOOK_SECONDS: Final = (0.15, 1.0)
ASKED_AGAIN: Final = 200
SENT_AGAIN: Final = 1_000
# More than any limit lets through, so that it is refused.
TOO_MUCH_USD: Final = "9999999"
# A long run has many deaths anyway, and should get on with its operations between them.
LONG: Final = Rhythm(web=(15.0, 40.0), connections=(0.5, 3.0))
# A short one would be over before the web process had served for long, so its deaths are counted.
NEVER_SECONDS: Final = 1e9
SHORT: Final = Rhythm(web=(NEVER_SECONDS, NEVER_SECONDS), connections=(0.05, 0.5))
# Where events are only reported, everything may die all the time.
OFTEN: Final = Rhythm(web=(2.0, 4.0), connections=(0.02, 0.2))
LONG_DUES: Final = 36


class Trial:
    """The service, the clients, and everyone who is at work besides."""

    def __init__(self, service: Service, parts: Parts, scale: Scale, console: Console) -> None:
        self.service = service
        self.parts = parts
        self.scale = scale
        self.console = console
        self.is_long = scale.work >= LONG_OPERATIONS
        self.memory = Memory()
        self.caps = Caps()
        self.now = datetime.now(UTC)
        self.records = service.folder / f"records-{parts.number}"
        self.records.mkdir()
        names = {tenant: f"{tenant}-{parts.number}" for tenant in (*COMPARED, NUISANCE)}
        with ThreadPoolExecutor() as pool:
            keys = dict(zip(names, pool.map(service.make_tenant, names.values()), strict=True))
        self.headers = {tenant: headers_of(key) for tenant, key in keys.items()}
        with service.connect() as connection:
            self.tenant_ids = tenants_named(connection, [names[tenant] for tenant in COMPARED])
        # Each caller has one thread: those of the trial itself, and those of the overseer.
        self.callers = {tenant: self._caller(tenant, self.memory.tally) for tenant in names}
        budgets = [self._make(budget) for budget in budgets_of_the_soak(self.now)]
        self._limit_rate()
        own = Memory()
        self.overseer = Overseer(
            budgets=budgets,
            callers={tenant: self._caller(tenant, own.tally) for tenant in names},
            caps=self.caps,
            memory=own,
            pick=self._pick("overseer"),
        )
        self.watch = Watch(
            service=service,
            budgets=lambda: self.overseer.budgets,
            caps=self.caps,
            tenant_ids=self.tenant_ids,
            every_seconds=LOOK_SECONDS[self.is_long],
        )
        self.nuisance = Nuisance(
            port=service.port,
            headers=self.headers[NUISANCE],
            caller=self.callers[NUISANCE],
            pick=self._pick("nuisance"),
        )
        self.clients = Clients(
            Plan(
                port=self.service.port,
                headers=self.headers,
                seed=f"{self.parts.seed}-{self.parts.number}",
                scale=scale,
                now=self.now,
                begins_at=time.monotonic(),
                records=self.records,
            )
        )
        self.injector = FaultInjector(
            service=self.service,
            clients=self.clients,
            pick=self._pick("faults"),
            rhythm=OFTEN if not scale.operations else LONG if self.is_long else SHORT,
        )

    def outcome(self, *, awaits_roll_ups: bool) -> Outcome:
        """Work and break, then compare."""
        begun, part = time.monotonic(), self.parts.number
        problem = self._work()
        seconds = time.monotonic() - begun
        for memory in (self.clients.memory, self.overseer.memory, self.nuisance.memory):
            self.memory.add(memory)
        checks = [Check("reason why the service ended by itself", "none", problem)]
        if problem == "none" and not self.clients.is_going():
            self.service.wait_until_ready()
            checks += self._compare(awaits_roll_ups=awaits_roll_ups)
        for caller in (*self.callers.values(), *self.overseer.callers.values()):
            caller.close()
        return Outcome(
            part=part,
            seed=self.parts.seed,
            checks=checks,
            faults=self.injector.counts + self.memory.tally.faults,
            memory=self.memory,
            scale=self.scale,
            seconds=seconds,
        )

    # Before.

    def _pick(self, who: str) -> random.Random:
        seed = f"{self.parts.seed}-{self.parts.number}-{who}"
        return random.Random(seed)

    def _caller(self, tenant: str, tally: Tally) -> Caller:
        pick = self._pick(tenant)
        return Caller(self.service.port, self.headers[tenant], tally, pick, Progress([0, 0]))

    def _make(self, budget: Budget) -> Budget:
        made = replace(budget, id=self._post(budget.tenant, "/v1/budgets", budget.body())["id"])
        self.caps.may_become(made.id, made.limit, time.monotonic())
        return made

    def _make_late(self) -> None:
        """Make a budget of what has come and of what will."""
        made = self._make(LATE)
        self.overseer.budgets[made.id] = made

    def _limit_rate(self) -> None:
        body = {
            "name": "A slow agent",
            "match": {"agent": PACED_AGENT},
            "limit": {"requests_per_minute": PACED_PER_MINUTE},
            "mode": "enforce",
        }
        self._post(ROUGH, "/v1/rate-limits", body)

    def _post(self, tenant: str, path: str, body: object) -> JsonObject:
        key = f"make {time.monotonic_ns()}"
        answer = self.callers[tenant].call("POST", path, body, key=key)
        if answer.status != 201:
            raise ServiceEnded(f"{path}: {answer}")
        return answer.json()

    # Meanwhile.

    def _work(self) -> str:
        """Do everything, whatever dies meanwhile; returns why it was not done, or "none"."""
        patience_seconds = PATIENCE_SECONDS + self.scale.work / LEAST_PER_SECOND
        stopping = threading.Event()
        others = [self.watch.run, self.nuisance.run]
        if self.scale.operations:
            others.append(self.overseer.run)
        with ExitStack() as stack:
            tick = self._bar(stack)
            stack.callback(self.clients.stop)
            # Processes are forked before there are threads.
            self.clients.start()
            for work in others:
                thread = threading.Thread(target=work, args=(stopping,))
                thread.start()
                stack.callback(thread.join)
            stack.callback(stopping.set)
            give_up_at = time.monotonic() + patience_seconds
            try:
                self.injector.run(self._dues(), give_up_at=give_up_at, tick=tick)
            except ServiceEnded as error:
                return str(error)
        return "none"

    def _dues(self) -> list[Due]:
        """List what happens when; in a short run each kind of fault once at most."""
        injector = self.injector
        dues = [Due(0.5, self._make_late)] if self.scale.events else []
        if self.is_long:
            ways = (
                injector.stop_postgres,
                injector.skew_clocks,
                injector.kill_postgres,
                injector.kill_workers,
                injector.hang_postgres,
                injector.kill_everything,
            )
            acts = [ways[number % len(ways)] for number in range(LONG_DUES)]
        elif self.scale.operations:
            acts = [
                injector.skew_clocks,
                injector.kill_web,
                injector.hang_postgres,
                injector.kill_postgres,
            ]
        else:
            acts = [injector.kill_workers, injector.stop_postgres, injector.kill_everything]
        return dues + [Due((number + 1) / (len(acts) + 1), act) for number, act in enumerate(acts)]

    def _bar(self, stack: ExitStack) -> Callable[[], None]:
        """Show a bar on a terminal; what is returned brings it up to date."""
        if not self.console.is_terminal:
            return lambda: None
        bar = stack.enter_context(Bar(console=self.console))
        task = bar.add_task("done", total=self.scale.work)

        def update() -> None:
            faults, findings = self.injector.counts.total(), self.watch.found.total()
            words = f"done; {faults} faults, {self.watch.looks:,} looks, {findings} findings"
            bar.update(task, completed=self.clients.done, description=words)

        return update

    # Afterwards.

    def _compare(self, *, awaits_roll_ups: bool) -> Iterator[Check]:
        still_open = self._wait_for_expiry()
        with self.service.connect() as connection:
            self.watch.look(connection)
            yield from self._compare_records(Archive(connection, self.tenant_ids))
        yield Check("operations and events", self.scale.work, self.clients.done)
        yield Check("answers that are wrong", "none", lines(dict(self.memory.wrong.most_common(8))))
        yield Check("answers 500", 0, self.memory.tally.answers["500"])
        looked = "windows beyond their limit, or that held otherwise, meanwhile"
        yield Check(looked, "none", lines(self.watch.found))
        yield Check("reservations open after all have expired", 0, still_open)
        if awaits_roll_ups:
            left = self._until_none(WAITING_BATCHES, ROLLED_UP_WITHIN_SECONDS)
            yield Check("batches not rolled up after a while", 0, left)
            yield self._usage("rolled up")
        spent = self._total(NUISANCE).nanos
        yield Check("what the misbehaving tenant spent", self.nuisance.spent_nanos, spent)
        with self.service.connect() as connection:
            sums = sums_by_tenant(connection)
        yield Check("books of earlier parts that changed", [], self.parts.changed(sums))
        self.parts.close(sums)
        yield audit(self.service)
        yield Check("exit status of the service when asked to stop", 0, self.service.stop())

    def _compare_records(self, archive: Archive) -> Iterator[Check]:
        """Compare all that clients remember with the books, a frame at a time."""
        books = archive.books()
        self.proof = proof = Proof(
            books=books, budgets=self.overseer.budgets, voided=self.memory.voided
        )
        unknown: list[Hold] = []
        sent: list[Event] = []
        for frame in read_frames(self.records):
            proof.add(frame, archive.rows(frame))
            for grant in grants_while_halted(frame.grants, self.overseer.halts):
                proof.findings.note("given although halted", grant)
            unknown += [
                hold
                for hold in frame.holds
                if hold.id and any(fate is Fate.UNKNOWN for _, fate in hold.settles)
            ]
            sent += [event for tenant, event, _ in frame.events if tenant == BULK]
            self._pick("sample").shuffle(sent)
            del unknown[ASKED_AGAIN:], sent[SENT_AGAIN:]
        findings = proof.close()
        for budget_id, between in self.overseer.revised.items():
            counts_from = books.budgets[budget_id].counts_from
            budget = self.overseer.budgets[budget_id]
            is_told = revised_as_told(budget, counts_from, between)
            findings.require(is_told, "revisions that count from elsewhere", (budget, counts_from))
        for hold in unknown:
            # What clients did not learn, the service still tells, as it is stored.
            told = self._get(hold.tenant, f"/v1/reservations/{hold.id}").get("status")
            stored = archive.status(hold.id)
            findings.require(told == stored, "reservations told otherwise", (hold, told))
        deviations = {
            f"{what}, as {findings.examples[what]}": n for what, n in findings.counts.items()
        }
        yield Check("deviations of what is stored", "none", lines(deviations))
        yield self._usage("at once")
        yield self._send_again(sent)

    def _send_again(self, events: Sequence[Event]) -> Check:
        """Check that the service still knows the calls that were reported."""
        names = ("accepted", "merged", "rejected")
        counts = dict.fromkeys(names, 0)
        if events:
            bodies = [event.body() for event in events]
            told = self.callers[BULK].call("POST", "/v1/events", bodies).json()
            counts = {name: told[name] for name in names}
        return Check("events sent once more that are new", dict.fromkeys(names, 0), counts)

    def _usage(self, when: str) -> Check:
        """Compare /v1/usage with what is booked, for each agent and in all."""
        drifting = []
        for tenant, agents in self.proof.usage.items():
            rows = self._get(tenant, self._usage_path(group_by="agent", limit=500))["data"]
            told = {row["group"]["agent"] or "": _amounts(row) for row in rows}
            booked = {agent: amounts._replace(tokens=0) for agent, amounts in agents.items()}
            total = NOTHING
            for amounts in booked.values():
                total = total.plus(amounts)
            if told != booked or self._total(tenant) != total:
                drifting.append(f"{tenant}: {total}, but {self._total(tenant)}")
        return Check(f"usage, {when}: tenants that drift", [], drifting)

    def _total(self, tenant: str) -> Amounts:
        return _amounts(self._get(tenant, self._usage_path())["total"])

    def _usage_path(self, **more: str | int) -> str:
        begin, end = self.now - timedelta(days=8), self.now + timedelta(days=1)
        asked = {"interval": "none", "from": begin.isoformat(), "to": end.isoformat(), **more}
        return f"/v1/usage?{urlencode(asked)}"

    def _get(self, tenant: str, path: str) -> JsonObject:
        return self.callers[tenant].call("GET", path).json()

    def _wait_for_expiry(self) -> int:
        """Return the number of reservations that are open once all have expired."""

        def ask_in_vain() -> None:
            # Any request, even in vain, lets go of what has expired.
            for tenant in (TIDY, ROUGH):
                body = {"amount_usd": TOO_MUCH_USD, "agent": "nobody"}
                self.callers[tenant].call("POST", "/v1/reservations", body)

        return self._until_none(OPEN_RESERVATIONS, EXPIRED_WITHIN_SECONDS, ask_in_vain)

    def _until_none(
        self, query: str, seconds: float, meanwhile: Callable[[], None] = lambda: None
    ) -> int:
        """Return how many rows are left when there are none, or the time is over."""
        end = time.monotonic() + seconds
        with self.service.connect() as connection:
            while (
                left := len(fetch_rows(connection, query, [self.tenant_ids]))
            ) and time.monotonic() < end:
                time.sleep(0.3)
                meanwhile()
        return left


def _amounts(row: JsonObject) -> Amounts:
    return Amounts(nanos_of(row["cost_usd"]), 0, row["requests"], row["tool_calls"])
