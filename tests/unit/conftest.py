"""Fixtures for all unit tests: they keep the tests off the host."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hostguard
import pytest
from hypothesis import HealthCheck, settings

# The time of an example, and of making one up, depends on the machine, which may be busy with other work.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _off_the_host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the test from reaching the host, unless its mark ``reaches`` allows it; see tests/hostguard.py."""
    marks = list(request.node.iter_markers("reaches"))
    assert all(mark.kwargs.get("reason") for mark in marks), "the mark `reaches` takes a reason"
    before = os.getcwd()
    os.chdir(tmp_path_factory.getbasetemp())  # so that a relative path is none of the host's
    try:
        with hostguard.guarded(frozenset(way for mark in marks for way in mark.args)):
            yield
    finally:
        os.chdir(before)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that another file can take the place of."""
    return Path(shutil.copy("/bin/sleep", tmp_path / "program"))


@pytest.fixture
def process(program: Path) -> Iterator[int]:
    """A process that runs the program."""
    child = os.posix_spawn(program, ["program", "1000"], os.environ)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
