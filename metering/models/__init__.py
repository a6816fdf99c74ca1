"""Rows of metering: configuration (prices, budgets) and facts (usage, ledger, roll-ups)."""

from metering.models.annotations import Annotation, UnitCount
from metering.models.attribute_mappings import AttributeMappings
from metering.models.background_jobs import UNFINISHED, BackgroundJob, JobKind, JobState
from metering.models.budgets import (
    Action,
    Budget,
    BudgetLevel,
    BudgetWindow,
    Crossing,
    EntryKind,
    FellBy,
    LedgerEntry,
    Mode,
    Period,
)
from metering.models.enforcement import (
    BY_LEVEL,
    Breaker,
    BreakerClose,
    BreakerState,
    CallSize,
    Decision,
    Halt,
    HaltKind,
    LimitIncrease,
    LimitIncreaseStatus,
    LimitReduction,
    ModelRoute,
    RateCounter,
    RateLimit,
    Reservation,
    ReservationState,
    Simulation,
    SimulationStatus,
)
from metering.models.prices import CataloguePrice, TenantPrice, ToolPrice
from metering.models.rollups import MEASURES, UsageCombination, UsageHistogram, UsageRollup
from metering.models.seals import UsageSeal, WindowSeal
from metering.models.sources import SourceCount, SourceOutcome
from metering.models.usage import (
    BATCH_ID_STRIDE,
    Authority,
    CallReport,
    Completeness,
    Correction,
    CostSource,
    EventKey,
    IngestBatch,
    Operation,
    Outcome,
    Route,
    Status,
    TraceSpan,
    UsageEvent,
)
