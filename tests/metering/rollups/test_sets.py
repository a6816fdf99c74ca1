"""The numbers of dimension sets, which are stored with every row of roll-ups."""

from metering.rollups.sets import DAY_SECONDS, QUARTER_SECONDS, SETS

NUMBERS = {
    QUARTER_SECONDS: "1 2:team 3:customer 4:agent 5:feature 6:model 7:provider",
    DAY_SECONDS: "21 22:team 23:customer 24:agent 25:feature 26:model 27:provider 28:user 29:tool"
    " 41:team+customer 42:team+agent 43:team+feature 44:team+model 45:customer+agent"
    " 46:customer+feature 47:customer+model 48:agent+feature 49:agent+model 50:feature+model",
}


def test_a_number_never_gets_another_meaning() -> None:
    for grain_seconds, numbers in NUMBERS.items():
        sets = [each for each in SETS if each.grain_seconds == grain_seconds]
        spelled = [f"{s.number}:{'+'.join(s.dimensions)}".removesuffix(":") for s in sets]
        assert " ".join(spelled) == numbers
