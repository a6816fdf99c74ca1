"""The short form of the proof that events count exactly once; its long form is
`make soak SOAK="--operations 0 --events 200000"`.
"""

from bench.soak import Scale, run


def test_every_event_counts_once_whatever_is_killed_meanwhile() -> None:
    scale = Scale(operations=0, events=8_000, processes=2, seconds=5.0)
    outcome = run(scale, seed=2, awaits_roll_ups=False)

    assert outcome.is_proved, [check for check in outcome.checks if not check.holds]
