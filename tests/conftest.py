"""For all tests: limits of time, and the same surroundings however the run was started."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from types import FrameType

import leftovers
import pytest

PATIENCE = float(os.environ.get("LXCFLEET_TEST_PATIENCE", "1"))
"""How much slower than usual the machine may be: an emulated one is."""

LIMITS = {"unit": 120.0, "contract": 300.0, "system": 900.0, "ansible": 900.0, "vm": 5400.0}
"""The seconds that a test may take with its fixtures, by the directory that it is in. They are against tests that hang: a
machine with a load of ten took 38 s for a test in contract/ that takes 3 s."""

GRACE = 60.0
"""The seconds after its limit in which a test must have ended."""

_stderr = pytest.StashKey[int]()
_pid = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is read."""
    _usual_surroundings()
    config.stash[_stderr] = os.dup(2)
    config.stash[_pid] = os.getpid()
    leftovers.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    """After all."""
    leftovers.end()
    os.close(config.stash[_stderr])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test gets its limit: then pytest-timeout raises in it, whatever it waits for, and the others go on."""
    for item in items:
        item.add_marker(pytest.mark.timeout(_limit(item)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test in which nothing can be raised, as it is in C code or catches all, ends the run, and shows where it was."""
    faulthandler.dump_traceback_later(_limit(item) + GRACE * PATIENCE, exit=True, file=item.config.stash[_stderr])


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """A child that a test forked ends with that test: it must not go on with the others, beside the run that it is of."""
    if os.getpid() != item.config.stash[_pid]:
        why = f"{call.excinfo.traceback[-1]}: {call.excinfo.exconly()}" if call.excinfo else ""
        print(f"a child of {item.nodeid} did not end in it", why, file=sys.__stderr__, flush=True)
        os._exit(70)


def pytest_runtest_logfinish() -> None:
    """The test has ended."""
    faulthandler.cancel_dump_traceback_later()


def _limit(item: pytest.Item) -> float:
    """The seconds that this test may take; its own mark ``limit`` goes first."""
    own = item.get_closest_marker("limit")
    seconds = own.args[0] if own else LIMITS[item.path.relative_to(item.config.rootpath / "tests").parts[0]]
    return float(seconds) * PATIENCE


def _usual_surroundings() -> None:
    """Programs that tests start find no signal ignored or blocked, and an open stdin; Python keeps what it has compiled.

    nohup ignores SIGHUP, a shell ignores SIGINT for what it runs in the background, and both are inherited. A signal
    that has a handler here has its default action in a program that is started.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, _nothing)
    for number in (signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _end)
    # A daemon that has to compile itself takes twice as long to start, and tests start hundreds.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    try:
        os.fstat(0)
    except OSError:
        os.open(os.devnull, os.O_RDONLY)  # gets the lowest number that is free


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Go on: the run was started so that this signal does not end it."""


def _end(_number: int, _frame: FrameType | None) -> None:
    """End the run as Ctrl-C does, with all fixtures taken down."""
    raise KeyboardInterrupt
