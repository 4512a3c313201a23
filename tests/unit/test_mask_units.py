"""Which of systemd's units a clone sees: the plan over small trees."""

import os
from pathlib import Path

import pytest

from lxcfleet.base.mask import units
from lxcfleet.host.kernel.entries import Copy, File, Owner, Symlink

from .mask_tree import SYSTEM, hides, opaque, plan, put, small_host


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return small_host(tmp_path / "host")


@pytest.fixture
def with_units(base: Path) -> Path:
    for name in ("dbus", "systemd-journald", "postgresql", "ssh", "getty@"):
        put(base, f"{SYSTEM}/{name}.service", f"# {name}")
    put(base, f"{SYSTEM}/basic.target")
    put(base, f"{SYSTEM}/dbus.socket")
    put(base, "etc/systemd/system/local.service")
    put(base, "etc/systemd/journald.conf", "Storage=none")
    (base / "etc/systemd/system/multi-user.target.wants").mkdir()
    (base / "etc/systemd/system/multi-user.target.wants/ssh.service").symlink_to(
        "/lib/systemd/system/ssh.service"
    )
    (base / "etc/systemd/system/sshd.service").symlink_to("/lib/systemd/system/ssh.service")
    put(base, f"{SYSTEM}/ssh.service.d/limits.conf")
    put(base, "etc/systemd/system/ssh.service.d/local.conf")
    return base


def test_only_allow_listed_units_are_left(with_units: Path) -> None:
    entries = plan(with_units)
    left = {path.rpartition("/")[2] for path in entries if path.startswith(f"/{SYSTEM}/") and path.count("/") == 5}
    assert {
        "basic.target",
        "dbus.service",
        "dbus.socket",
        "systemd-journald.service",
        "getty@.service",
    } <= left
    assert not {"postgresql.service", "ssh.service", "local.service"} & left
    assert opaque(entries[f"/{SYSTEM}"])
    assert opaque(entries["/etc/systemd"])
    assert hides(with_units, entries, "/etc/systemd/system/multi-user.target.wants")
    assert not hides(with_units, entries, "/etc/systemd/system")


def test_each_other_service_that_could_be_enabled_says_how_a_container_gets_it(with_units: Path) -> None:
    install = "[Service]\nExecStart=/usr/bin/x\n[Install]\nWantedBy=multi-user.target\n"
    for name in ("old.service", "ssh.service", "app@.service", "static.socket", "systemd-own.service"):
        put(with_units, f"{SYSTEM}/{name}", install)
    (with_units / SYSTEM / "alias.service").symlink_to("old.service")
    (with_units / SYSTEM / "hwclock.service").symlink_to("/dev/null")
    entries = plan(with_units, units=("ssh.service",))
    entry = entries[f"/{SYSTEM}/old.service"]
    assert [path.rpartition("/")[2] for path in entries if entries[path] == entry] == ["app@.service", "old.service"]
    assert isinstance(entry, File)
    assert b"--unit %n" in entry.content
    assert hides(with_units, entries, f"/{SYSTEM}/postgresql.service"), "nobody would enable it"


def test_units_are_copies_and_boot_ends_at_multi_user(with_units: Path) -> None:
    entries = plan(with_units)
    path = f"/{SYSTEM}/dbus.service"
    assert entries[path] == Copy(path, Owner(0o644, os.getuid(), os.getgid()), "allow-listed")
    assert entries[f"/{SYSTEM}/default.target"] == Symlink("multi-user.target", "allow-listed")
    wanted = {p for p in entries if ".wants/" in p}
    assert wanted == {
        f"/{SYSTEM}/sysinit.target.wants/systemd-journald.service",
        f"/{SYSTEM}/sockets.target.wants/dbus.socket",
    }


def test_the_hosts_settings_of_systemd_are_not_the_clones(with_units: Path) -> None:
    entry = plan(with_units)["/etc/systemd/journald.conf"]
    assert isinstance(entry, File)
    assert b"Storage=none" not in entry.content


