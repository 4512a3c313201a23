"""The reboot of the host."""

from __future__ import annotations

from pathlib import Path

from lxcfleet.host.process import command

SYSTEMCTL = "systemctl"
BOOTED = Path("/run/systemd/system")
"""This directory exists if systemd is the host's init; sd_booted(3)."""


def obstacle() -> str:
    """The reason why this program can't reboot the host; empty: it can."""
    return "" if BOOTED.is_dir() else "systemd is not this host's init, and lxcfleetd reboots the host by systemd alone"


def reboot() -> None:
    """Have systemd reboot the host; returns as soon as it has begun to. Raises HostError."""
    command.run([SYSTEMCTL, "reboot"])
