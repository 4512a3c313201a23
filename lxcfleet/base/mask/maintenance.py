"""The upkeep that a system container does by itself: the timers that clean up in it, and its journal.

The units are the host's. A drop-in spreads each timer over time, as containers that boot together would all be busy at the
same minute. It lies beside the unit, and its name begins with ``10-``: a drop-in of the container's own comes after it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

from lxcfleet.base.tree import join

TIMERS = ("systemd-tmpfiles-clean.timer", "logrotate.timer", "phpsessionclean.timer")
"""Each with a service of its name. A clone has those that the host has."""
UNITS = frozenset([*TIMERS, *(timer.replace(".timer", ".service") for timer in TIMERS), "systemd-journal-flush.service"])
JOURNALD = b"""\
[Journal]
Storage=persistent
SystemMaxUse=10M
SystemMaxFileSize=512K
RuntimeMaxUse=2M
RuntimeMaxFileSize=512K
Audit=no
ReadKMsg=no
ForwardToConsole=yes
"""
"""For /etc/systemd/journald.conf. The journal is in the delta and outlives a restart. journald allocates a whole file at once
(up to 8 MiB), and the smallest it takes is 512 KiB: that is what each delta pays. Until /var is there, and where it can't be
written, the journal is in memory, where the same holds; journald.conf(5).

What is written to it goes to the console, too, and from there to the host's log (lxcfleet.logs). ForwardToSocket= would
keep the fields, but systemd has it from 257 on only, and it would take a socket of the host's in each container."""

_SPREAD = """\
[Timer]
RandomizedDelaySec={}
FixedRandomDelay=yes
"""
"""Each machine-id has its own moment within this span, and keeps it; systemd.timer(5). A run that was missed while the
container did not run waits for that moment, too."""
_DROP_INS = {
    "systemd-tmpfiles-clean.timer": _SPREAD.format("4h"),
    "logrotate.timer": _SPREAD.format("4h"),
    "phpsessionclean.timer": _SPREAD.format("29min"),
    # journald is told to go on in /var, and nobody waits for that: each of its writes to the disk waits for all others of the
    # host, which would be the most of a boot when many containers start.
    "systemd-journal-flush.service": """\
[Service]
ExecStart=
ExecStart=systemctl kill --signal=USR1 systemd-journald.service
""",
    # logrotate ends with 1 where one log is missing. The host's administrator may rotate logs that no clone has.
    "logrotate.service": "[Service]\nSuccessExitStatus=1\n",
    # Only the container's own limit holds: a part of it, as systemd would give to each service, was nobody's wish.
    "user-.slice": "[Slice]\nTasksMax=infinity\n",
}
_ALWAYS = frozenset(["user-.slice"])


def drop_ins(directory: str, there: Container[str]) -> Iterator[tuple[str, bytes]]:
    """The drop-ins for the units in ``directory`` that are ``there``, path and content."""
    for unit, content in _DROP_INS.items():
        if unit in _ALWAYS or join(directory, unit) in there:
            yield join(directory, f"{unit}.d/10-lxcfleet.conf"), content.encode()
