"""One trace: its calls as the tree in which they called each other."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from common.errors import NotFound
from common.values import normal_value
from dashboard.access import PageRequest, cached_page
from dashboard.amounts import money, percent
from dashboard.findings import shortened
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import number_of, numbered_page
from dashboard.sessions.findings import SHARE_PERCENT_MIN
from dashboard.sessions.repeats import repeats_of
from dashboard.sessions.waterfall import Line, lines_of
from metering.reporting.events import cost_of
from metering.reporting.session_steps import Step, read_steps
from metering.reporting.traces import EVENTS_MAX, CallNode, build_tree

NODES_MAX: Final = 200
# Deeper calls are drawn on this depth.
DEPTH_SHOWN_MAX: Final = 12


@dataclass
class Node:
    """A call as the tree shows it, with those below it that are on the same page."""

    line: Line
    below: int
    children: list["Node"] = field(default_factory=list)


@require_safe
@cached_page
def page(request: PageRequest, trace: str) -> HttpResponse:
    """Who called whom, and what did each branch cost?"""
    bar = filter_bar_of(request)
    trace = normal_value(trace)
    try:
        rows = read_steps(
            tenant_id=request.tenant.id,
            dimension="trace",
            value=trace,
            teams=bar.teams,
            limit=EVENTS_MAX,
        )
    except NotFound as error:
        raise Http404 from error
    steps = rows[:EVENTS_MAX]
    order = _preorder(build_tree(steps))
    pages = numbered_page(
        _page_number(request, len(order)),
        len(order),
        per_page=NODES_MAX,
        address=lambda number: bar.with_further({"part": str(number)}).query(),
    )
    sessions = sorted({step.session for step in steps if step.session})
    total_nanos = sum(map(cost_of, steps))
    context = frame(request, bar, page="sessions") | {
        "headline": _headline(order, total_nanos),
        "trace": trace,
        "total_nanos": total_nanos,
        "calls": len(steps),
        "roots": _nodes(steps, order, order[pages.rows]),
        "span": lines_of(steps, times={}, subtree_nanos={})[0].span,
        "sessions": sessions,
        "is_truncated": len(rows) > EVENTS_MAX,
        "is_limited": bar.teams is not None,
        "pages": pages,
    }
    return render(request, "dashboard/sessions/trace.html", context)


def _preorder(roots: Sequence[CallNode[Step]]) -> list[CallNode[Step]]:
    """The nodes of a tree, each before what is below it."""
    order = []
    waiting = list(reversed(roots))
    while waiting:
        node = waiting.pop()
        order.append(node)
        waiting += reversed(node.children)
    return order


def _nodes(
    steps: Sequence[Step], order: Sequence[CallNode[Step]], shown: Sequence[CallNode[Step]]
) -> list[Node]:
    """The part of the tree that is shown; what hangs on a call of another page is a root here."""
    subtrees = {node.event.id: node.subtree_cost_nanos for node in order}
    lines = {
        line.step.id: line
        for line in lines_of(steps, times=repeats_of(steps).times, subtree_nanos=subtrees)
    }
    below = _counts(order)
    nodes = {node.event.id: Node(lines[node.event.id], below[node.event.id]) for node in shown}
    roots = []
    drawn_below: dict[int, Node] = {}
    for node in shown:
        own = nodes[node.event.id]
        parent = drawn_below.get(node.event.id)
        if parent is None:
            roots.append(own)
        else:
            parent.children.append(own)
        for child in node.children:
            is_deep = parent is not None and node.depth >= DEPTH_SHOWN_MAX
            drawn_below[child.event.id] = parent if is_deep and parent is not None else own
    return roots


def _counts(order: Sequence[CallNode[Step]]) -> dict[int, int]:
    """How many calls are below each."""
    counts: dict[int, int] = {}
    for node in reversed(order):
        counts[node.event.id] = sum(1 + counts[child.event.id] for child in node.children)
    return counts


def _headline(order: Sequence[CallNode[Step]], total_nanos: int) -> str:
    calls = f"{len(order):,} call{'s' if len(order) > 1 else ''}"
    words = f"This trace cost {money(total_nanos)} in {calls}"
    branches = [node for node in order if node.children and node.depth > 0]
    dearest = max(branches, key=lambda node: node.subtree_cost_nanos, default=None)
    if dearest is None or dearest.subtree_cost_nanos * 100 < total_nanos * SHARE_PERCENT_MIN:
        return words
    name = shortened(dearest.event.tool or dearest.event.model or "a call without a model")
    if not total_nanos:
        return words
    share = percent(dearest.subtree_cost_nanos, total_nanos)
    return f"{words}; {name} and the calls below it made {share}"


def _page_number(request: PageRequest, nodes: int) -> int:
    number = number_of(request.GET.get("part", "")) or 1
    return min(number, -(-nodes // NODES_MAX))
