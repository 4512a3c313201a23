"""Which of our standard streams a command gets as they are."""

from __future__ import annotations

import os

import pytest

from lxcfleet.cli.ui.relay import Relay


def test_output_to_the_journal_is_copied_so_that_it_is_our_unit_s(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = os.fstat(1)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    relay = Relay(keys=False)
    try:
        assert relay.given[1] != 1
        assert relay.given[2] == 2, "another file"
        os.write(relay.given[1], b"a line\n")
        relay.handed_over()
        relay.drain()
    finally:
        relay.close()
    assert capfd.readouterr().out == "a line\n"


def test_files_are_handed_over_as_they_are(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    relay = Relay(keys=False)
    assert relay.given[1:] == [1, 2]
    relay.close()
