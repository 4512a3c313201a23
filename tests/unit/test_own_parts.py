"""lxcfleet's own parts: which files of theirs are old."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxcfleet.host.process import outdated
from lxcfleet.patch import own
from lxcfleet.patch.own import DAEMON


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return Path(shutil.copy("/bin/sleep", tmp_path / "program"))


@pytest.fixture
def process(program: Path) -> Iterator[int]:
    """A process that runs the program."""
    child = os.posix_spawn(program, ["program", "1000"], os.environ)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def replace(program: Path, more: bytes) -> None:
    new = program.with_name("new")
    shutil.copy(program, new)
    with new.open("ab") as file:
        file.write(more)
    new.rename(program)


@pytest.mark.reaches("processes", reason="what /proc tells of a real process")
@pytest.mark.skipif(os.geteuid() != 0, reason="map_files takes CAP_SYS_ADMIN")
def test_a_file_is_old_if_its_content_changed(program: Path, process: int) -> None:
    assert outdated.files(process) == []
    replace(program, b"")
    assert outdated.files(process) == [], "the same bytes in another file are no reason for a restart"
    replace(program, b"new")
    assert outdated.files(process) == [(str(program), False)]
    program.unlink()
    assert outdated.files(process) == [(str(program), True)]
    assert outdated.files(1 << 22) == [], "no process"


STANDARD = f"{own._STANDARD}asyncio/events.py"
AIOHTTP, DNS = "/usr/lib/python3/dist-packages/aiohttp/web.py", "/usr/lib/python3/dist-packages/dns/name.py"
OURS = "/usr/lib/python3/dist-packages/lxcfleet/paths.py"
LOADED = {STANDARD, AIOHTTP, OURS}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        (DAEMON, {STANDARD, AIOHTTP}), ("launcher", {STANDARD}), ("responder", {STANDARD, DNS}), ("booter", set()),
        ("dnsmasq", set()),
    ],
)  # fmt: skip
def test_modules_that_a_part_may_have_read(name: str, read: set[str]) -> None:
    """Modules of lxcfleet itself do not count, as the package restarts what has them."""
    assert {path for path in (STANDARD, AIOHTTP, DNS, OURS) if own.may_have_read(name, path, LOADED)} == read
