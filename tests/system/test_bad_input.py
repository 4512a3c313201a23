"""Bad input and bad files on disk: each gets a clear error, and nothing else changes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .harness import SLEEP, TIMEOUT, Fleet, Ran, fleet_on_disk, until

pytestmark = pytest.mark.system

FAILED, INVALID, SOME = 1, 2, 3


def assert_told(ran: Ran, status: int, *words: str) -> None:
    """Check that a command failed with a short error that has these words and no traceback."""
    assert ran.status == status, ran
    assert ran.out == ""
    assert ran.err.startswith("lxcfleet: ")
    assert "Traceback" not in ran.err
    assert "internal error" not in ran.err
    for word in words:
        assert word in ran.err, ran


NAMES = ["", "x" * 64, "a/b", "a:b", "a,b", "a\nb", ".", "..", "a b", "ä", "UPPER", "a_b", "a-", "../x", "*", "a\x1b[0m"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", ["create", "info", "shell"])
def test_an_invalid_name_is_refused(fleet: Fleet, verb: str, name: str) -> None:
    ran = fleet.run(verb, name, *(SLEEP if verb == "create" else ()))
    assert_told(ran, 125 if verb == "shell" else INVALID)
    assert "\x1b" not in ran.err
    assert fleet.states() == {}


def test_a_name_with_a_leading_dash_is_refused(fleet: Fleet) -> None:
    assert_told(fleet.run("create", "-x", *SLEEP), INVALID)


@pytest.mark.parametrize("count", ["0", "-1", "1000000000", "4097", "many", "1.5", ""])
def test_an_invalid_count_is_refused(fleet: Fleet, count: str) -> None:
    assert_told(fleet.run("create", fleet.name("a"), "-n", count, *SLEEP), INVALID)
    assert fleet.states() == {}


def test_a_name_that_its_number_makes_too_long_is_refused(fleet: Fleet) -> None:
    assert_told(fleet.run("create", "x" * 62, "-n", "12", *SLEEP), INVALID)
    assert fleet.states() == {}


def test_a_name_that_exists_is_refused(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    pid = fleet.pid(name)
    assert_told(fleet.run("create", name, *SLEEP), FAILED, "exists already", "--ensure")
    assert fleet.pid(name) == pid


def test_of_two_clients_that_create_the_same_name_one_is_refused(fleet: Fleet) -> None:
    for number in range(5):
        name = fleet.name(f"a{number}")
        clients = [fleet.spawn("create", name, *SLEEP) for _ in range(2)]
        errors = [client.communicate(timeout=TIMEOUT)[1] for client in clients]
        assert sorted(client.returncode for client in clients) == [0, FAILED], errors
        assert b"exists already" in b"".join(errors)
        assert fleet.inside(name, "echo ok") == "ok"


LABELS = ["x", "=x", "a=b c", "a b=c", "a=\n", "ä=b", "a=" + "x" * 256, "x" * 64 + "=a"]


@pytest.mark.parametrize("label", LABELS)
def test_an_invalid_label_is_refused(fleet: Fleet, label: str) -> None:
    assert_told(fleet.run("create", fleet.name("a"), "-l", label, *SLEEP), INVALID)
    assert_told(fleet.run("list", "-l", label), INVALID)
    assert fleet.states() == {}


@pytest.mark.parametrize("variable", ["=x", "a b=c", "a\n=c"])
def test_an_invalid_variable_is_refused(fleet: Fleet, variable: str) -> None:
    assert_told(fleet.run("create", fleet.name("a"), "-e", variable, *SLEEP), INVALID)
    assert_told(fleet.run("exec", "-e", variable, fleet.name("a"), "--", "true"), 125)


def test_an_unknown_profile_is_refused(fleet: Fleet) -> None:
    assert_told(fleet.run("create", fleet.name("a"), "--profile", "none"), INVALID, "no profile 'none'")


BROKEN_CONFIGS = [
    "profiles: [", "workers: many\n", "- a\n", "nonsense: 1\n", "workers: 1\nworkers: 2\n", "\0", "a: &x [*x]\n",
    "profiles: {web: {init: system, command: [x]}}\n", "!!python/object/apply:os.system [id]\n", "\xff",
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN_CONFIGS)
def test_config_check_refuses_an_invalid_settings_file(fleet: Fleet, text: str) -> None:
    file = fleet.paths.config_file
    file.write_bytes(text.encode("latin-1"))
    try:
        assert_told(fleet.run("config", "check"), INVALID, str(file))
    finally:
        fleet.settings(fleet.usual)


def test_a_daemon_with_invalid_settings_does_not_start(fleet: Fleet) -> None:
    """The client says why the daemon did not start. Containers run on."""
    name = fleet.name("a")
    fleet.create(name)
    pid = fleet.pid(name)
    fleet.settings("workers: many\n")
    try:
        fleet.stop_daemon()
        assert_told(fleet.run("list"), FAILED, "did not come up", str(fleet.paths.config_file))
        assert Path(f"/proc/{pid}").exists()
    finally:
        fleet.settings(fleet.usual)
    assert fleet.pid(name) == pid


COMMANDS = ["no-such-program", "/no/such/program", "/etc/passwd", "/etc", "./relative", "/root/.bashrc", "a=b", ""]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_can_not_run_is_refused(fleet: Fleet, command: str) -> None:
    assert_told(fleet.run("create", fleet.name("a"), "-n", "3", "--", command, "x"), INVALID)
    assert fleet.states() == {}
    assert fleet.directories() == []


def test_a_program_that_the_mask_hides_is_refused(fleet: Fleet) -> None:
    program = Path(f"/root/{fleet.name('program')}")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    try:
        assert_told(fleet.run("create", fleet.name("a"), "--", str(program)), INVALID, "mask hides it")
    finally:
        program.unlink()


def test_arguments_that_are_not_text_are_refused(fleet: Fleet) -> None:
    assert_told(fleet.run("create", fleet.name("a"), "--", "echo", os.fsdecode(b"\xff")), INVALID)
    assert fleet.states() == {}


def test_a_system_container_takes_no_command(fleet: Fleet) -> None:
    assert_told(fleet.run("create", fleet.name("a"), "--init", "system", *SLEEP), INVALID)
    assert_told(fleet.run("create", fleet.name("a"), "--init", "app"), INVALID)


# -- files on disk -------------------------------------------------------------------------------------------


@pytest.fixture
def pair(fleet: Fleet) -> tuple[str, str]:
    """A stopped container that the test will break, and a running one that must not be disturbed."""
    broken, sound = fleet.name("broken"), fleet.name("sound")
    fleet.create(broken, sound)
    fleet.ok("stop", broken)
    return broken, sound


def test_a_container_whose_delta_is_gone_does_not_start(fleet: Fleet, pair: tuple[str, str]) -> None:
    broken, sound = pair
    shutil.rmtree(fleet.delta(broken))
    for verb in ("start", "restart"):
        ran = fleet.run(verb, "--all", "-f", "json")
        assert (ran.status, ran.results[broken]) == (SOME, "failed")
        assert "is gone" in ran.err
        assert str(fleet.delta(broken)) in ran.err
    assert fleet.states()[sound] == "running"
    fleet.ok("destroy", broken)
    assert broken not in fleet.states()


def test_a_container_whose_delta_has_another_owner_does_not_start(fleet: Fleet, pair: tuple[str, str]) -> None:
    broken, _ = pair
    delta = fleet.delta(broken)
    owner = delta.stat().st_uid
    os.chown(delta, 12345, 12345)
    ran = fleet.run("start", broken)
    assert ran.status == FAILED
    assert "uid 12345" in ran.err
    assert "chown" in ran.err
    os.chown(delta, owner, owner)
    fleet.ok("start", broken)


def test_a_container_whose_delta_is_a_link_does_not_start(fleet: Fleet, pair: tuple[str, str], tmp_path: Path) -> None:
    """Through the link a container could write anywhere on the host, and destroy would remove the link's target."""
    broken, _ = pair
    kept = tmp_path / "kept"
    kept.write_text("x")
    shutil.rmtree(fleet.delta(broken))
    fleet.delta(broken).symlink_to(tmp_path)
    assert fleet.run("start", broken).status == FAILED
    fleet.ok("destroy", broken)
    assert kept.read_text() == "x"


