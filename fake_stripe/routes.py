"""Which requests there are, and what all of them share: routes, look-ups, pages of lists."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from fake_stripe import objects
from fake_stripe.objects import Object
from fake_stripe.world import Refused, World

Ids = dict[str, str]
Handler = Callable[[World, Ids, Object], Object]


class Route(NamedTuple):
    """An operation of Stripe's and what does it: its method and path template, by which Stripe
    describes it, and the pattern of paths.
    """

    name: tuple[str, str]
    pattern: re.Pattern[str]
    handle: Handler


ROUTES: Final[list[Route]] = []


def on(method: str, path: str) -> Callable[[Handler], Handler]:
    """Let a function handle an operation."""
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))

    def register(handle: Handler) -> Handler:
        ROUTES.append(Route((method, path), pattern, handle))
        return handle

    return register


def find(of: dict[str, Object], id_: str, kind: str) -> Object:
    if id_ not in of:
        raise Refused(404, f"No such {kind}: '{id_}'", code="resource_missing")
    return of[id_]


def page(url: str, objects: Iterable[Object], given: Object) -> Object:
    """Return a page of objects, newest first, as Stripe lists all but lines."""
    return part_of_list(url, list(objects)[::-1], given)


def part_of_list(url: str, listed: list[Object], given: Object) -> Object:
    """Return the part of a list that is asked for, in its order."""
    if after := given.get("starting_after"):
        places = [index for index, each in enumerate(listed) if each["id"] == after]
        listed = listed[places[0] + 1 :] if places else []
    limit = given.get("limit", 10)
    if not 1 <= limit <= 100:
        raise Refused(400, "limit must be from 1 to 100")
    return objects.listing(url, listed[:limit], has_more=len(listed) > limit)


def is_since(each: Object, given: Any) -> bool:
    """Whether an object fits a `created` of a listing."""
    if given is None or isinstance(given, int):
        return given is None or bool(each["created"] == given)
    return bool(given.get("gte", 0) <= each["created"] <= given.get("lte", each["created"]))
