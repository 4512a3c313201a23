"""The packet filter's former half, which `nft` does not see: iptables-legacy."""

from __future__ import annotations

from pathlib import Path

from lxcfleet.host.process import command

_TABLES = {"ip": Path("/proc/net/ip_tables_names"), "ip6": Path("/proc/net/ip6_tables_names")}
_PROGRAMS = {"ip": Path("/usr/sbin/iptables-legacy"), "ip6": Path("/usr/sbin/ip6tables-legacy")}
_TABLE = "filter"


def filters() -> dict[str, str]:
    """The rules of each family's table `filter`, as `iptables-save` prints them; a family without such rules is left out: to
    ask about them would load that half of the kernel. Raises HostError."""
    found = {}
    for family, names in _TABLES.items():
        try:
            used = _TABLE in names.read_text(encoding="ascii").split()
        except OSError:
            continue
        if used and _PROGRAMS[family].exists():
            found[family] = command.run([str(_PROGRAMS[family]), "-t", _TABLE, "-S"])
    return found
