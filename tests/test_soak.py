"""The short form of the soak in `bench.soak`; its long form is `make soak`, in parts of an hour."""

from bench.soak import Scale, faults, run

WANTED = (faults.CLOCKS, faults.POSTGRES_HUNG, faults.POSTGRES_KILLED)


def test_no_limit_is_passed_and_nothing_is_lost_whatever_happens_meanwhile() -> None:
    scale = Scale(operations=1_500, events=1_000, processes=2, clients=8, seconds=3.0)
    outcome = run(scale, seed=3, awaits_roll_ups=False)

    assert outcome.is_proved, [check for check in outcome.checks if not check.holds]
    assert all(outcome.faults[fault] for fault in WANTED), outcome.faults
