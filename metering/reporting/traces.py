"""A trace as the tree of its calls, with what each call and everything below it cost."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from metering.models import UsageEvent
from metering.reporting.events import cost_of, events_of
from metering.reporting.session_steps import Step

EVENTS_MAX: Final = 10_000
# Deeper calls are shown as children of the last call on this depth: readers' JSON parsers have
# limits.
DEPTH_MAX: Final = 100


Event = TypeVar("Event", UsageEvent, Step)


@dataclass
class CallNode(Generic[Event]):
    """One event of a trace. `subtree_cost_nanos` includes its own cost."""

    event: Event
    depth: int = 0
    subtree_cost_nanos: int = 0
    children: list["CallNode[Event]"] = field(default_factory=list)


class CallTree(NamedTuple):
    """The roots of a trace in order of time, its cost, and whether it has further events."""

    roots: list[CallNode[UsageEvent]]
    cost_nanos: int
    event_count: int
    is_truncated: bool


def call_tree(*, tenant_id: int, trace: str) -> CallTree:
    """Return the first 10,000 events of a trace as a tree. Raises NotFound if there are none.

    Events without span, and those whose parent is not there, are roots. Spans that name each other
    as parents hang below the earliest of them.
    """
    events = events_of(tenant_id=tenant_id, dimension="trace", value=trace, limit=EVENTS_MAX)
    shown = events[:EVENTS_MAX]
    roots = build_tree(shown)
    cost_nanos = sum(cost_of(event) for event in shown)
    return CallTree(roots, cost_nanos, len(shown), len(events) > EVENTS_MAX)


def build_tree(events: Sequence[Event]) -> list[CallNode[Event]]:
    """Hang events, given in order of time, below their parents: spans of the same trace. Pure."""
    nodes = [CallNode(event) for event in events]
    roots, below = _parents(nodes)
    reached: set[int] = set()
    order = [node for root in roots for node in _hang(root, below, reached)]
    for node in nodes:  # what is left hangs on a circle of parents
        if id(node) not in reached:
            roots.append(node)
            order += _hang(node, below, reached)
    for node in reversed(order):
        below_nanos = sum(child.subtree_cost_nanos for child in node.children)
        node.subtree_cost_nanos = cost_of(node.event) + below_nanos
    return roots


def _parents(
    nodes: list[CallNode[Event]],
) -> tuple[list[CallNode[Event]], dict[int, list[CallNode[Event]]]]:
    """Return the nodes without a parent, and those below each other one."""
    node_by_span: dict[tuple[str, str], CallNode[Event]] = {}
    for node in nodes:
        if node.event.span:
            node_by_span.setdefault((node.event.trace, node.event.span), node)
    below: dict[int, list[CallNode[Event]]] = defaultdict(list)
    roots = []
    for node in nodes:
        parent = node_by_span.get((node.event.trace, node.event.parent_span or ""))
        if parent is None or parent is node:
            roots.append(node)
        else:
            below[id(parent)].append(node)
    return roots, below


def _hang(
    root: CallNode[Event], below: dict[int, list[CallNode[Event]]], reached: set[int]
) -> list[CallNode[Event]]:
    """Attach everything below a root to it; answer the nodes, parents before their children."""
    reached.add(id(root))
    order = []
    waiting = [(root, root)]
    while waiting:
        node, parent = waiting.pop()
        order.append(node)
        # `parent` is where this node's children are shown: itself, unless that would be too deep.
        for child in below[id(node)]:
            if id(child) in reached:
                continue
            reached.add(id(child))
            child.depth = parent.depth + 1
            parent.children.append(child)
            waiting.append((child, child if child.depth < DEPTH_MAX else parent))
    return order
