"""The flows that the kernel remembers (conntrack); linux/netfilter/nfnetlink_conntrack.h.

Without pyroute2, which takes 0.1 ms to read one flow, of which a host has 100,000 and more. The kernel tells only those that
can be wrong.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterator
from ipaddress import ip_address
from typing import NamedTuple

from lxcfleet.errors import HostError
from lxcfleet.host.net.bridge_look import attributes, split
from lxcfleet.host.net.rtnetlink import NESTED, attribute

_NETFILTER = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
"""NFNL_SUBSYS_CTNETLINK, with IPCTNL_MSG_CT_GET and IPCTNL_MSG_CT_DELETE."""
_ASK, _ASK_ALL = 0x1 | 0x4, 0x1 | 0x300
"""NLM_F_REQUEST with NLM_F_ACK, and with NLM_F_DUMP."""
_ERROR, _DONE = 2, 3
_THERE, _BACK, _STATUS, _ZONE, _FILTER, _STATUS_MASK = 1, 2, 3, 18, 25, 26
_ADDRESSES, _PROTOCOL = 1, 2
_SOURCE: dict[int, int] = {socket.AF_INET: 1, socket.AF_INET6: 3}
_TARGET: dict[int, int] = {socket.AF_INET: 2, socket.AF_INET6: 4}
_NUMBER, _SOURCE_PORT, _TARGET_PORT = 1, 2, 3
_ORIGINAL_FLAGS, _BY_PROTOCOL = 1, 1 << 3
"""Of CTA_FILTER: the flows whose first packet had this protocol."""
_ANSWERED = 1 << 1
"""IPS_SEEN_REPLY."""
_HEADER, _FAMILY, _CODE = struct.Struct("=IHHII"), struct.Struct("=BBH"), struct.Struct("=i")
_PAUSE_SECONDS = 0.05
"""So long an answer to a connection may be on its way: far longer than it takes on one host."""
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


class Flow(NamedTuple):
    """Where a flow is sent to, and where its answers come from before they are translated back."""

    key: bytes
    """Stands for the flow: what the kernel calls its original direction."""
    protocol: int
    answered: bool
    target: str
    port: int
    source: str
    source_port: int


def forget(protocols: Collection[str], is_wrong: Callable[[Flow], bool]) -> None:
    """Forget the flows of these protocols that are wrong, so that the rules decide anew about their next packets: of TCP only
    connections that nobody has answered, as the client asks again a second later. Raises HostError."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as table:
            table.bind((0, 0))
            for family in _SOURCE:
                for protocol in protocols:
                    _forget(table, family, protocol, is_wrong)
    except OSError as error:
        why = f"netlink: {os.strerror(error.errno or 0)} (errno {error.errno})"
        raise HostError("flows of packets can't be forgotten", why=why) from error


def _forget(table: socket.socket, family: int, protocol: str, is_wrong: Callable[[Flow], bool]) -> None:
    wrong = {each.key for each in _flows(table, family, protocol) if is_wrong(each)}
    if wrong and protocol == "tcp":  # one that is answered in this moment stays
        time.sleep(_PAUSE_SECONDS)
        wrong &= {each.key for each in _flows(table, family, protocol)}
    for key in wrong:
        _send(table, _DELETE, _ASK, family, key)
        for kind, _, message in split(table.recv(1 << 16)):
            code = -_CODE.unpack_from(message)[0] if kind == _ERROR else 0
            if code not in (0, errno.ENOENT):  # the flow may have expired
                raise OSError(code, os.strerror(code))


def _flows(table: socket.socket, family: int, protocol: str) -> Iterator[Flow]:
    number = PROTOCOLS[protocol]
    if protocol == "tcp":
        asked = attribute(_STATUS, bytes(4)) + attribute(_STATUS_MASK, struct.pack("!I", _ANSWERED))
    else:
        which = attribute(_PROTOCOL | NESTED, attribute(_NUMBER, bytes((number,))))
        asked = attribute(_THERE | NESTED, which)
        asked += attribute(_FILTER | NESTED, attribute(_ORIGINAL_FLAGS, struct.pack("=I", _BY_PROTOCOL)))
    _send(table, _GET, _ASK_ALL, family, asked)
    while True:
        for kind, _, message in split(table.recv(1 << 17)):
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -_CODE.unpack_from(message)[0]
                raise OSError(code, os.strerror(code))
            flow = read(message)
            # A kernel that does not know how to leave flows out tells all of them.
            if flow is not None and flow.protocol == number and not (protocol == "tcp" and flow.answered):
                yield flow


def _send(table: socket.socket, kind: int, flags: int, family: int, body: bytes) -> None:
    size = _HEADER.size + _FAMILY.size + len(body)
    table.send(_HEADER.pack(size, kind, flags, 0, 0) + _FAMILY.pack(family, 0, 0) + body)


def read(message: bytes) -> Flow | None:
    """One flow, as the kernel tells it; None: it is of a protocol without ports."""
    family = message[0]
    parts = dict(attributes(message[_FAMILY.size :]))
    there, back = (dict(attributes(parts.get(kind, b""))) for kind in (_THERE, _BACK))
    sent, answers = (dict(attributes(each.get(_PROTOCOL, b""))) for each in (there, back))
    if family not in _SOURCE or _TARGET_PORT not in sent or _SOURCE_PORT not in answers:
        return None
    target = dict(attributes(there.get(_ADDRESSES, b"")))[_TARGET[family]]
    source = dict(attributes(back.get(_ADDRESSES, b"")))[_SOURCE[family]]
    key = attribute(_THERE | NESTED, parts[_THERE])
    if _ZONE in parts:
        key += attribute(_ZONE, parts[_ZONE])
    return Flow(
        key=key,
        protocol=sent[_NUMBER][0],
        answered=bool(int.from_bytes(parts.get(_STATUS, b""), "big") & _ANSWERED),
        target=str(ip_address(target)),
        port=int.from_bytes(sent[_TARGET_PORT], "big"),
        source=str(ip_address(source)),
        source_port=int.from_bytes(answers[_SOURCE_PORT], "big"),
    )
