"""Which of many things belong together, by pairs that do."""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Thing = TypeVar("Thing", bound=Hashable)


class DisjointSets(Generic[Thing]):
    """Sets that are joined and never parted (union-find with path halving)."""

    def __init__(self, things: Iterable[Thing]) -> None:
        self._parents = {thing: thing for thing in things}

    def root(self, thing: Thing) -> Thing:
        """The thing that stands for the set."""
        while (parent := self._parents[thing]) != thing:
            self._parents[thing] = self._parents[parent]
            thing = parent
        return thing

    def join(self, first: Thing, second: Thing) -> None:
        """Make the sets of two things one."""
        self._parents[self.root(first)] = self.root(second)

    def groups(self, things: Iterable[Thing]) -> list[list[Thing]]:
        """These things by set, in their order."""
        groups: dict[Thing, list[Thing]] = {}
        for thing in things:
            groups.setdefault(self.root(thing), []).append(thing)
        return list(groups.values())
