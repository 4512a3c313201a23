"""For all unit tests: they are kept off the host."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hostguard
import pytest
from hypothesis import settings

# How long an example takes is the machine's business, which may do other things beside.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _off_the_host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing but what the test's mark ``reaches`` names can be done to the host; see tests/hostguard.py."""
    marks = list(request.node.iter_markers("reaches"))
    assert all(mark.kwargs.get("reason") for mark in marks), "the mark `reaches` takes a reason"
    before = os.getcwd()
    os.chdir(tmp_path_factory.getbasetemp())  # so that a relative path is none of the host's
    try:
        with hostguard.guarded(frozenset(way for mark in marks for way in mark.args)):
            yield
    finally:
        os.chdir(before)