def test_the_journal_outlives_a_restart_within_a_size(with_units: Path) -> None:
    put(with_units, f"{SYSTEM}/systemd-journal-flush.service")
    entries = plan(with_units)
    assert f"/{SYSTEM}/sysinit.target.wants/systemd-journal-flush.service" in entries
    entry = entries["/etc/systemd/journald.conf"]
    assert isinstance(entry, File)
    settings = dict(line.split("=") for line in entry.content.decode().splitlines()[1:])
    assert settings["Storage"] == "persistent"
    assert settings["SystemMaxUse"] == "10M"
    assert settings["ForwardToConsole"] == "yes", "the host's log gets it by way of the console"


def test_maintenance_of_the_host_runs_in_clones_and_not_all_at_once(with_units: Path) -> None:
    for name in ("logrotate.timer", "logrotate.service", "apt-daily.timer"):
        put(with_units, f"{SYSTEM}/{name}")
    put(with_units, "etc/systemd/system/logrotate.timer.d/hourly.conf", "[Timer]\nOnCalendar=hourly\n")
    entries = plan(with_units)
    assert isinstance(entries[f"/{SYSTEM}/logrotate.service"], Copy)
    assert entries[f"/{SYSTEM}/timers.target.wants/logrotate.timer"] == Symlink("../logrotate.timer", "allow-listed")
    spread = entries[f"/{SYSTEM}/logrotate.timer.d/10-lxcfleet.conf"]
    assert isinstance(spread, File)
    assert b"FixedRandomDelay=yes" in spread.content
    assert hides(with_units, entries, f"/{SYSTEM}/apt-daily.timer")
    assert hides(with_units, entries, "/etc/systemd/system/logrotate.timer.d/hourly.conf"), "the host's own"
    lacking = [path for path in entries if "phpsessionclean" in path or "tmpfiles-clean" in path]
    assert lacking == [], "the host has none"


def test_a_service_may_have_as_many_tasks_as_its_container(with_units: Path) -> None:
    entries = plan(with_units)
    for path in ("/etc/systemd/system.conf", f"/{SYSTEM}/user-.slice.d/10-lxcfleet.conf"):
        entry = entries[path]
        assert isinstance(entry, File)
        assert b"TasksMax=infinity" in entry.content


def test_an_allow_listed_name_that_leads_elsewhere_is_not_followed(with_units: Path) -> None:
    (with_units / SYSTEM / "dbus.service").unlink()
    (with_units / SYSTEM / "dbus.service").symlink_to("postgresql.service")
    assert hides(with_units, plan(with_units), f"/{SYSTEM}/dbus.service")


def test_a_unit_of_the_operators_list_comes_with_all_that_belongs_to_it(with_units: Path) -> None:
    put(
        with_units,
        "usr/share/dbus-1/system-services/org.example.Ssh.service",
        "[D-BUS Service]\nExec=/bin/false\nSystemdService=sshd.service\n",
    )
    entries = plan(with_units, units=("ssh.service",))
    etc = "/etc/systemd/system"
    for path, kind in {
        f"/{SYSTEM}/ssh.service": Copy,
        f"/{SYSTEM}/ssh.service.d/limits.conf": Copy,
        f"{etc}/ssh.service.d/local.conf": Copy,
        f"{etc}/sshd.service": Symlink,
        f"{etc}/multi-user.target.wants/ssh.service": Symlink,
        "/usr/share/dbus-1/system-services/org.example.Ssh.service": Copy,
    }.items():
        assert isinstance(entries[path], kind), path
    assert hides(with_units, entries, f"/{SYSTEM}/postgresql.service")


def test_an_instance_brings_its_template(with_units: Path) -> None:
    wants = with_units / "etc/systemd/system/getty.target.wants"
    wants.mkdir()
    (wants / "getty@tty1.service").symlink_to("/lib/systemd/system/getty@.service")
    entries = plan(with_units, units=("getty@tty1.service",))
    assert isinstance(entries["/etc/systemd/system/getty.target.wants/getty@tty1.service"], Symlink)


def test_no_service_is_wanted_that_is_not_allowed() -> None:
    allowed = units.allowed()
    wanted = {name for names in units._WANTS.values() for name in names.split()}
    assert wanted <= allowed
    assert not {name for name in allowed if name.startswith(("ssh", "cron", "apt", "lxc", "postgres"))}


def test_the_plan_is_the_same_each_time_and_in_order(with_units: Path) -> None:
    put(with_units, "etc/key", mode=0o600)
    first, second = plan(with_units), plan(with_units)
    assert list(first.items()) == list(second.items())
    assert list(first) == sorted(first)
