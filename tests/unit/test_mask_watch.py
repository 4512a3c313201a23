"""Where a changed file is, by what the kernel tells for its handle. The handles are made up, the names are real."""

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lxcfleet.host.kernel import watch
from lxcfleet.host.kernel.watch import Watch

HANDLE = bytes(16)
UNKNOWN = ""


class Kernel:
    """Opens what is in ``opened`` for any handle, or fails with ``error``."""

    def __init__(self) -> None:
        self.opened = -1
        self.error = 0

    def open_by_handle_at(self, _top: int, _handle: object, _flags: int) -> int:
        if self.error:
            ctypes.set_errno(self.error)
            return -1
        return os.dup(self.opened)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(watch, "_libc", made)
    return made


@pytest.fixture
def ask(kernel: Kernel) -> Iterator[Callable[..., str | None]]:
    """Where the kernel's word places a file, which has the given name first; ``then`` is done while it is open."""
    top = os.open("/", os.O_PATH)

    def place(file: Path, then: Callable[[], object] = lambda: None, *, doubtful: bool = True) -> str | None:
        kernel.opened = os.open(file, os.O_PATH | os.O_NOFOLLOW)
        try:
            then()
            return Watch(-1, top, Path("/"), lambda *_: doubtful)._path(HANDLE)
        finally:
            os.close(kernel.opened)

    yield place
    os.close(top)


Ask = Callable[..., str | None]


def test_a_name_may_end_like_that_of_a_removed_file(ask: Ask, tmp_path: Path) -> None:
    directory, file = tmp_path / "d (deleted)", tmp_path / "f (deleted)"
    (tmp_path / "d").mkdir()
    directory.mkdir()
    file.touch(mode=0o600)
    assert ask(directory) == str(directory)
    assert ask(file) == str(file)


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_removed_file_is_not_taken_for_one_of_such_a_name(ask: Ask, tmp_path: Path, kind: str) -> None:
    name, other = tmp_path / "x", tmp_path / "x (deleted)"
    if kind == "directory":
        name.mkdir()
        other.mkdir()
        assert ask(name, name.rmdir) is None
    else:
        name.touch(mode=0o600)
        other.touch(mode=0o600)
        assert ask(name, name.unlink) is None


@pytest.mark.parametrize(
    ("mode", "doubtful", "unknown"), [(0o600, True, True), (0o600, False, False), (0o644, True, False)]
)
def test_a_removed_name_may_be_told_for_a_private_file_that_has_another(
    ask: Ask, tmp_path: Path, mode: int, doubtful: bool, unknown: bool
) -> None:
    name, other = tmp_path / "a", tmp_path / "b"
    name.touch()
    other.hardlink_to(name)

    def remove() -> None:
        name.unlink()
        other.chmod(mode)

    assert other.stat().st_nlink == 2
    assert ask(name, remove, doubtful=doubtful) == (UNKNOWN if unknown else str(name))


def test_a_directory_that_is_told_as_removed_but_has_links_may_be_anywhere(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_told", lambda _: f"{tmp_path}/other (deleted)")
    assert ask(tmp_path) == UNKNOWN


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ESTALE, None),
        (errno.ENOENT, None),
        (errno.EMFILE, UNKNOWN),
        (errno.ENOMEM, UNKNOWN),
        (errno.EPERM, UNKNOWN),
    ],
)
def test_only_a_file_that_is_gone_does_not_count(kernel: Kernel, code: int, expected: str | None) -> None:
    kernel.error = code
    assert Watch(-1, -1, Path("/"), lambda *_: False)._path(HANDLE) == expected


def test_what_can_not_be_asked_counts(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> str:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(watch, "_told", fail)
    assert ask(tmp_path) == UNKNOWN
    assert Watch(-1, -1, Path("/"), lambda *_: False)._path(b"") == UNKNOWN, "the kernel could make no handle"


# -- events ---------------------------------------------------------------------------------------------


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[bytes | OSError]:
    """What reading from the kernel's queue gives, one after the other."""
    waiting: list[bytes | OSError] = []

    def read(_descriptor: int, _length: int) -> bytes:
        found = waiting.pop(0) if waiting else BlockingIOError()
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr(watch, "os", SimpleNamespace(**{**vars(os), "read": read}))
    return waiting


def event(mask: int) -> bytes:
    head = struct.calcsize("=IBBHQii")
    return struct.pack("=IBBHQii", head + 12 + len(HANDLE), 3, 0, head, mask, -1, 1) + bytes(12) + HANDLE


def test_a_file_that_changes_again_while_the_events_are_read_is_asked_for_again(
    kernel: Kernel, events: list[bytes | OSError], tmp_path: Path
) -> None:
    """It was public when it was first asked for, so its other name did not matter."""
    file = tmp_path / "a"
    file.touch(mode=0o644)
    (tmp_path / "b").hardlink_to(file)
    kernel.opened = os.open(file, os.O_PATH)
    events += [event(watch._FAN_ATTRIB)] * 2
    top = os.open("/", os.O_PATH)

    def matters(_path: str, _inside: bool, _directory: bool) -> bool:
        file.chmod(0o600)
        return False

    try:
        assert Watch(-1, top, Path("/"), lambda *_: True).changed(matters)
    finally:
        os.close(top)
        os.close(kernel.opened)


def test_events_that_can_not_be_read_count(events: list[bytes | OSError]) -> None:
    events.append(OSError(errno.ENOMEM, "Cannot allocate memory"))
    watched = Watch(-1, -1, Path("/"), lambda *_: False)
    assert watched.changed(lambda *_: False)
    assert not watched.changed(lambda *_: False)
