"""The IPv6 address that an operator chose for a container's interface on one of the host's, when that is given again: see
macvlan.rejoin, which does the rest."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator

from pyroute2 import NetlinkError

from lxcfleet.errors import HostError
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.net.netlink import index_of, session
from lxcfleet.host.process import proc

_INSIDE = "eth0"


def give(name: str, pid: int, began: float, address: str, gateway: str) -> None:
    """Have the address, with the length of its prefix, and the route to other networks (``gateway`` is empty: none) in the
    network namespace of a container that runs. Does nothing if it has ended. Raises HostError."""
    try:
        container = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if proc.began(pid) == began:
            syscalls.enter_network(container)
            _set_up(name, address, gateway)
    except ProcessLookupError:
        return
    except OSError as error:
        raise HostError.from_os_error(f"{name} can't have {address}", error) from error
    finally:
        syscalls.enter_network(own)
        os.close(own)
        os.close(container)


def _set_up(name: str, address: str, gateway: str) -> None:
    ip, _, length = address.partition("/")
    with session(f"giving {name} {ip}") as netlink:
        index = index_of(netlink, _INSIDE)
        try:
            with _there_already():
                netlink.addr("add", family=socket.AF_INET6, index=index, address=ip, prefixlen=int(length))
            if gateway:
                with _there_already():
                    netlink.route("add", family=socket.AF_INET6, dst="::/0", gateway=gateway, oif=index)
        except (NetlinkError, OSError):
            with contextlib.suppress(NetlinkError, OSError):  # with half of it, it would count as connected
                netlink.link("del", index=index)
            raise


@contextlib.contextmanager
def _there_already() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
