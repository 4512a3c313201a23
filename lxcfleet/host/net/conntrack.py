"""The flows that the kernel remembers (conntrack). Only children of the launcher use this, as pyroute2 is large."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from pyroute2 import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from lxcfleet.errors import HostError
from lxcfleet.host.net.netlink import read_whole

_FAMILIES = ((socket.AF_INET, "V4"), (socket.AF_INET6, "V6"))


def forget_datagrams(is_wrong: Callable[[str, int, str, int], bool]) -> None:
    """Forget the flows of datagrams that are wrong, so that the rules decide anew about their next datagrams.

    ``is_wrong`` takes the address and the port that a flow is sent to, and those that its answers come from. Raises
    HostError.
    """
    try:
        for family, mark in _FAMILIES:
            with NFCTSocket(nfgen_family=family) as table:
                for entry in read_whole(table.dump):
                    there, back = _tuple(entry, "CTA_TUPLE_ORIG", mark), _tuple(entry, "CTA_TUPLE_REPLY", mark)
                    if there is None or back is None or back["proto"] != socket.IPPROTO_UDP:
                        continue
                    if is_wrong(there["daddr"], there["dport"], back["saddr"], back["sport"]):
                        with contextlib.suppress(NetlinkError):  # the flow may have expired
                            table.entry("del", tuple_orig=NFCTAttrTuple(family=family, **there))
    except (NetlinkError, OSError) as error:
        number = error.code if isinstance(error, NetlinkError) else error.errno
        why = f"netlink: {os.strerror(number or 0)} (errno {number})"
        raise HostError("flows of datagrams can't be forgotten", why=why) from error


def _tuple(entry: Any, name: str, mark: str) -> dict[str, Any] | None:
    """One direction of a connection: addresses, protocol and ports."""
    whole = entry.get_attr(name)
    address = whole and whole.get_attr("CTA_TUPLE_IP")
    protocol = whole and whole.get_attr("CTA_TUPLE_PROTO")
    if not address or not protocol:
        return None
    return {
        "saddr": address.get_attr(f"CTA_IP_{mark}_SRC"),
        "daddr": address.get_attr(f"CTA_IP_{mark}_DST"),
        "proto": protocol.get_attr("CTA_PROTO_NUM"),
        "sport": protocol.get_attr("CTA_PROTO_SRC_PORT"),
        "dport": protocol.get_attr("CTA_PROTO_DST_PORT"),
    }
