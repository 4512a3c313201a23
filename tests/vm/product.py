"""lxcfleet in a guest: its package, and its command line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import lxcfleet

from .guest import PATIENCE, Guest

HERE = "/srv/package"
"""Where the guest has the package."""
DEB = f"lxcfleet_{lxcfleet.__version__}_all.deb"
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get -o Dpkg::Use-Pty=0 install --yes --no-install-recommends"
INSTALL_ALL = INSTALL.removesuffix(" --no-install-recommends")
"""With all that packages recommend, as most hosts have it: lxc's lxcfs and uidmap for two."""
SLEEP = ("--", "sleep", "infinity")
LONG = 2700.0
"""Seconds: each container's AppArmor profile is compiled, on an emulated CPU, which others may use at the same time."""


def fleet(guest: Guest, *arguments: str, timeout: float = LONG) -> str:
    """Run a verb, which must succeed; returns its output."""
    return guest.run(["lxcfleet", *arguments], timeout=timeout).stdout


def data(guest: Guest, verb: str, *arguments: str) -> Any:
    """The parsed output of a verb."""
    return json.loads(fleet(guest, verb, "-f", "json", *arguments))


def states(guest: Guest) -> dict[str, str]:
    """The state of each container."""
    return {each["name"]: each["state"] for each in data(guest, "list")}


def pids(guest: Guest) -> dict[str, int]:
    """The pid of process 1 of each container that runs."""
    return {each["name"]: each["pid"] for each in data(guest, "list") if each["pid"]}


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return once ``condition`` is true.

    Looks take their time from what is waited for: on a busy machine a single one takes a minute of an emulated processor.
    So the pause is as long as the look was.
    """
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        began = time.monotonic()
        if condition():
            return
        assert time.monotonic() < deadline, what
        time.sleep(max(2.0, time.monotonic() - began))
