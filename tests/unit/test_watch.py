"""Changes on a file system that containers write to as well."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lxcfleet.host.kernel import watch
from lxcfleet.host.kernel.watch import Watch


def event(handle: bytes, mask: int = watch._FAN_ATTRIB) -> bytes:
    """As the kernel writes it."""
    record = bytes(watch._HANDLE) + handle
    return watch._EVENT.pack(watch._EVENT.size + len(record), 3, 0, watch._EVENT.size, mask, -1, 0) + record


@pytest.fixture
def queue() -> Iterator[tuple[int, int]]:
    """The kernel's queue: what is read of it, and what is written to it."""
    ends = os.pipe2(os.O_NONBLOCK)
    yield ends
    for end in ends:
        os.close(end)


def test_a_path_that_is_too_long_hides_no_other_change(queue: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A container made one: no change of the host was noticed any more, and all events that came with it were lost."""
    opened: dict[int, bytes] = {}

    def open_by_handle_at(_top: int, buffer: object, _flags: int) -> int:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        opened[descriptor] = bytes(buffer)  # type: ignore[call-overload]
        return descriptor

    def readlink(link: str) -> str:
        handle = opened[int(link.rpartition("/")[2])]
        if handle == b"long":
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), link)
        return "/etc/secret"

    monkeypatch.setattr(watch, "_libc", SimpleNamespace(open_by_handle_at=open_by_handle_at))
    monkeypatch.setattr(os, "readlink", readlink)
    os.write(queue[1], event(b"long") + event(b"here"))
    asked: list[str] = []

    def matters(path: str, _inside: bool) -> bool:
        asked.append(path)
        return True

    assert Watch(queue[0], -1, Path("/")).changed(matters)
    assert asked == ["/etc/secret"]
