"""The short form of the soak in `bench.soak`; its long form is `make soak`, with a million
operations.
"""

from bench.soak import run


def test_no_limit_is_passed_and_nothing_is_lost_whatever_happens_meanwhile() -> None:
    outcome = run(operations=1_500, seed=3, processes=2, clients=8, seconds=3.0)

    assert outcome.is_proved, [check for check in outcome.checks if not check.holds]
