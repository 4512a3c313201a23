"""A test run that is broken off leaves nothing on the host, and touches nothing of other runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import leftovers
import pytest

from .harness import ROOT, TIMEOUT, Fleet, alive, command_lines, parent_of, until

pytestmark = pytest.mark.system


class Tag:
    """The tag of another run's fleet."""

    def __init__(self, tag: str) -> None:
        self.tag = tag

    def left(self) -> list[str]:
        """All things on this host that bear the tag."""
        name = f"lxcfleet-t{self.tag}"
        tables = subprocess.run(["/usr/sbin/nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        places = [Path(top, name) for top in ("/var/lib", "/run", "/etc", "/run/lxc/var/lib", "/run/lxc/lock/var/lib")]
        environments = [pid for pid, _ in command_lines() if f"={'/run/' + name}\0".encode() in environ(pid)]
        return [
            *(line for line in [*tables.splitlines(), *links.splitlines()] if f"lt{self.tag}" in line),
            *(str(place) for place in places if place.exists()),
            *(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line),
            *(f"{pid}: {line}" for pid, line in command_lines() if name in line or pid in environments),
            *(path for path, _, _ in os.walk("/sys/fs/cgroup") if f".t{self.tag}-" in path),
        ]


def environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@contextmanager
def run(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Tag]]:
    """A test run that has made a container, and is in the middle of its test."""
    file = tmp_path / "tag"
    with (tmp_path / "said").open("wb") as said:
        pytest_run = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/system/broken_off.py"],
            cwd=ROOT, env={**os.environ, "TELL_THE_TAG": str(file)}, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        )  # fmt: skip
    try:
        until(lambda: pytest_run.poll() is not None or (file.exists() and file.read_text().endswith("\n")), TIMEOUT)
        assert pytest_run.poll() is None, (tmp_path / "said").read_text()
        yield pytest_run, Tag(file.read_text().strip())
    finally:
        pytest_run.kill()
        pytest_run.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_run_that_a_signal_breaks_off_leaves_nothing(tmp_path: Path, fleet: Fleet, number: signal.Signals) -> None:
    fleet.create(fleet.name("a"))
    before = fleet.pid(fleet.name("a"))
    with run(tmp_path) as (other, tag):
        assert tag.left()
        other.send_signal(number)
        other.wait(TIMEOUT)
        with contextlib.suppress(AssertionError):
            until(lambda: not tag.left(), 15)
        assert tag.left() == []
    assert fleet.pid(fleet.name("a")) == before


def test_the_next_run_removes_the_leftovers_of_a_killed_run(tmp_path: Path, fleet: Fleet) -> None:
    """The run's helper usually removes the leftovers. Here the helper is killed, too."""
    fleet.create(fleet.name("a"))
    before = fleet.pid(fleet.name("a"))
    with run(tmp_path) as (other, tag):
        (helper,) = [pid for pid, line in command_lines() if parent_of(pid) == other.pid and "leftovers.py" in line]
        clean = [sys.executable, "-m", "tests.leftovers"]
        said = subprocess.run(clean, cwd=ROOT, capture_output=True, check=True).stdout
        assert f"run {other.pid}-" not in said.decode()  # that run lives; others of this host may just have ended
        assert alive(helper)
        with leftovers.locked(leftovers.registry()):  # so that no other run of this host is the next one yet
            os.kill(helper, signal.SIGKILL)
            other.kill()
            other.wait()
            assert tag.left()
        subprocess.run(clean, cwd=ROOT, check=True)
        until(lambda: not tag.left(), what="whichever run was the next one has removed it")
    assert fleet.pid(fleet.name("a")) == before
