"""What customers used, read from roll-ups and events as every report is.

All reading for an answer must see one snapshot (`tenant_scope(..., is_snapshot=True)`).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, pairwise, product
from math import prod
from operator import contains
from typing import NamedTuple

from django.db.models import Q

from billing.customers import LINK_DIMENSIONS
from billing.models import CustomerLink
from metering.calls.seals import read_sealed
from metering.reporting.intervals import Bucket
from metering.reporting.question import EARLIEST, LATEST, VALUES_MAX, UsageQuestion
from metering.reporting.usage import Measures, measures_in

Dimensions = frozenset[str]


class Piece(NamedTuple):
    """A stretch of time whose usage is wanted by itself; its end is not included."""

    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True)
class Demand:
    """What is wanted of a customer: the usage in each of these pieces, which are in order and do
    not overlap, told apart by each of these sets of dimensions.
    """

    customer_id: int
    pieces: tuple[Piece, ...]
    dimensions: frozenset[Dimensions]

    @property
    def read(self) -> list[Dimensions]:
        """The sets that usage is read by: what others are part of tells theirs apart as well."""
        return [
            each for each in self.dimensions if not any(each < other for other in self.dimensions)
        ]


class Cell(NamedTuple):
    """Usage that has these values of dimensions."""

    group: Mapping[str, str]
    measures: Measures


# A piece's number, and the dimensions that its usage is told apart by.
_Place = tuple[Dimensions, int]


class CustomerUsage:
    """Usage of a customer by set of dimensions and piece."""

    def __init__(self, read: Iterable[Dimensions] = ()) -> None:
        self._read = sorted(read, key=len)
        self._cells: defaultdict[_Place, list[Cell]] = defaultdict(list)
        # By the dimensions of a filter, then by their values: a plan has many charges that each
        # name one model of many.
        self._found: dict[tuple[_Place, tuple[str, ...]], dict[tuple[str, ...], list[Cell]]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing was used."""
        return not self._cells

    def add(self, dimensions: Dimensions, piece: int, cell: Cell) -> None:
        """Count usage of a piece, before any is looked for."""
        self._cells[dimensions, piece].append(cell)

    def of(self, dimensions: Dimensions, piece: int) -> Sequence[Cell]:
        """Return what was used in a piece, told apart by these dimensions or more."""
        return self._cells.get((self._known_by(dimensions), piece), ())

    def _known_by(self, dimensions: Dimensions) -> Dimensions:
        return next((each for each in self._read if dimensions <= each), dimensions)

    def facts(self, piece: int) -> list[object]:
        """Return all that is known of a piece, in an order that depends on nothing else."""
        of_piece = {
            tuple(sorted(dimensions)): cells
            for (dimensions, index), cells in self._cells.items()
            if index == piece
        }
        return [
            (
                names,
                sorted((sorted(group.items()), measures) for group, measures in of_piece[names]),
            )
            for names in sorted(of_piece)
        ]

    def matching(
        self, dimensions: Dimensions, piece: int, wanted: Mapping[str, frozenset[str]]
    ) -> Sequence[Cell]:
        """Return what was used in a piece with these values of some of the dimensions."""
        names = tuple(wanted)
        key = (dimensions, piece), names
        by_values = self._found.get(key)
        if by_values is None:
            by_values = self._found[key] = defaultdict(list)
            for cell in self.of(dimensions, piece):
                by_values[tuple([cell.group[name] for name in names])].append(cell)
        if prod(map(len, wanted.values())) <= len(by_values):
            lists = [
                by_values[values] for values in product(*wanted.values()) if values in by_values
            ]
        else:
            lists = [
                cells
                for values, cells in by_values.items()
                if all(map(contains, wanted.values(), values))
            ]
        return lists[0] if len(lists) == 1 else list(chain.from_iterable(lists))


class _Question(NamedTuple):
    """Values of one linked dimension that can be read together."""

    dimension: str
    pieces: tuple[Piece, ...]
    dimensions: Dimensions


class _Asker(NamedTuple):
    """For whom a value is read, and which of the customer's pieces those of the question are."""

    customer_id: int
    places: tuple[int, ...]


def read_usage(tenant_id: int, demands: Sequence[Demand]) -> dict[int, CustomerUsage]:
    """Return the usage of each customer of the demands.

    Customers with the same pieces are read together, up to a hundred by a query, so that a month
    of thousands of customers takes few.
    """
    answers = {demand.customer_id: CustomerUsage(demand.read) for demand in demands}
    links = _links_of(tenant_id, answers)
    precedence = _Precedence(tenant_id)
    questions: defaultdict[_Question, dict[str, _Asker]] = defaultdict(dict)
    for demand in demands:
        for link in links[demand.customer_id]:
            places, pieces = _within(demand.pieces, link, precedence.cuts(link.dimension))
            if pieces:
                asker = _Asker(demand.customer_id, places)
                for dimensions in demand.read:
                    question = _Question(link.dimension, pieces, dimensions)
                    questions[question][link.value] = asker
    for question, askers in questions.items():
        names = sorted(askers)
        for first in range(0, len(names), VALUES_MAX):
            values = names[first : first + VALUES_MAX]
            for value, piece, group, measures in _read(tenant_id, question, values, precedence):
                asker = askers[value]
                answers[asker.customer_id].add(
                    question.dimensions, asker.places[piece], Cell(group, measures)
                )
    return answers


