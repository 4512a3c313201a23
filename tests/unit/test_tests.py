"""The tests themselves: none of them asserts, or waits for, a condition that is always true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[2]

WAITS = {"until", "soon"}
"""Functions that wait until the function in their argument returns something true."""

LAZY = {"map", "filter", "zip", "iter", "reversed", "enumerate", "glob", "iglob", "rglob", "iterdir", "scandir"}
"""Functions and methods that return an iterator, which is always true."""


METHODS = {"exists", "is_file", "is_dir", "is_set", "is_alive", "poll"}
"""Methods whose call is easily forgotten. A wait may be given such a method itself."""


def always_true(expression: ast.expr) -> bool:
    """Whether its value is an iterator, a function, or a tuple that is not empty."""
    match expression:
        case ast.GeneratorExp() | ast.Lambda():
            return True
        case ast.Tuple(elts=elements):
            return bool(elements)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in LAZY
        case ast.BoolOp(values=values):
            return any(always_true(value) for value in values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return always_true(operand)
        case ast.Await(value=value) | ast.NamedExpr(value=value):
            return always_true(value)
    return False


def mistakes(source: str) -> Iterator[int]:
    """Lines of asserts, and of waits, whose condition is always true."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Assert(test=test) if always_true(test):
                yield node.lineno
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, *_]) if name in WAITS:
                waited_for = first.body if isinstance(first, ast.Lambda) else first
                forgotten = isinstance(waited_for, ast.Attribute) and waited_for.attr in METHODS and waited_for is not first
                if forgotten or always_true(waited_for):
                    yield node.lineno


@pytest.mark.parametrize("file", sorted((ROOT / "tests").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_condition_is_always_true(file: Path) -> None:
    assert list(mistakes(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "assert (x for x in y)",
        "assert path.glob('*')",
        "assert a and map(f, b)",
        "assert not filter(f, b)",
        "assert (a, 'why')",
        "until(lambda: (x for x in y), 20)",
        "until(lambda: fleet.paths.lxc.glob('*'), 20)",
        "until(lambda: path.exists)",
        "soon(path.iterdir())",
    ],
)
def test_such_a_condition_is_found(line: str) -> None:
    assert list(mistakes(line)) == [1]


@pytest.mark.parametrize(
    "line", ["assert list(path.glob('*'))", "assert any(x for x in y)", "until(lambda: [*a.glob('*')])", "until(a.exists)"]
)
def test_others_are_not(line: str) -> None:
    assert list(mistakes(line)) == []


def test_no_example_is_held_against_a_clock() -> None:
    """On a busy machine tests of rollouts failed, as their examples were made up too slowly."""
    assert settings.default.deadline is None
    assert HealthCheck.too_slow in settings.default.suppress_health_check


BRIEF = re.compile(r"""\bsleep["']?, *["']?\d{1,2}["']?[\])]""")
"""A command that only sleeps, as a list, and for less than two minutes."""


def test_no_container_that_is_to_run_on_ends_by_itself() -> None:
    """One that slept for nine seconds had ended before the end of its test on a busy machine: it got no other spec then."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "contract").glob("test_*.py")}
    assert {name: found for name, text in texts.items() if (found := BRIEF.findall(text))} == {}
