"""Tests that fail beside others run once more, alone: tools/tests-twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[2] / "tools/tests-twice"
PASSES = "def test_passes(): pass\n"
AT_FIRST = """
from pathlib import Path
def test_fails_at_first{0}():
    mark = Path(__file__).with_name("was-run{0}")
    there = mark.exists()
    mark.touch()
    assert there
"""
FAILS = "def test_fails(): assert False\n"
ENDS_BADLY = """
import pytest
from pathlib import Path
@pytest.fixture
def thing():
    yield
    mark = Path(__file__).with_name("was-run-to-its-end")
    there = mark.exists()
    mark.touch()
    assert there
def test_whose_end_fails_at_first(thing): pass
"""

pytestmark = [
    pytest.mark.limit(300),
    pytest.mark.reaches("processes", reason="it is about a program"),
    pytest.mark.skipif("not __import__('importlib').util.find_spec('xdist')", reason="only all tests need pytest-xdist"),
]


def run(directory: Path, *tests: str) -> tuple[int, str]:
    """The exit status and the output of a run over a directory with these tests."""
    (directory / "test_some.py").write_text("".join(tests))
    (directory / "pytest.ini").write_text("[pytest]\n")
    environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    output: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([TOOL, directory, "-n", "3"], env=environment, start_new_session=True, **output) as running:
        try:
            said, _ = running.communicate()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
    return running.returncode, said


def unstable_name(text: str) -> str:
    """The name of the last test in a text, as pytest tells it."""
    return f"test_some.py::{text.rpartition('def ')[2].partition('(')[0]}"


def test_a_run_without_a_failure_is_the_only_one(tmp_path: Path) -> None:
    status, said = run(tmp_path, PASSES)
    assert (status, "Once more" in said, "UNSTABLE" in said) == (0, False, False)


@pytest.mark.parametrize("unstable", [AT_FIRST.format(""), ENDS_BADLY])
def test_what_fails_only_beside_others_is_told_and_passes(tmp_path: Path, unstable: str) -> None:
    status, said = run(tmp_path, PASSES, unstable)
    assert status == 0
    assert said.split("passed alone:")[1].split() == [unstable_name(unstable)]
    assert "assert there" in said, "what failed at first stays to be read"


@pytest.mark.parametrize(
    "tests", [(FAILS,), (FAILS, AT_FIRST.format("")), [AT_FIRST.format(number) for number in range(4)], ("import no_such",)],
    ids=["always", "one of two", "too many", "not all could run"],
)  # fmt: skip
def test_what_is_broken_fails_the_run(tmp_path: Path, tests: Sequence[str]) -> None:
    status, said = run(tmp_path, PASSES, *tests)
    assert status != 0
    assert "UNSTABLE" not in said
