"""The kernel's switches for the network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxcfleet.errors import HostError
from lxcfleet.host.net import sysctl


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of the interfaces' switches for IPv6."""
    there = tmp_path / "conf"
    monkeypatch.setattr(sysctl, "_CONF6", there)
    sysctl._interfaces6.cache_clear()
    yield there
    if sysctl._interfaces6.cache_info().currsize:
        os.close(sysctl._interfaces6())
    sysctl._interfaces6.cache_clear()


def _interface(conf: Path, name: str) -> Path:
    (conf / name).mkdir(parents=True)
    switch = conf / name / "disable_ipv6"
    switch.write_text("0\n", encoding="ascii")
    return switch


def test_the_way_to_the_switches_is_looked_up_once(conf: Path) -> None:
    """With a thousand containers each look by the whole path took the kernel half a millisecond."""
    one = _interface(conf, "lf1")
    sysctl.refuse_ipv6("lf1")
    assert one.read_text(encoding="ascii") == "1\n"
    moved = conf.rename(conf.with_name("moved"))
    two = _interface(moved, "lf2")
    sysctl.refuse_ipv6("lf2")
    assert two.read_text(encoding="ascii") == "1\n"


def test_a_kernel_without_ipv6_has_no_switch_until_its_module_is_there(conf: Path) -> None:
    sysctl.refuse_ipv6("lf1")
    one = _interface(conf, "lf1")
    sysctl.refuse_ipv6("gone")
    sysctl.refuse_ipv6("lf1")
    assert one.read_text(encoding="ascii") == "1\n"


def test_a_switch_that_cannot_be_written_is_named(conf: Path) -> None:
    (conf / "lf1/disable_ipv6").mkdir(parents=True)
    with pytest.raises(HostError, match="lf1/disable_ipv6"):
        sysctl.refuse_ipv6("lf1")
