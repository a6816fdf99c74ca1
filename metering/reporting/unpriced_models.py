"""Usage that no price covers."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from common.queries import fetch_rows
from metering.models import Completeness, CostSource
from metering.pricing.model_names import nearest_model


class UnpricedModel(NamedTuple):
    """Events of one model that no price covers, or whose usage was not reported."""

    provider: str
    model: str
    is_usage_missing: bool
    event_count: int
    last_at: datetime

    @property
    def nearest(self) -> str | None:
        """The model with a price that this one is a misspelling of, as far as one can tell."""
        return None if self.is_usage_missing else nearest_model(self.provider or None, self.model)


def unpriced_models(
    *,
    tenant_id: int,
    starts_at: datetime,
    ends_at: datetime,
    limit: int = 100,
    teams: Sequence[str] | None = None,
) -> list[UnpricedModel]:
    """Return models without a price that were used (by these teams, None: by any), those with most
    events first.
    """
    in_teams = None if teams is None else list(teams)
    # The number is written out, so that the partial index of unpriced events fits.
    rows = fetch_rows(
        f"SELECT provider, model, completeness = {Completeness.MISSING.value}, count(*), max(time)"
        f" FROM usage_event WHERE tenant_id = %s AND cost_source = {CostSource.UNPRICED.value}"
        " AND NOT is_void AND time >= %s AND time < %s"
        " AND (%s::text[] IS NULL OR team = ANY(%s))"
        " GROUP BY 1, 2, 3 ORDER BY count(*) DESC, 1, 2, 3 LIMIT %s",
        [tenant_id, starts_at, ends_at, in_teams, in_teams, limit],
    )
    return [UnpricedModel(*row) for row in rows]
