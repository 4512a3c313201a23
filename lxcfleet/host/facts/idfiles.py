"""Giving root a range of subordinate ids, by the system's own tool, which knows the files' locks."""

from __future__ import annotations

from lxcfleet.host.process import command


def add_root_range(first: int, last: int) -> None:
    """Add the ids to root's in /etc/subuid and /etc/subgid; usermod(8). Raises HostError."""
    ids = f"{first}-{last}"
    command.run(["/usr/sbin/usermod", "--add-subuids", ids, "--add-subgids", ids, "root"])
