"""Lists of the kernel's that change while they are read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

from lxcfleet.host.net import netlink


class Kernel:
    """Interrupts the first ``times`` readings of its list of interfaces."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.asked: list[dict[str, Any]] = []

    def get_links(self, **options: Any) -> list[str]:
        self.asked.append(options)
        self.left -= 1
        if self.left >= 0:
            raise NetlinkDumpInterrupted
        return ["lo"]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "time", SimpleNamespace(sleep=lambda _: None))


def test_a_list_that_changed_while_it_was_read_is_read_again() -> None:
    kernel = Kernel(2)
    assert netlink._Whole(kernel).get_links(ifname="lo") == ["lo"]
    assert kernel.asked == [{"ifname": "lo"}] * 3


def test_a_list_that_changes_whenever_it_is_read_is_not_taken_for_whole() -> None:
    kernel = Kernel(1000)
    with pytest.raises(NetlinkDumpInterrupted):
        netlink._Whole(kernel).get_links()
    assert len(kernel.asked) == netlink._TRIES
