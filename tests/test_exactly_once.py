"""The short form of the proof in `bench.exactly_once`; its long form is
`python -m bench.exactly_once`, with 200,000 events."""

from bench.exactly_once import run


def test_every_event_counts_once_whatever_is_killed_meanwhile() -> None:
    outcome = run(events=8_000, clients=8, seed=2, seconds=5.0, awaits_roll_ups=False)

    assert outcome.is_proved, [check for check in outcome.checks if not check.holds]
