"""How a process ends that is not our child, as the kernel tells it: the process connector.

cn_proc sends an event for each process of the host that ends, with its exit status in the form of wait(2). A filter in the
kernel lets only the one asked for through, so that nobody else's end wakes us. Documentation/driver-api/connector.rst and
include/uapi/linux/cn_proc.h; Debian's kernels have it (CONFIG_PROC_EVENTS). It takes CAP_NET_ADMIN of the host.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

_CONNECTOR = 11
"""NETLINK_CONNECTOR."""
_SO_ATTACH_FILTER = 26
_PROC = 1
"""CN_IDX_PROC, which is the group's number, too, and CN_VAL_PROC."""
_LISTEN = 1
"""PROC_CN_MCAST_LISTEN."""
_DONE = 3
"""NLMSG_DONE."""
_EXIT = 0x80000000
"""PROC_EVENT_EXIT."""
_HEADER = struct.Struct("=IHHII")
"""nlmsghdr."""
_MESSAGE = struct.Struct("=IIIIHH")
"""cn_msg."""
_EVENT = _HEADER.size + _MESSAGE.size
"""Where the event begins: what it is, the processor, and the time."""
_DATA = _EVENT + 16
_ENDED = struct.Struct("=III")
"""Of an end: the thread, its process, and the exit status."""
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
"""Classic BPF: load a word at an offset, jump if it is equal, return; linux/bpf_common.h."""
_INSTRUCTION = struct.Struct("=HBBI")
_ALL = 0xFFFFFFFF


class ProcessEnd:
    """Waits for the end of one process. Raises OSError where the kernel or the caller's rights do not allow that."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._status: int | None = None
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, _CONNECTOR)
        try:
            self._filter()
            self._socket.bind((0, _PROC))
            ask = struct.pack("=I", _LISTEN)
            message = _MESSAGE.pack(_PROC, _PROC, 0, 0, len(ask), 0) + ask
            self._socket.send(_HEADER.pack(_HEADER.size + len(message), _DONE, 0, 0, os.getpid()) + message)
        except BaseException:
            self._socket.close()
            raise

    def _filter(self) -> None:
        """Let only the end of this process through."""
        program = b"".join(
            _INSTRUCTION.pack(*each)
            for each in (
                (_LOAD, 0, 0, _EVENT),
                (_EQUAL, 0, 3, _as_loaded(_EXIT)),
                (_LOAD, 0, 0, _DATA),
                (_EQUAL, 0, 1, _as_loaded(self._pid)),
                (_RETURN, 0, 0, _ALL),
                (_RETURN, 0, 0, 0),
            )
        )
        memory = ctypes.create_string_buffer(program)
        count = len(program) // _INSTRUCTION.size
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", count, ctypes.addressof(memory)))

    def status(self) -> int | None:
        """Its exit status in the form of wait(2), once it has ended; None: it has not, or that was not heard."""
        while self._status is None:
            try:
                data = self._socket.recv(4096)
            except BlockingIOError:
                return None
            except OSError:  # ENOBUFS: events were lost
                return None
            if len(data) >= _DATA + _ENDED.size and struct.unpack_from("=I", data, _EVENT)[0] == _EXIT:
                thread, _, status = _ENDED.unpack_from(data, _DATA)
                if thread == self._pid:
                    self._status = int(status) & 0xFFFF
        return self._status

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _as_loaded(value: int) -> int:
    """A number of the host's byte order as BPF loads it, which takes all for the network's."""
    return int.from_bytes(struct.pack("=I", value), "big")
