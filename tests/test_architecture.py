"""Rules about the code itself. A failure names the file and the rule."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
SERVICE: Final = ("common", "tenants", "metering", "billing", "alerts", "dashboard", "config")
PACKAGES: Final = (*SERVICE, "demo", "bench", "fake_stripe")
FILE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 50
# Longer files, each about one thing: how long it may be, and why it is not cut.
LONG_FILES: Final[dict[str, tuple[int, str]]] = {
    "config/embedded_postgres.py": (415, "the whole life of one server"),
    "metering/calls/merge_transaction.py": (530, "one transaction's memory of calls and traces"),
    "metering/models/enforcement.py": (
        540,
        "tables of limits and of reservations, one area",
    ),
    "metering/usage/decoders/litellm.py": (615, "one dialect, whose fields explain each other"),
    "metering/usage/decoders/otlp/calls.py": (440, "the conventions of one standard"),
}
LONG_FUNCTIONS: Final[dict[str, tuple[int, str]]] = {
    "bench/soak/trial.py:__init__": (60, "a list of what a trial is made of"),
    "bench/soak/world.py:budgets_of_the_soak": (90, "a table of budgets"),
    "demo/configuration.py:budgets": (90, "a table of budgets"),
    "metering/budgets/rules.py:__init__": (55, "compiles one row, field by field"),
    "metering/calls/prepared_event.py:__init__": (70, "prepares one event, field by field"),
}
# Written so that this file holds none of them.
ESCAPES_MAX: Final = {"# " + "noqa": 38, "# " + "type: ignore": 40}
# Lines that name the type of which nothing is known.
OPEN_TYPES_MAX: Final = 626
# Names that say nothing where a noun is known. `found` is also what a comparison answers.
NAMELESS: Final = frozenset({"one", "found", "place"})
ANSWERS_FOUND: Final = frozenset(
    {
        "billing/api/reconciliations.py",
        "billing/models/reconciliation.py",
        "billing/reconciliation/results.py",
    }
)
# Found by a framework by what they are, or named by migrations and tests alone.
USED_ELSEWHERE: Final = re.compile(
    r"application|urlpatterns|app_name|handler\d+|\w+Config|\w+Scheme|\w+Extension|forget_\w+"
    r"|CreateModels|ForceRowSecurity|Attempt|DATE_FORMAT|TIME_FORMAT"
)


def sources(*packages: str) -> list[Path]:
    return [
        path
        for package in packages
        for path in sorted((ROOT / package).rglob("*.py"))
        if "migrations" not in path.parts
    ]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_files_are_short_enough_to_read() -> None:
    lengths = {name_of(path): path.read_text().count("\n") for path in sources(*PACKAGES)}
    allowed = {name: most for name, (most, _) in LONG_FILES.items()}
    too_long = {
        name: lines for name, lines in lengths.items() if lines > allowed.get(name, FILE_LINES_MAX)
    }
    assert too_long == {}
    # An exception that is no longer needed goes.
    assert {name for name in allowed if lengths.get(name, 0) <= FILE_LINES_MAX} == set()


def test_functions_are_short_enough_to_read() -> None:
    lengths = {
        f"{name_of(path)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in sources(*PACKAGES)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    allowed = {name: most for name, (most, _) in LONG_FUNCTIONS.items()}
    too_long = {
        name: lines
        for name, lines in lengths.items()
        if lines > allowed.get(name, FUNCTION_LINES_MAX)
    }
    assert too_long == {}
    assert {name for name in allowed if lengths.get(name, 0) <= FUNCTION_LINES_MAX} == set()


def public_names(path: Path) -> Iterator[str]:
    """Yield the functions, classes and constants that a module defines for others."""
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            # A decorated one is registered somewhere.
            names = [] if node.decorator_list else [node.name]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def test_every_public_name_is_used_by_the_service_itself() -> None:
    words: Counter[str] = Counter()
    for path in (*sources(*PACKAGES), *(ROOT / "templates").rglob("*.html")):
        words.update(re.findall(r"\w+", path.read_text()))
    unused = {
        f"{name_of(path)}:{name}"
        for path in sources(*PACKAGES)
        if not {"management", "settings.py"} & set(path.parts)
        for name in public_names(path)
        if words[name] < 2 and not USED_ELSEWHERE.fullmatch(name)
    }
    assert unused == set()


def variables(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the variables and parameters of a module, with their lines."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def test_variables_are_called_what_they_are() -> None:
    nameless = {
        f"{name_of(path)}:{line}"
        for path in sources(*PACKAGES)
        if name_of(path) not in ANSWERS_FOUND
        for name, line in variables(path)
        if name in NAMELESS
    }
    assert nameless == set()


def test_variables_of_templates_are_called_what_they_are() -> None:
    nameless = {
        name_of(path)
        for path in (ROOT / "templates").rglob("*.html")
        for tag in re.findall(r"{[{%].*?[%}]}", path.read_text(), re.DOTALL)
        if {"one", "place"}
        & set(re.findall(r"(?<![.\w])\w+", re.sub(r"\"[^\"]*\"|'[^']*'", "", tag)))
    }
    assert nameless == set()


@pytest.mark.parametrize(
    "package",
    [
        *PACKAGES,
        *(
            f"metering/{path.name}"
            for path in sorted((ROOT / "metering").iterdir())
            if path.is_dir() and (path / "__init__.py").exists() and path.name != "migrations"
        ),
    ],
)
def test_a_package_says_what_it_owns(package: str) -> None:
    assert (ROOT / package / "README.md").exists()


def test_checkers_are_seldom_told_to_look_away() -> None:
    sources_of_all = [*sources(*PACKAGES), *(ROOT / "tests").rglob("*.py")]
    counts = {
        escape: sum(path.read_text().count(escape) for path in sources_of_all)
        for escape in ESCAPES_MAX
    }
    assert {escape: n for escape, n in counts.items() if n > ESCAPES_MAX[escape]} == {}


def test_few_types_are_left_open() -> None:
    lines = [
        line
        for path in (*sources(*PACKAGES), *sources("tests"))
        for line in path.read_text().splitlines()
        if re.search(r"\bAny\b", line) and "import" not in line
    ]
    assert len(lines) <= OPEN_TYPES_MAX


def test_nothing_is_left_to_do_later() -> None:
    left = {
        name_of(path)
        for path in sources(*PACKAGES)
        if re.search(r"#.*\b(TODO|FIXME|XXX)\b", path.read_text())
    }
    assert left == set()