def usage_kept_from(tenant_id: int) -> datetime:
    """Return from when on all usage of a tenant can be read. Of what is older, sums by day may be
    left, which know neither every filter nor the edges of periods.

    What is frozen counts as gone: its partition may be dropped at any time.
    """
    return read_sealed(tenant_id).frozen_until


def _read(
    tenant_id: int, question: _Question, values: Sequence[str], precedence: "_Precedence"
) -> Iterator[tuple[str, int, dict[str, str], Measures]]:
    higher = precedence.above(question.dimension)
    group_by = tuple(dict.fromkeys((question.dimension, *higher, *sorted(question.dimensions))))
    usage_question = UsageQuestion(
        tenant_id=tenant_id,
        starts_at=question.pieces[0].starts_at,
        ends_at=question.pieces[-1].ends_at,
        interval="none",
        filters={question.dimension: tuple(values)},
    )
    portion = [Bucket(piece.starts_at, piece.starts_at, piece.ends_at) for piece in question.pieces]
    for (number, key), measures in measures_in(usage_question, portion, group_by, None).items():
        group = dict(zip(group_by, key, strict=True))
        if not (higher and precedence.decides(higher, group, question.pieces[number - 1])):
            yield group[question.dimension], number - 1, group, measures


class _Precedence:
    """Which usage a link does not have, because a link on an earlier dimension has it."""

    def __init__(self, tenant_id: int) -> None:
        # Most tenants link customers alone: nothing comes before that.
        self._linked = list(
            CustomerLink.objects.filter(tenant_id=tenant_id)
            .order_by("dimension")
            .values_list("dimension", flat=True)
            .distinct()
        )
        self._tenant_id = tenant_id
        self._links: dict[str, dict[str, list[CustomerLink]]] = {}
        self._cuts: dict[str, set[datetime]] = {}

    def above(self, dimension: str) -> tuple[str, ...]:
        """Return the linked dimensions that come before this one."""
        before = LINK_DIMENSIONS[: LINK_DIMENSIONS.index(dimension)]
        return tuple(name for name in before if name in self._linked)

    def cuts(self, dimension: str) -> set[datetime]:
        """Return when links on the dimensions before this one begin and end."""
        if dimension not in self._cuts:
            timed = CustomerLink.objects.filter(
                ~Q(starts_at=None) | ~Q(ends_at=None),
                tenant_id=self._tenant_id,
                dimension__in=self.above(dimension),
            )
            bounds = timed.values_list("starts_at", "ends_at")
            self._cuts[dimension] = {at for pair in bounds for at in pair if at is not None}
        return self._cuts[dimension]

    def decides(self, higher: Sequence[str], group: Mapping[str, str], piece: Piece) -> bool:
        """Whether a link on one of these dimensions has this usage. A piece lies inside or
        outside of each link, since it is cut where they begin and end.
        """
        return any(
            (link.starts_at is None or link.starts_at <= piece.starts_at)
            and (link.ends_at is None or piece.starts_at < link.ends_at)
            for name in higher
            for link in self._of(name).get(group[name], ())
        )

    def _of(self, dimension: str) -> dict[str, list[CustomerLink]]:
        if dimension not in self._links:
            links: defaultdict[str, list[CustomerLink]] = defaultdict(list)
            for link in CustomerLink.objects.filter(tenant_id=self._tenant_id, dimension=dimension):
                links[link.value].append(link)
            self._links[dimension] = links
        return self._links[dimension]


def _links_of(tenant_id: int, customer_ids: Iterable[int]) -> dict[int, list[CustomerLink]]:
    links: dict[int, list[CustomerLink]] = {customer_id: [] for customer_id in customer_ids}
    for link in CustomerLink.objects.filter(tenant_id=tenant_id, customer_id__in=links):
        links[link.customer_id].append(link)
    return links


def _within(
    pieces: Sequence[Piece], link: CustomerLink, cuts: set[datetime]
) -> tuple[tuple[int, ...], tuple[Piece, ...]]:
    """Return what a link has of the pieces, cut at these moments: the places of the pieces that
    each lies in, and the pieces.
    """
    first, last = link.starts_at or EARLIEST, link.ends_at or LATEST
    inside = [
        (index, Piece(*bounds))
        for index, piece in enumerate(pieces)
        if piece.starts_at < last and first < piece.ends_at
        for bounds in _cut(max(piece.starts_at, first), min(piece.ends_at, last), cuts)
    ]
    return tuple(index for index, _ in inside), tuple(piece for _, piece in inside)


def _cut(
    starts_at: datetime, ends_at: datetime, cuts: set[datetime]
) -> Iterator[tuple[datetime, datetime]]:
    bounds = [starts_at, *sorted(at for at in cuts if starts_at < at < ends_at), ends_at]
    return pairwise(bounds)
