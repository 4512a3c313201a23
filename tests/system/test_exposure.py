"""Files of the host that clones can read: the audit looks from inside, and the mask follows the host."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import OTHERS_ETC, Fleet

pytestmark = pytest.mark.system

MARK = "lxcfleet-test-exposed"


@pytest.fixture
def host_file() -> Iterator[Path]:
    """A file of the host that everybody may read. The daemon does not watch its directory, and no package owns it."""
    file = Path(f"/usr/share/{MARK}/deep/down/file")
    file.parent.mkdir(parents=True)
    file.write_text("a key, later\n")
    yield file
    for path in (*file.parent.iterdir(), file.parent, file.parents[1], file.parents[2]):
        path.rmdir() if path.is_dir() else path.unlink()


def exposed(fleet: Fleet, *arguments: str) -> dict[str, list[str]]:
    """The paths that the audit finds, by container, but for those of tests that run beside this one."""
    ran = fleet.run("audit", "exposure", "-f", "json", *arguments)
    found = {record["name"]: [each["path"] for each in record["exposed"]] for record in ran.json}
    assert ran.status == (4 if any(found.values()) else 0), ran
    return {name: [path for path in paths if not OTHERS_ETC.match(path)] for name, paths in found.items()}


def records(fleet: Fleet) -> list[dict[str, Any]]:
    """The records of the audit."""
    return list(fleet.run("audit", "exposure", "-f", "json").json)


@pytest.mark.parametrize("options", [(), ("--privileged",)], ids=["unprivileged", "privileged"])
def test_this_host_exposes_nothing(fleet: Fleet, options: tuple[str, ...]) -> None:
    name, system = fleet.name("a"), fleet.name("s")
    fleet.create(name, options=options)
    fleet.create(system, command=(), options=options)
    assert exposed(fleet) == {name: [], system: []}


def test_a_file_that_becomes_private_is_told_of_until_the_next_start(fleet: Fleet, host_file: Path) -> None:
    old, other = fleet.name("old"), fleet.name("other")
    fleet.create(old, other)
    host_file.chmod(0o600)
    assert exposed(fleet) == {old: [str(host_file)], other: [str(host_file)]}
    (record, _) = records(fleet)
    (told,) = [each for each in record["exposed"] if each["path"] == str(host_file)]
    assert told["rule"] == f"hide: [{host_file}]"
    assert "0600" in told["why"]
    new = fleet.name("new")
    fleet.create(new)  # by the same daemon
    fleet.ok("restart", old)
    assert exposed(fleet) == {new: [], old: [], other: [str(host_file)]}
    assert exposed(fleet, old) == {old: []}
    host_file.chmod(0o644)
    fleet.ok("restart", old)
    assert fleet.inside(old, f"cat {host_file}") == "a key, later"


def test_a_new_private_file_and_a_new_private_directory_are_told_of(fleet: Fleet, host_file: Path) -> None:
    name = fleet.name("a")
    fleet.create(name)
    key = host_file.with_name("key")
    os.close(os.open(key, os.O_CREAT | os.O_WRONLY, 0o600))
    assert exposed(fleet)[name] == [str(key)]
    key.unlink()
    host_file.parent.chmod(0o700)
    assert exposed(fleet)[name] == [str(host_file.parent)]
    fleet.ok("restart", name)
    assert exposed(fleet)[name] == []
    assert fleet.run("exec", name, "--", "ls", str(host_file)).status != 0


def test_a_copy_in_the_delta_is_told_of(fleet: Fleet, host_file: Path) -> None:
    """A container that changed the file's mode has a copy in its delta, which no mask hides."""
    name = fleet.name("a")
    fleet.create(name)
    fleet.inside(name, f"chmod 644 {host_file}")
    host_file.chmod(0o600)
    fleet.ok("restart", name)
    assert exposed(fleet)[name] == [str(host_file)]


def test_a_file_that_a_container_wrote_itself_is_not_told_of(fleet: Fleet, host_file: Path) -> None:
    name = fleet.name("a")
    fleet.create(name)
    fleet.inside(name, f"rm {host_file}; echo 'of the same' >{host_file}")
    host_file.chmod(0o600)
    assert exposed(fleet)[name] == []
    fleet.inside(name, f"rm {host_file}; echo 'a key, later' >{host_file}")  # by chance the host's content
    assert exposed(fleet)[name] == []


def test_a_file_that_a_rule_shows_by_name_is_not_told_of(fleet: Fleet, host_file: Path) -> None:
    rules = fleet.paths.mask_rules / "mine.yaml"
    rules.parent.mkdir(parents=True, exist_ok=True)
    rules.write_text(f"show: [{host_file}]\n")
    host_file.chmod(0o600)
    name = fleet.name("a")
    try:
        fleet.create(name)
        assert "key" in fleet.inside(name, f"cat {host_file}")
        assert exposed(fleet)[name] == []
        rules.unlink()
        assert exposed(fleet)[name] == [str(host_file)]
    finally:
        rules.unlink(missing_ok=True)


def test_a_socket_of_the_host_is_told_of(fleet: Fleet, host_file: Path) -> None:
    name = fleet.name("a")
    fleet.create(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host_file.with_name("socket")))
        assert exposed(fleet)[name] == [str(host_file.with_name("socket"))]


def test_a_container_can_not_hang_the_audit(fleet: Fleet, host_file: Path) -> None:
    """The container may mount over, link or remove directories on the way to an audited file."""
    name, other = fleet.name("a"), fleet.name("b")
    fleet.create(name, other)
    host_file.chmod(0o600)
    fleet.inside(name, f"mkfifo /pipe; rm {host_file}; ln -s /pipe {host_file}; mount -t tmpfs x /etc; rm -rf /var/lib/*")
    assert exposed(fleet) == {name: [], other: [str(host_file)]}
    fleet.inside(name, f"rm {host_file}; mkfifo {host_file}")
    assert exposed(fleet)[name] == []
