"""Many cases of one behavior that change nothing: judged in one test, with one set-up for all."""

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

Test = Callable[..., None]


def each_case(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable[[Test], Test]:
    """Run the test's body once for each case, as `pytest.mark.parametrize` would name them."""

    def decorate(test: Test) -> Test:
        signature = inspect.signature(test)
        known = (names,) if isinstance(names, str) else names
        fixtures = [each for name, each in signature.parameters.items() if name not in known]

        @wraps(test)
        def run(**given: object) -> None:
            for case in cases:
                values = (case,) if isinstance(names, str) else case
                try:
                    test(**given, **dict(zip(known, values, strict=True)))
                except BaseException as error:
                    error.add_note(f"In the case {case!r}")
                    raise

        run.__signature__ = signature.replace(parameters=fixtures)  # type: ignore[attr-defined]
        return run

    return decorate
