"""nft's answers about a set, and their meaning."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from lxcfleet.errors import HostError
from lxcfleet.host.net import nft

MISSING = """\
Error: No such file or directory
list set bridge lxcfleet leased
                         ^^^^^^
"""
BROKEN = "netlink: Error: cache initialization failed: Operation not permitted\n"


def answering(monkeypatch: pytest.MonkeyPatch, status: int, out: str = "", err: str = "") -> list[dict[str, Any]]:
    """Replace nft by a program that prints this; returns its calls."""
    calls: list[dict[str, Any]] = []

    def run(argv: list[str], **how: Any) -> subprocess.CompletedProcess[bytes]:
        calls.append({"argv": argv, **how})
        return subprocess.CompletedProcess(argv, status, out.encode(), err.encode())

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_a_set_that_is_not_there_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answering(monkeypatch, 1, err=MISSING)
    assert nft.pairs("bridge", "lxcfleet", "leased") == []
    assert calls[0]["env"]["LC_ALL"] == "C"  # nft's words tell this from other failures


def test_a_failure_is_no_empty_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the daemon would conclude that no container was given an address."""
    answering(monkeypatch, 1, err=BROKEN)
    with pytest.raises(HostError) as failed:
        nft.pairs("bridge", "lxcfleet", "leased")
    assert "Operation not permitted" in (failed.value.why or "")


def test_pairs_of_an_interface_and_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = {"elem": {"val": {"concat": ["vethb", "0x0a000003"]}, "expires": 10}}
    elements = [{"concat": ["vetha", 167772162]}, timed]
    answering(monkeypatch, 0, json.dumps({"nftables": [{"metainfo": {}}, {"set": {"elem": elements}}]}))
    assert nft.pairs("bridge", "lxcfleet", "leased") == [("vetha", 167772162), ("vethb", 167772163)]
