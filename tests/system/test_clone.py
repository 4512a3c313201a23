"""Real clones: they see only allowed files of the host, and run only allowed services and their own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import OTHERS_ETC, PATIENCE, Fleet

pytestmark = pytest.mark.system

MARK = "lxcfleet-test-secret"


@pytest.fixture
def secrets() -> Iterator[list[Path]]:
    """Files on the host that no clone may see: private files, and files in hidden directories."""
    private = Path(f"/etc/{MARK}-key")
    files = [
        Path(f"/root/{MARK}"), Path(f"/home/{MARK}"), Path(f"/srv/{MARK}"), Path(f"/mnt/{MARK}"),
        Path(f"/tmp/{MARK}"), Path(f"/var/tmp/{MARK}"), Path(f"/var/log/{MARK}"), Path(f"/var/cache/{MARK}"),
        Path(f"/var/spool/{MARK}"), Path(f"/var/backups/{MARK}"), Path(f"/var/lib/{MARK}"), Path(f"/boot/{MARK}"),
        Path(f"/etc/cron.d/{MARK}"), Path(f"/etc/ssh/ssh_host_{MARK}_key.pub"), Path(f"/{MARK}"), private,
    ]  # fmt: skip
    made = []
    for file in files:
        if file.parent.is_dir():
            file.write_text(f"{MARK}\n")
            file.chmod(0o600 if file == private else 0o644)
            made.append(file)
    yield made
    for file in made:
        file.unlink(missing_ok=True)


@pytest.fixture
def host_service() -> Iterator[str]:
    """A service that is enabled on the host."""
    name = "lxcfleet-test-host.service"
    unit = Path("/etc/systemd/system") / name
    wanted = Path("/etc/systemd/system/multi-user.target.wants") / name
    unit.write_text("[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n")
    wanted.parent.mkdir(exist_ok=True)
    wanted.symlink_to(unit)
    yield name
    wanted.unlink()
    unit.unlink()


def system(fleet: Fleet, name: str) -> str:
    """Create a system container, and wait until it is up."""
    fleet.create(name, command=())
    fleet.ok("wait", name, "--for", "healthy")
    return name


@pytest.mark.parametrize("options", [(), ("--privileged",)], ids=["unprivileged", "privileged"])
def test_a_clone_does_not_see_the_hosts_secrets(fleet: Fleet, secrets: list[Path], options: tuple[str, ...]) -> None:
    name = fleet.name("a")
    fleet.create(name, options=options)
    seen = fleet.inside(name, f"ls -d {' '.join(map(str, secrets))} 2>/dev/null || :")
    assert seen == ""
    assert fleet.inside(name, "ls -A /root /home /srv /mnt /media /boot /var/tmp | grep -v ':$' | grep . || :") == ""
    assert fleet.inside(name, "ls /etc/hostname /etc/fstab /etc/ssh/ssh_host_* 2>/dev/null || :") in ("", "/etc/fstab")
    assert fleet.inside(name, "cat /etc/machine-id 2>/dev/null || :") != Path("/etc/machine-id").read_text().strip()
    assert fleet.inside(name, "grep -v '^#' /etc/fstab || :") == ""
    assert fleet.inside(name, "hostname") == name
    shadow = [line.split(":") for line in fleet.inside(name, "cat /etc/shadow").splitlines()]
    assert {fields[1] for fields in shadow} <= {"*", "!", "!*"}
    accounts = [line.split(":")[0] for line in Path("/etc/shadow").read_text().splitlines()]
    assert [fields[0] for fields in shadow] == accounts


def test_a_clone_can_not_read_private_files_of_the_host(fleet: Fleet) -> None:
    """The sweep promises this. The test looks from inside: no private file of the host has its content there."""
    name = fleet.name("a")
    fleet.create(name)
    script = "find / -xdev -type f ! -perm -o=r -size +0 -print 2>/dev/null || :"
    for path in fleet.inside(name, script).splitlines():
        host = Path(path)
        if host.is_file() and not OTHERS_ETC.match(path):
            assert fleet.ok("exec", name, "--", "cat", path) != host.read_text(errors="surrogateescape"), path


def test_a_clone_has_the_packages_of_the_host(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    count = fleet.inside(name, "dpkg-query -W | wc -l")
    host = subprocess.run(["dpkg-query", "-W"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert int(count) == len(host)
    assert fleet.inside(name, "cat /etc/os-release") == Path("/etc/os-release").read_text().strip()


def test_a_system_container_runs_only_allowed_services(fleet: Fleet, host_service: str) -> None:
    name = system(fleet, fleet.name("a"))
    assert fleet.ok("exec", name, "--", "systemctl", "is-system-running").strip() == "running"
    units = fleet.inside(name, "systemctl list-units --all --plain --no-legend --type=service").splitlines()
    services = {line.split()[0] for line in units if line.split()[3] == "running"}
    allowed = ("systemd-", "dbus", "console-getty", "container-getty@", "user@", "getty@")
    assert all(service.startswith(allowed) for service in services), services
    assert fleet.run("exec", name, "--", "systemctl", "start", host_service).status != 0
    shown = fleet.inside(name, "systemctl list-unit-files --no-legend 'lxcfleet*' 'cron*' 'ssh*' 'postgresql*' || :")
    assert all(line.split()[1] == "static" for line in shown.splitlines()), "nothing is enabled, or can be"
    assert fleet.inside(name, "systemctl --failed --no-legend") == ""
    assert int(fleet.record(name)["delta_bytes"]) < 800 << 10


def test_a_system_container_keeps_itself_in_order(fleet: Fleet) -> None:
    """Its journal outlives a restart. It cleans up, but not at boot, as a hundred of them would at once."""
    name = system(fleet, fleet.name("a"))
    fleet.inside(name, "logger before the restart && journalctl --sync")
    fleet.ok("restart", name, "-q")
    fleet.ok("wait", name, "--for", "healthy", "-q")
    assert "before the restart" in fleet.inside(name, "journalctl -b -1 -q -o cat")
    assert "systemd-tmpfiles-clean.timer" in fleet.inside(name, "systemctl list-timers --no-legend")
    assert fleet.inside(name, "systemctl show -P ActiveEnterTimestamp systemd-tmpfiles-clean.service") == ""
    assert fleet.inside(name, "systemctl show -P DefaultTasksMax") == "infinity"


def test_a_service_in_the_delta_starts(fleet: Fleet) -> None:
    name = system(fleet, fleet.name("a"))
    unit = "[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n"
    fleet.inside(name, f"printf '{unit}' >/etc/systemd/system/own.service && systemctl enable own.service")
    assert fleet.run("exec", name, "--", "systemctl", "is-active", "own").status != 0
    fleet.ok("restart", name)
    fleet.ok("wait", name, "--for", "healthy")
    assert fleet.inside(name, "systemctl is-active own") == "active"
    assert not Path("/etc/systemd/system/own.service").exists()


def test_a_packages_unit_in_the_delta_starts(fleet: Fleet) -> None:
    """A package installs its unit below /usr/lib and enables it by a link."""
    name = system(fleet, fleet.name("a"))
    unit = "[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n"
    fleet.inside(name, f"printf '{unit}' >/usr/lib/systemd/system/cron.service && systemctl enable --now cron.service")
    assert fleet.inside(name, "systemctl is-active cron") == "active"
    fleet.ok("restart", name)
    fleet.ok("wait", name, "--for", "healthy")
    assert fleet.inside(name, "systemctl is-active cron") == "active"


@pytest.mark.parametrize("how", ["systemctl poweroff", "poweroff", "halt", "shutdown -h now", "kill -s RTMIN+4 1"])
def test_poweroff_from_inside_stops_the_container(fleet: Fleet, how: str) -> None:
    name = system(fleet, fleet.name("a"))
    fleet.run("exec", name, "--", "sh", "-c", how)
    fleet.ok("wait", name, "--for", "stopped")
    time.sleep(0.3)
    assert fleet.state(name) == "stopped"
    assert fleet.half_done() == []


def test_stop_is_a_clean_shutdown(fleet: Fleet) -> None:
    name = system(fleet, fleet.name("a"))
    unit = "[Service]\\nExecStart=/bin/sleep infinity\\nExecStop=/bin/sh -c \"date >/var/lib/ended\"\\n"
    fleet.inside(name, f"printf '{unit}' >/etc/systemd/system/own.service; systemctl start own")
    fleet.ok("stop", name)
    assert (fleet.delta(name) / "var/lib/ended").exists()


def test_twenty_system_containers_boot_at_once(fleet: Fleet) -> None:
    fleet.ok("create", fleet.name("s"), "-n", "20")
    fleet.ok("wait", "--all", "--for", "healthy", "--timeout", "300", timeout=300 * PATIENCE)
    assert list(fleet.states().values()) == ["running"] * 20
    ids = fleet.ok("exec", "--all", "--", "cat", "/etc/machine-id").splitlines()
    assert len({line.split()[1] for line in ids}) == 20


def test_an_operators_rule_takes_effect(fleet: Fleet) -> None:
    shown = Path(f"/srv/{MARK}-shown")
    rules = fleet.paths.mask_rules / "mine.yaml"
    rules.parent.mkdir(parents=True, exist_ok=True)
    shown.write_text("for all\n")
    name = fleet.name("a")
    try:
        rules.write_text(f"show: [{shown}]\nhide: [/usr/bin/yes]\nreplace: {{/etc/motd: hello}}\n")
        fleet.create(name)
        assert fleet.inside(name, f"cat {shown} /etc/motd; ls /usr/bin/yes 2>/dev/null || :") == "for all\nhello"
        rules.unlink()
        fleet.ok("restart", name)
        assert fleet.inside(name, f"ls {shown} 2>/dev/null; ls /usr/bin/yes") == "/usr/bin/yes"
    finally:
        shown.unlink()
        rules.unlink(missing_ok=True)


def test_with_a_wrong_rule_no_container_starts_and_none_is_stopped(fleet: Fleet) -> None:
    one, two = fleet.name("a"), fleet.name("b")
    fleet.create(one)
    rules = fleet.paths.mask_rules / "wrong.yaml"
    rules.parent.mkdir(parents=True, exist_ok=True)
    rules.write_text("hide: [relative]\nnonsense: 1\n")
    try:
        refused = fleet.run("create", two, "--", "sleep", "infinity")
        assert refused.status in (1, 2)
        assert "wrong.yaml" in refused.err
        assert fleet.states() == {one: "running"}
    finally:
        os.unlink(rules)
    fleet.create(two)
