"""Errors that no room has words for."""

from __future__ import annotations

import errno
import logging

import pytest

from lxcfleet.errors import FleetError, HostError
from lxcfleet.runtime import unforeseen

log = logging.getLogger("test")


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_what_the_kernel_refused_is_told_with_a_next_step_and_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    error = raised(OSError(errno.ENOMEM, "Cannot allocate memory", "/run/x"))
    told = unforeseen.told(log, "create of web1", error, "web1: create failed")
    assert isinstance(told, HostError)
    assert told.message == "web1: create failed"
    assert told.why == "/run/x: Cannot allocate memory (errno 12)"
    assert "free -h" in told.hint
    assert caplog.messages == ["create of web1: /run/x: Cannot allocate memory (errno 12)"]
    assert not caplog.records[0].exc_info


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "Cannot allocate memory (errno 12)"),
        (RuntimeError("can't start new thread"), "No room for another thread (errno 11)"),
    ],
)
def test_a_host_without_room_is_no_defect_of_ours(error: Exception, why: str, caplog: pytest.LogCaptureFixture) -> None:
    told = unforeseen.told(log, "GET /x", raised(error))
    assert isinstance(told, HostError)
    assert (told.message, told.why) == ("the daemon can't do what that takes", why)
    assert caplog.messages == [f"GET /x: {why}"]
    assert not caplog.records[0].exc_info


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError(), OSError("no number")])
def test_a_defect_is_told_as_one_with_its_traceback_in_the_log(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    told = unforeseen.told(log, "GET /x", raised(error))
    assert type(told) is FleetError
    assert (told.message, told.http_status) == ("the daemon failed unexpectedly", 500)
    assert told.why.startswith(type(error).__name__)
    assert caplog.messages == ["GET /x failed unexpectedly"]
    assert "raise error" in caplog.text
