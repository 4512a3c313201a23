"""Firewalls that keep the host from passing on what containers send and get: found in their rules. Pure.

An accept of our own table can't undo another table's drop, and such a drop is silent. So `doctor` looks.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from lxcfleet.capacity.needs import Finding
from lxcfleet.launcher.items.network import ClosedForward
from lxcfleet.units import some

DOCKER = "DOCKER-USER"
"""The chain that Docker leaves to the operator."""
_CLOSING = ("drop", "reject")
_SIDES = {"iifname": "i", "iif": "i", "oifname": "o", "oif": "o"}
_LEGACY = "iptables-legacy"
Rules = Sequence[Mapping[str, Any]]
"""As libnftables-json(5) has them."""


def dropping(chains: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The chains of IP packets that the host passes on."""
    for chain in chains:
        if chain.get("hook") == "forward" and chain.get("type") == "filter" and chain.get("family") in ("ip", "ip6", "inet"):
            yield chain


def closed(chain: Mapping[str, Any], rules: Rules, chains: Iterable[Mapping[str, Any]], bridge: str) -> ClosedForward | None:
    """The packets from the bridge, or to it, that a chain drops; None: none.

    ``rules``: of its table; ``chains``: all of the host.
    """
    own = [rule for rule in rules if rule.get("chain") == chain.get("name")]
    last = [each for each in own[-1].get("expr", ()) if "counter" not in each] if own else []
    ends = len(last) == 1 and any(word in last[0] for word in _CLOSING)
    if chain.get("policy") != "drop" and not ends:
        return None
    there = (chain.get("family"), chain.get("table"))
    docker = any(each.get("name") == DOCKER and (each.get("family"), each.get("table")) == there for each in chains)
    passed = {key for rule in rules for key in _passed(rule, bridge)}
    return _closed(str(chain.get("family")), str(chain.get("table")), passed, docker=docker)


def _passed(rule: Mapping[str, Any], bridge: str) -> Iterator[str]:
    """The sides of the bridge that a rule names and does not close."""
    parts = rule.get("expr", ())
    if any(word in part for part in parts for word in _CLOSING):
        return
    for part in parts:
        match part:
            case {"match": {"op": "==", "left": {"meta": {"key": str(key)}}, "right": right}} if key in _SIDES:
                names = right.get("set", ()) if isinstance(right, dict) else [right]
                if any(isinstance(name, str) and fnmatchcase(bridge, name) for name in names):
                    yield _SIDES[key]


def closed_legacy(family: str, rules: str, bridge: str) -> ClosedForward | None:
    """The same for what `iptables-legacy -S` prints."""
    passed: set[str] = set()
    policy, docker = "ACCEPT", False
    for line in rules.splitlines():
        words = shlex.split(line)
        match words:
            case ["-P", "FORWARD", policy]:
                continue
            case ["-N", chain]:
                docker = docker or chain == DOCKER
                continue
        if words[-2:] not in (["-j", "DROP"], ["-j", "REJECT"]):
            for option, side in (("-i", "i"), ("-o", "o")):
                if option in words[:-1] and fnmatchcase(bridge, words[words.index(option) + 1].replace("+", "*")):
                    passed.add(side)
    return _closed(family, _LEGACY, passed, docker=docker) if policy == "DROP" else None


def _closed(family: str, table: str, passed: set[str], *, docker: bool) -> ClosedForward | None:
    if {"i", "o"} <= passed:
        return None
    return ClosedForward(
        family=family, table=table, from_bridge="i" not in passed, to_bridge="o" not in passed, docker=docker
    )


def findings(found: Iterable[ClosedForward], bridge: str, *, ufw: bool) -> list[Finding]:
    """The findings of ``doctor`` on them."""
    return [_finding(each, bridge, ufw=ufw) for each in found]


def _finding(closed: ClosedForward, bridge: str, *, ufw: bool) -> Finding:
    lost = [
        *(["containers reach no other network"] if closed["from_bridge"] else []),
        *(["published ports are not reached from elsewhere"] if closed["to_bridge"] else []),
    ]
    where = f"{closed['table']} ({closed['family']})"
    program = "ip6tables" if closed["family"] == "ip6" else "iptables"
    if closed["docker"]:
        options = [*(["-i"] if closed["from_bridge"] else []), *(["-o"] if closed["to_bridge"] else [])]
        hint = "; ".join(f"{program} -I {DOCKER} {option} {bridge} -j ACCEPT" for option in options)
    elif ufw:
        words = [*(["in"] if closed["from_bridge"] else []), *(["out"] if closed["to_bridge"] else [])]
        hint = "; ".join(f"ufw route allow {word} on {bridge}" for word in words)
    else:
        hint = f"have it accept what comes from {bridge} and goes to it"
    message = f"a firewall drops what the host passes on, in the table {where}: {', and '.join(lost)}"
    return Finding("forwarding", "warning", message, hint=f"{hint}; see docs/network.md, Beside other tools", feature=True)


def of_ipv6(ports: Sequence[str], *, forwards: bool) -> list[Finding]:
    """The findings of ``doctor`` on ports that are published for IPv6 alone. ``forwards``: whether the host forwards IPv6."""
    if forwards or not ports:
        return []
    message = f"published ports are not reached from elsewhere, as the host does not forward IPv6: {some(ports, 3)}"
    hint = "sysctl net.ipv6.conf.all.forwarding=1, with accept_ra=2 on an uplink that has its address from a router"
    return [Finding("forwarding", "warning", message, hint=hint, feature=True)]
