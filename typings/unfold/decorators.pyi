from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from unfold.enums import ActionVariant

Function = TypeVar("Function", bound=Callable[..., object])

def action(
    *,
    permissions: Iterable[str] | None = ...,
    description: str | None = ...,
    icon: str | None = ...,
    variant: ActionVariant | None = ...,
) -> Callable[[Function], Function]: ...
def display(
    *,
    description: str | None = ...,
    label: bool | Mapping[str, str] | None = ...,
) -> Callable[[Function], Function]: ...
