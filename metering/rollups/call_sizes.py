"""The usual sizes of calls by agent, feature and model: what estimates are made of.

Owns `call_size`: per key and measure, counts by bin, and one row with the number of
calls that they count.
Learned in the roll-up's transaction, so each event is considered once. It is a memory, not a sum:
of many calls only some are learned, old ones fade, and what corrections and rating again change is
not taken back.
"""

from typing import Final, NamedTuple

import numpy as np
from django.db import connection
from django.db.backends.utils import CursorWrapper
from numpy.typing import NDArray

from metering.models import MEASURES
from metering.pricing.model_names import find_model
from metering.rollups.bins import ZERO_BIN, bins_of
from metering.rollups.sets import OTHER
from metering.rollups.sums import EventColumns, Whole

# The measures; their numbers are stored. CALLS is the row that counts a key's calls.
CALLS: Final = 0
COST: Final = 1
OUTPUT: Final = 2
TOKENS: Final = 3
# A tenant's row that counts its keys. No event can carry its agent, feature and model.
KEYS: Final = 4
KEYS_ROW: Final = (OTHER, OTHER, OTHER)

# Writing a call takes 40 µs, as long as adding it up for all roll-ups. So of each portion only some
# are learned: so many in any case, and one in so many; those of well-known keys seldom.
LEARNED_AT_LEAST: Final = 100
LEARNED_ONE_IN: Final = 25
WELL_KNOWN_CALLS: Final = 100
WELL_KNOWN_ONE_IN: Final = 8
# Once this many calls are known of a key, they count as half as many: what was long ago fades.
CALLS_MAX: Final = 500
# A tenant with more keys than this loses those with the fewest calls, so that new ones find room.
KEYS_MAX: Final = 20_000
KEYS_KEPT: Final = 10_000
# Bins, that of zero counted from 0, and measures are below these.
BIN_STRIDE: Final = 1 << 10
MEASURE_STRIDE: Final = 1 << 3

FIND_KNOWN: Final = """
    SELECT k.number, c.count
    FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY
        AS k (agent, feature, model, number)
    JOIN call_size c ON c.tenant_id = %s AND c.agent = k.agent AND c.feature = k.feature
        AND c.model = k.model AND c.measure = %s AND c.bin = 0
"""
ADD: Final = """
    INSERT INTO call_size AS c (tenant_id, agent, feature, model, measure, bin, count)
    SELECT %s, n.* FROM unnest(%s::text[], %s::text[], %s::text[], %s::smallint[], %s::smallint[],
        %s::bigint[]) AS n
    ON CONFLICT (tenant_id, agent, feature, model, measure, bin)
        DO UPDATE SET count = c.count + excluded.count
"""
# Rounded by chance, so that the thin bins of rare large calls fade no faster than thick ones.
FADE: Final = """
    UPDATE call_size c SET count = floor((c.count * %s)::float8 / k.calls + random())
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[])
        AS k (agent, feature, model, calls)
    WHERE c.tenant_id = %s AND c.agent = k.agent AND c.feature = k.feature AND c.model = k.model
"""
FORGET_EMPTY: Final = """
    DELETE FROM call_size c
    USING unnest(%s::text[], %s::text[], %s::text[]) AS k (agent, feature, model)
    WHERE c.tenant_id = %s AND c.agent = k.agent AND c.feature = k.feature AND c.model = k.model
    AND c.count = 0
"""
COUNT_KEYS: Final = """
    INSERT INTO call_size AS c (tenant_id, agent, feature, model, measure, bin, count)
    VALUES (%s, %s, %s, %s, %s, 0, %s)
    ON CONFLICT (tenant_id, agent, feature, model, measure, bin)
        DO UPDATE SET count = c.count + excluded.count
    RETURNING count
"""
FORGET_RARE: Final = """
    DELETE FROM call_size c USING (
        SELECT agent, feature, model FROM call_size WHERE tenant_id = %s AND measure = %s
        ORDER BY count DESC, agent, feature, model OFFSET %s
    ) k
    WHERE c.tenant_id = %s AND c.agent = k.agent AND c.feature = k.feature AND c.model = k.model
"""


class Keys(NamedTuple):
    """Whose calls are counted, as columns."""

    agents: list[str]
    features: list[str]
    models: list[str]

    def chosen(self, indexes: Whole) -> "Keys":
        """Return the keys at these positions."""
        return Keys(*([column[index] for index in indexes.tolist()] for column in self))


class Calls(NamedTuple):
    """Calls as columns: the place of each one's key, and its size by measure."""

    keys: Keys
    places: Whole
    sizes: dict[int, Whole]