def test_a_container_with_a_file_in_place_of_a_mount_point_does_not_start(fleet: Fleet, pair: tuple[str, str]) -> None:
    """liblxc would report that the container has started, and give it up a moment later."""
    broken, _ = pair
    (fleet.delta(broken) / "proc").touch()
    for _ in range(8):
        ran = fleet.run("start", broken)
        assert ran.status == FAILED
        assert "/proc is no directory in it" in ran.err
    assert fleet.states()[broken] == "stopped"
    (fleet.delta(broken) / "proc").unlink()
    fleet.ok("start", broken)


def as_directory(spec: Path, _text: str) -> None:
    spec.unlink()
    spec.mkdir()


def write(text: str) -> Callable[[Path, str], object]:
    return lambda spec, _: spec.write_text(text)


def change(line: str, new: str) -> Callable[[Path, str], object]:
    """Replace each line that begins with ``line`` by ``new``."""

    def act(spec: Path, text: str) -> None:
        lines = [new if each.startswith(line) else each for each in text.splitlines()]
        assert lines != text.splitlines()
        spec.write_text("\n".join(lines))

    return act


HURTS: list[Callable[[Path, str], object]] = [
    lambda spec, text: spec.write_text(text[: len(text) // 2]),
    as_directory, write(""), write("\0"), write("[]"), write("version: 99\n"), write("init: app\n"), write("{" * 5000),
    change("init:", "init: nobody"), change("first_id:", "first_id: 0"), change("first_id:", "first_id: -65536"),
    change("command:", "command: []"), change("created:", "nonsense: 1"),
]  # fmt: skip


def test_a_container_with_an_unusable_spec_is_broken(fleet: Fleet) -> None:
    """Nothing else suffers, and each broken container can be repaired or destroyed."""
    sound = fleet.name("sound")
    fleet.create(sound)
    fleet.ok("create", fleet.name("b"), "-n", str(len(HURTS)), "--no-start", *SLEEP)
    names = [fleet.name(f"b{number}") for number in range(1, len(HURTS) + 1)]
    pid = fleet.pid(sound)
    fleet.stop_daemon()
    specs = {name: fleet.paths.container(name).spec for name in names}
    first = specs[names[0]].read_text()
    for hurt, spec in zip(HURTS, specs.values(), strict=True):
        hurt(spec, spec.read_text())
    fleet.start_daemon()
    assert fleet.states() == {sound: "running", **dict.fromkeys(names, "broken")}
    assert fleet.pid(sound) == pid
    for name, spec in specs.items():
        problem = fleet.record(name)["problem"]
        assert name in problem
        assert str(spec) in problem
    for state in ("running", "healthy"):  # wait fails at once; otherwise it would wait for ten minutes
        ran = fleet.run("wait", *names, "--for", state, "--timeout", "600", "-f", "json")
        assert (ran.status, ran.results) == (FAILED, dict.fromkeys(names, "failed"))
        assert str(specs[names[0]]) in ran.err
    ran = fleet.run("restart", "--all", "-f", "json")
    assert (ran.status, ran.results) == (SOME, {sound: "restarted", **dict.fromkeys(names, "failed")})
    new = fleet.name("new")
    fleet.create(new)

    specs[names[0]].write_text(first)
    fleet.stop_daemon()
    fleet.start_daemon()
    fleet.ok("start", names[0])
    fleet.ok("destroy", *names, "--force")
    assert fleet.states() == {sound: "running", new: "running"}
    assert sorted(fleet.directories()) == sorted(str(fleet.paths.container(name).directory) for name in (sound, new))


def test_a_broken_container_that_runs_can_be_stopped(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    fleet.paths.container(name).spec.write_text("version:")
    fleet.stop_daemon()
    fleet.start_daemon()
    assert fleet.states() == {name: "running"}
    fleet.ok("wait", name)
    fleet.ok("stop", name)
    assert fleet.states() == {name: "broken"}
    fleet.ok("wait", name, "--for", "stopped")


def test_no_other_container_gets_the_ids_and_address_of_a_broken_one(fleet: Fleet) -> None:
    """The broken container's uids own its files, and it may run with its address."""
    fleet.settings(f"network: {{bridge: {fleet.bridge}, drain: 0}}\n")
    fleet.stop_daemon()
    fleet.start_daemon()
    broken, new, after = fleet.name("broken"), fleet.name("new"), fleet.name("after")
    fleet.create(broken)
    own, before = fleet.paths.container(broken), fleet.record(broken)
    text = own.spec.read_text()
    own.spec.write_text("version:")
    fleet.stop_daemon()
    fleet.start_daemon()
    assert fleet.record(broken)["problem"]
    fleet.create(new)
    found = fleet.record(new)
    assert found["first_id"] != before["first_id"]
    assert found["addresses"][0] != before["addresses"][0]
    # The broken container runs, so its bridge stays.
    fleet.ok("destroy", new, "--force")
    assert Path(f"/sys/class/net/{fleet.bridge}").exists()
    # Once repaired, the container starts with the ids and the address that it had.
    fleet.ok("stop", broken)
    own.spec.write_text(text)
    fleet.stop_daemon()
    fleet.start_daemon()
    fleet.ok("start", broken)
    assert fleet.record(broken)["first_id"] == before["first_id"]
    assert fleet.record(broken)["addresses"] == before["addresses"]
    # Its ids and address are free once it is destroyed.
    own.spec.write_text("version:")
    fleet.stop_daemon()
    fleet.start_daemon()
    fleet.create(new)
    fleet.ok("destroy", broken, "--force")
    fleet.create(after)
    assert fleet.record(after)["first_id"] == before["first_id"]
    assert fleet.record(after)["addresses"][0] == before["addresses"][0]
    fleet.ok("destroy", "--all", "--force")
    fleet.settings(fleet.usual)
    fleet.stop_daemon()
    fleet.start_daemon()


def test_only_one_of_several_copies_of_a_container_may_run(fleet: Fleet) -> None:
    """A copy has the ids of the first container, so root of the one could touch the other's processes."""
    first, second, third, kept = fleet.name("a"), fleet.name("b"), fleet.name("c"), f"{fleet.name('a')}.bak"
    fleet.create(first)
    fleet.ok("stop", first)
    fleet.stop_daemon()
    for name in (second, third, kept):
        subprocess.run(["cp", "-a", fleet.paths.lxc / first, fleet.paths.lxc / name], check=True)
    fleet.start_daemon()
    try:
        assert fleet.states() == {name: "stopped" for name in (first, second, third)}
        both = fleet.run("start", third, second, "-f", "json")
        assert (both.status, sorted(both.results.values())) == (3, ["failed", "started"])
        runs = next(name for name, state in fleet.states().items() if state == "running")
        refused = fleet.run("start", first)
        assert refused.status == 1
        assert f"{runs} has the same ids" in refused.err
        fleet.ok("destroy", runs, "--force")
        fleet.ok("start", first)
        fleet.ok("destroy", "--all", "--force")
        assert fleet.directories() == [str(fleet.paths.lxc / kept)]
    finally:
        shutil.rmtree(fleet.paths.lxc / kept)


def test_an_lxc_config_that_somebody_changed_is_written_anew(fleet: Fleet, pair: tuple[str, str]) -> None:
    broken, _ = pair
    config = fleet.paths.container(broken).config
    config.write_text("lxc.mount.entry = / mnt none bind 0 0\nnonsense\n")
    fleet.ok("start", broken)
    assert "nonsense" not in config.read_text()


def test_a_running_container_whose_directory_vanished_can_be_destroyed(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    shutil.rmtree(fleet.paths.container(name).directory)
    assert fleet.states() == {name: "running"}
    fleet.ok("destroy", name, "--force")
    assert fleet.states() == {}


def test_a_container_in_which_something_is_mounted_is_not_destroyed_not_even_in_part(fleet: Fleet) -> None:
    """It lost its name and part of its files, and was broken. The launcher sees such mounts where / is shared, as systemd
    makes it; so this test mounts in both namespaces."""
    name = fleet.name("a")
    fleet.create(name)
    disk, file = fleet.delta(name) / "srv/disk", fleet.delta(name) / "srv/file"
    disk.mkdir(parents=True)
    file.write_text("kept")
    places: tuple[list[str], ...] = ([], ["nsenter", "-t", str(fleet.servants()["launcher"]), "-m"])
    for within in places:
        subprocess.run([*within, "mount", "-t", "tmpfs", "lxcfleet", str(disk)], check=True)
    try:
        (disk / "file").write_text("of the operator")
        for force in (("--force", "--dry-run"), ("--force",)):
            ran = fleet.run("destroy", name, *force)
            assert ran.status == FAILED
            assert f"something is mounted at {disk}" in ran.err + ran.out, ran
        assert fleet.states() == {name: "running"}
        assert (file.read_text(), (disk / "file").read_text()) == ("kept", "of the operator")
    finally:
        for within in places:
            subprocess.run([*within, "umount", str(disk)], check=True)
    fleet.ok("destroy", name, "--force")
    assert fleet.states() == {}


def test_a_container_of_plain_lxc_keeps_its_name_and_files(fleet: Fleet) -> None:
    name = fleet.name("a")
    directory = fleet.paths.lxc / name
    directory.mkdir(parents=True)
    (directory / "config").write_text("lxc.uts.name = x\n")
    (directory / "rootfs").mkdir()
    try:
        assert_told(fleet.run("create", name, *SLEEP), FAILED, "not lxcfleet's")
        assert_told(fleet.run("destroy", name, "--force"), FAILED, "no container named")
        assert sorted(os.listdir(directory)) == ["config", "rootfs"]
        many = fleet.run("create", fleet.name(""), "-n", "1", *SLEEP)
        assert many.status in (0, INVALID)
    finally:
        shutil.rmtree(directory)


def test_create_refuses_the_name_of_a_file_or_link(fleet: Fleet) -> None:
    name = fleet.name("a")
    path = fleet.paths.lxc / name
    for link in (False, True):
        if link:
            path.symlink_to("/nowhere")
        else:
            path.write_text("x")
        try:
            assert_told(fleet.run("create", name, *SLEEP), FAILED, "exists")
        finally:
            path.unlink()


# -- a full disk ---------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[Fleet]:
    """A fleet whose containers are on a small file system of their own."""
    with fleet_on_disk("-m", "0", "-N", "40000") as fleet:
        yield fleet


def fill(directory: Path) -> None:
    """Take all the free space of a file system."""
    with (directory / "ballast").open("ab") as file:
        size = 64 << 20
        while size >= 1024:
            try:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
            except OSError:
                size //= 2


def test_a_run_whose_configuration_is_damaged_is_known_and_a_restart_heals_it(fleet: Fleet) -> None:
    """A new daemon told that the container was in an unknown state, and refused to stop it."""
    name = fleet.name("a")
    fleet.create(name)
    pid, config = fleet.pid(name), fleet.paths.container(name).directory / "config"
    config.write_text(config.read_text() + "lxc.net.0.ty")
    fleet.stop_daemon()
    fleet.start_daemon()
    assert (fleet.state(name), fleet.pid(name)) == ("running", pid)
    assert_told(fleet.run("exec", name, "--", "true"), 125, str(config), f"lxcfleet restart {name}")
    fleet.ok("restart", name, "--timeout", "0")
    fleet.ok("exec", name, "--", "true")
    assert "lxc.net.0.ty\n" not in config.read_text() + "\n"


def test_a_disk_that_fills_up_during_a_create_leaves_whole_containers(small_disk: Fleet) -> None:
    fleet = small_disk
    first = fleet.name("first")
    fleet.create(first)
    client = fleet.spawn("create", fleet.name("m"), "-n", "150", "-f", "json", *SLEEP)
    until(lambda: len(fleet.directories()) > 5, 20, "the create has begun")
    fill(fleet.paths.lxc)
    out, err = client.communicate(timeout=TIMEOUT)
    ran = Ran(client.returncode, out.decode(), err.decode())
    assert ran.status == SOME, ran
    assert "No space left on device" in ran.out + ran.err
    created = {name for name, status in ran.results.items() if status == "created"}
    assert created
    assert set(ran.results.values()) == {"created", "failed"}
    states = fleet.states()
    assert set(states) == created | {first}
    assert set(states.values()) == {"running"}
    running = fleet.paths.running_record.name  # the daemon tries to write it until there is room
    records = {fleet.paths.base_snapshots.name, running, f".{running}.new", fleet.paths.state.name}
    assert {path.name for path in fleet.paths.lxc.iterdir()} - records == created | {first, "ballast"}
    assert fleet.half_done() == []

    # With no room at all a create is refused before it begins. Running containers can still be used and removed.
    refused = fleet.run("create", fleet.name("n"), "-n", "20", *SLEEP)
    assert (refused.status, "disk space" in refused.err) == (FAILED, True)
    assert fleet.inside(first, "cat /etc/debian_version")
    for verb in ("restart", "stop", "start", "freeze", "unfreeze"):
        told = fleet.run(verb, first)
        assert told.status in (0, FAILED)
        assert "internal error" not in told.err
    fleet.ok("destroy", f"{fleet.name('m')}*", "--force", "-q")
    assert set(fleet.states()) == {first}


def test_a_create_without_enough_inodes_is_refused_with_numbers(small_disk: Fleet) -> None:
    fleet = small_disk
    refused = fleet.run("create", fleet.name("m"), "-n", "4000", *SLEEP)
    assert refused.status == FAILED
    assert "inodes" in refused.err
    assert "needed" in refused.err
    assert fleet.directories() == []


def test_each_verb_tells_of_a_read_only_disk(small_disk: Fleet) -> None:
    fleet = small_disk
    name = fleet.name("a")
    fleet.create(name)
    fleet.ok("stop", name)
    # The kernel refuses that while a file is open for writing, and the daemon's record of what runs may be.
    read_only = ["mount", "-o", "remount,ro", str(fleet.paths.lxc)]
    until(lambda: subprocess.run(read_only, capture_output=True, check=False).returncode == 0, what="the disk is read-only")
    try:
        for command in (["create", fleet.name("b"), *SLEEP], ["start", name], ["restart", name], ["destroy", name]):
            ran = fleet.run(*command)
            assert ran.status == FAILED, ran
            assert "Read-only file system" in ran.err or "read-only" in ran.err, ran
            assert "internal error" not in ran.err
        assert fleet.states() == {name: "stopped"}
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(fleet.paths.lxc)], check=True)
    fleet.ok("start", name)


def test_a_wrong_rule_stops_no_container(fleet: Fleet) -> None:
    """Before, a restart and a rollout stopped containers, which then could not start again."""
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, two)
    pids = [fleet.pid(one), fleet.pid(two)]
    rules = fleet.paths.mask_rules / "typo.yaml"
    rules.parent.mkdir(parents=True, exist_ok=True)
    rules.write_text("units: [apache2]\n")
    checked = fleet.run("config", "check")
    assert (checked.status, "typo.yaml: units[0]" in checked.err) == (2, True), checked
    ran = fleet.run("restart", one)
    assert (ran.status, "is not stopped, as it could not start again" in ran.err) == (1, True), ran
    assert "typo.yaml: units[0]" in ran.err
    rolled = fleet.run("restart", one, two, "--rolling", "--healthy-deadline", "4", "--min-healthy-time", "0")
    assert rolled.status == 1, rolled
    assert [fleet.pid(one), fleet.pid(two)] == pids
    rules.unlink()
    assert fleet.ok("config", "check")
    assert fleet.run("rollout", "resume").status == 0
    assert {fleet.pid(one), fleet.pid(two)}.isdisjoint(pids)
