"""Which ports programs listen on: of the host, and in containers."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import psutil

from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.host.net import socket_diag
from lxcfleet.spec.container.ports import ALL4, ALL6, PROTOCOLS, Publication

_WAITING = {"tcp": "0A", "udp": "07"}
"""The states of sockets that wait for anybody: net/tcp_states.h, TCP_LISTEN and TCP_CLOSE."""
_LOOPBACK = re.compile(r"(0{16}F{4}0{4})?[0-9A-F]{6}7F|0{24}01000000")
"""127.0.0.0/8, also as an IPv6 address, and ::1: words of the machine's byte order, as /proc has them."""


class PortInUse(InvalidInput):
    """A program of the host has the port."""


def check_free(publication: Publication) -> None:
    """Raise PortInUse if a program of the host has the port, InvalidInput if the host does not have the address."""
    tcp = publication.protocol == "tcp"
    tries = [(socket.AF_INET, publication.address or ALL4)] if 4 in publication.versions else []
    if 6 in publication.versions and socket.has_ipv6:
        tries.append((socket.AF_INET6, publication.address or ALL6))
    for family, address in tries:
        if _is_for_many(address):  # the kernel lets sockets be bound to it
            raise _absent(address)
        try:
            with socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as probe:
                if tcp:  # otherwise, connections that have ended would count for a minute
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family is socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((address, publication.host))
        except OSError as error:
            _tell(publication, error)


def _is_for_many(address: str) -> bool:
    """Whether it is an address of no single host: one of multicast, or a network's broadcast address."""
    if ip_address(address).is_multicast:
        return True
    if ":" in address or address == ALL4:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex((address, 9)) == errno.EACCES  # only who asked for it may send there; ip(7)


def _absent(address: str) -> InvalidInput:
    return InvalidInput(f"the host does not have the address {address}", hint="`ip -br addr` shows them")


def told_by_whom(error: PortInUse, users: Collection[int]) -> PortInUse:
    """The same error, with the program that has the port, if that can be found out."""
    for pid in users:
        with contextlib.suppress(psutil.Error):
            why = f"by {psutil.Process(pid).name()} (pid {pid})"
            hint = "choose another port or another address of the host's, or have that program listen on another one"
            return PortInUse(error.message, why=why, hint=hint)
    return error


def users(publication: Publication) -> dict[int, set[str]]:
    """The pids of the programs that have a port of the host, at an address at which it is to be published, and at which ones.
    Slow with many processes, as it looks at all their files."""
    try:
        found = psutil.net_connections(publication.protocol)
    except (psutil.Error, OSError):
        return {}
    listening = [each for each in found if each.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)]  # UDP has no states
    users: dict[int, set[str]] = {}
    for each in listening:
        if each.pid and each.laddr and each.laddr.port == publication.host and _meets(each.laddr.ip, publication):
            users.setdefault(each.pid, set()).add(each.laddr.ip)
    return users


def only_at(addresses: Collection[str], held: Collection[str]) -> bool:
    """Whether a program that has a port at the addresses ``held`` has it at these alone, beside link-local ones."""
    return not set(held).isdisjoint(addresses) and all(
        each in addresses or ip_address(each).is_link_local for each in held
    )


def _meets(held: str, publication: Publication) -> bool:
    """Whether a socket at the address ``held`` has one of the addresses; one of ``::`` may have those of IPv4, too."""
    found = ip_address(held)
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if publication.everywhere:
        return found.version in publication.versions or held == ALL6
    return held in (ALL4, ALL6) or str(found) == publication.address


def listening(pid: int, protocols: Iterable[str] = PROTOCOLS) -> set[tuple[str, int]] | None:
    """Ports of these protocols on which programs in the network namespace of a process wait for others than themselves.

    None: the process has ended.
    """
    protocols = tuple(protocols)
    try:
        return socket_diag.listening(pid, protocols)
    except (ProcessLookupError, FileNotFoundError):
        return None
    except OSError:  # a kernel that has no such list, or may load no module for it
        return _listed(pid, protocols)


def _listed(pid: int, protocols: Iterable[str]) -> set[tuple[str, int]] | None:
    """The same by the tables in /proc."""
    found: set[tuple[str, int]] = set()
    for protocol in protocols:
        for table in (Path(f"/proc/{pid}/net/{protocol}"), Path(f"/proc/{pid}/net/{protocol}6")):
            try:
                found.update((protocol, port) for port in waiting(table.read_text(encoding="ascii"), protocol))
            except FileNotFoundError:  # the process has ended, or the kernel has no IPv6
                if not table.parent.exists():
                    return None
            except OSError:
                return None
    return found


def waiting(table: str, protocol: str) -> Iterator[int]:
    """The ports in a table of sockets, as in /proc/net/tcp, at which a socket waits for others than the machine itself."""
    for line in table.splitlines()[1:]:
        words = line.split()
        address, _, port = words[1].partition(":")
        if words[3] == _WAITING[protocol] and not _LOOPBACK.fullmatch(address):
            yield int(port, 16)


def _tell(publication: Publication, error: OSError) -> None:
    where = f"{publication.host}/{publication.protocol}"
    if error.errno == errno.EADDRINUSE:
        raise PortInUse(
            f"the host's port {where} is in use", why="a program of the host's listens on it",
            hint=f"`ss -Hlnp{publication.protocol[0]} sport = :{publication.host}` tells which; choose another port",
        )  # fmt: skip
    if error.errno == errno.EADDRNOTAVAIL and publication.address:
        raise _absent(publication.address)
    if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
        raise HostError.from_os_error(f"the host's port {where} can't be published", error)