def learn(*, tenant_id: int, events: EventColumns) -> None:
    """Count the sizes of some of the calls among these events.

    In the transaction of the roll-up, under its lock: one at a time for each tenant.
    """
    places = np.flatnonzero(events.is_learned)
    if not places.size:
        return
    most = LEARNED_AT_LEAST + places.size // LEARNED_ONE_IN
    # Twice as many, since some will turn out to be well known.
    calls = calls_of(events, _some(places, 2 * most))
    with connection.cursor() as cursor:
        cursor.execute(FIND_KNOWN, [*calls.keys, tenant_id, CALLS])
        known = np.zeros(len(calls.keys.agents), np.int64)
        for number, count in cursor.fetchall():
            known[number - 1] = count
        learned = _some(np.flatnonzero(_is_news(known[calls.places])), most)
        _add(cursor, tenant_id, calls, learned)
        counts = known + np.bincount(calls.places[learned], minlength=known.size)
        _fade(cursor, tenant_id, calls.keys, counts)
        _make_room(cursor, tenant_id, new_keys=int(np.count_nonzero((known == 0) & (counts > 0))))


def calls_of(events: EventColumns, chosen: Whole) -> Calls:
    """Return the chosen of the events as calls."""
    measures = {
        name: values[chosen] for name, values in zip(MEASURES, events.measures, strict=True)
    }
    keys, places = _keys_of(events, chosen)
    sizes = {
        COST: measures["cost_nanos"],
        OUTPUT: measures["output_tokens"],
        TOKENS: measures["input_tokens"] + measures["output_tokens"],
    }
    return Calls(keys, places, sizes)


def known_model(name: str) -> str:
    """Return the catalogue's name of a model, so that its dated versions share one history."""
    model = find_model(None, name) if name else None
    return name if model is None else model.model


def _keys_of(events: EventColumns, chosen: Whole) -> tuple[Keys, Whole]:
    """Return the keys of the chosen events, and each event's place among them."""
    agents, features, models = (events.dimensions[name] for name in ("agent", "feature", "model"))
    names = sorted({known_model(name) for name in models.values})
    number_of = {name: number for number, name in enumerate(names)}
    renumbered = np.array([number_of[known_model(name)] for name in models.values], np.int64)
    codes = agents.codes[chosen] * len(features.values) + features.codes[chosen]
    codes = codes * len(names) + renumbered[models.codes[chosen]]
    distinct, places = np.unique(codes, return_inverse=True)
    rest, model_numbers = np.divmod(distinct, len(names))
    agent_numbers, feature_numbers = np.divmod(rest, len(features.values))
    keys = Keys(
        [agents.values[number] for number in agent_numbers.tolist()],
        [features.values[number] for number in feature_numbers.tolist()],
        [names[number] for number in model_numbers.tolist()],
    )
    return keys, places


def _some(places: Whole, most: int) -> Whole:
    """Choose at most this many, by chance: no pattern in how calls are sent decides which."""
    if places.size <= most:
        return places
    some: Whole = np.random.default_rng().choice(places, most, replace=False, shuffle=False)
    return some


def _is_news(known: Whole) -> NDArray[np.bool_]:
    """Choose the calls worth learning, given the number of known ones of each one's key."""
    chance = np.random.default_rng().random(known.size)
    is_news: NDArray[np.bool_] = (known < WELL_KNOWN_CALLS) | (chance * WELL_KNOWN_ONE_IN < 1)
    return is_news


def _add(cursor: CursorWrapper, tenant_id: int, calls: Calls, learned: Whole) -> None:
    """Count these calls, each in one bin of every measure."""
    places = calls.places[learned]
    bins = {measure: bins_of(values[learned]) for measure, values in calls.sizes.items()}
    bins[CALLS] = np.zeros(places.size, np.int64)
    codes = [
        (places * MEASURE_STRIDE + measure) * BIN_STRIDE + numbers - ZERO_BIN
        for measure, numbers in bins.items()
    ]
    distinct, counts = np.unique(np.concatenate(codes), return_counts=True)
    rest, numbers = np.divmod(distinct, BIN_STRIDE)
    key_places, measures = np.divmod(rest, MEASURE_STRIDE)
    rows = [measures.tolist(), (numbers + ZERO_BIN).tolist(), counts.tolist()]
    cursor.execute(ADD, [tenant_id, *calls.keys.chosen(key_places), *rows])


def _fade(cursor: CursorWrapper, tenant_id: int, keys: Keys, counts: Whole) -> None:
    """Let what is known of keys with many calls count as half of CALLS_MAX calls."""
    many = np.flatnonzero(counts > CALLS_MAX)
    if not many.size:
        return
    faded = keys.chosen(many)
    cursor.execute(FADE, [CALLS_MAX // 2, *faded, counts[many].tolist(), tenant_id])
    cursor.execute(FORGET_EMPTY, [*faded, tenant_id])


def _make_room(cursor: CursorWrapper, tenant_id: int, *, new_keys: int) -> None:
    """Count the tenant's keys, and forget those with the fewest calls when there are too many."""
    if not new_keys:
        return
    row = (tenant_id, *KEYS_ROW, KEYS)
    cursor.execute(COUNT_KEYS, [*row, new_keys])
    (count,) = cursor.fetchone()
    if count > KEYS_MAX:
        cursor.execute(FORGET_RARE, [tenant_id, CALLS, KEYS_KEPT, tenant_id])
        cursor.execute(COUNT_KEYS, [*row, KEYS_KEPT - count])
