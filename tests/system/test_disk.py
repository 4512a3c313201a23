"""What one container can take of the disk that all share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import attacks
from .harness import Fleet, fleet_on_disk, source

pytestmark = pytest.mark.system


@pytest.fixture
def plain_disk() -> Iterator[Fleet]:
    """A fleet on ext4 as it is made by default: 5 % are for root, and nobody's share is limited."""
    with fleet_on_disk() as fleet:
        yield fleet


def write(directory: Path, size: int) -> None:
    """Write so much to the disk, as root of the host."""
    file = directory / "ballast"
    with file.open("wb") as stream:
        stream.write(os.urandom(size))
        stream.flush()
        os.fsync(stream.fileno())
    file.unlink()


def test_what_the_disk_keeps_for_root_stays_for_the_host(plain_disk: Fleet) -> None:
    fleet = plain_disk
    name = fleet.name("greedy")
    fleet.create(name)
    for _ in range(2):
        ran = fleet.run("exec", name, "--", "python3", "-c", source(attacks.fill_disk))
        assert (ran.status, int(ran.out.split()[0]) < 64 << 10) == (0, True), ran
        write(fleet.paths.lxc, 6 << 20)
        fleet.ok("restart", name)
