"""The Debian package on a Debian host as installed: install, use, reboot, upgrade, remove.

Each suite is booted once; each test goes on with what the tests before it left.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .guest import Guest
from .image import SUITES
from .product import DEB, HERE, INSTALL, INSTALL_ALL, LONG, SLEEP, data, fleet, pids, states, until

COUNT = int(os.environ.get("LXCFLEET_VM_COUNT", "20"))
"""So many app containers, and so many system containers; 4 at least."""
APPS = [f"app{number}" for number in range(1, COUNT + 1)]
SYSTEMS = [f"sys{number}" for number in range(1, COUNT + 1)]


@pytest.fixture(scope="module", params=SUITES)
def guest(request: pytest.FixtureRequest, package: Path) -> Iterator[Guest]:
    """A host without any package that lxcfleet needs."""
    with Guest.boot(request.param, packages=()) as booted:
        booted.push(package, HERE)
        yield booted


def active(guest: Guest, *units: str) -> list[str]:
    return guest.run(["systemctl", "is-active", *units], check=False).stdout.split()


def test_the_package_installs_and_starts_its_units(guest: Guest) -> None:
    # One suite's host gets the recommended packages as well, the other only the required ones.
    install = INSTALL_ALL if guest.suite == "bookworm" else INSTALL
    said = guest.run(f"apt-get -qq update && {install} {HERE}/{DEB} 2>&1", timeout=LONG).stdout
    assert "ids for unprivileged containers" in said
    assert "lxcfleet: " not in said  # no complaint
    assert active(guest, "lxcfleet.socket", "lxcfleet.service", "lxcfleet-containers.service") == ["active"] * 3
    assert guest.run("systemctl is-enabled lxcfleet.socket lxcfleet.service").stdout.split() == ["enabled"] * 2
    assert guest.run("systemctl is-system-running", check=False).stdout == "running\n"
    assert guest.run("getent group lxcfleet; stat -c %G:%a /run/lxcfleet/lxcfleet.sock").stdout.split()[-1] == "lxcfleet:660"


def test_the_units_of_the_package_are_valid(guest: Guest) -> None:
    units = "lxcfleet.socket lxcfleet.service lxcfleet-containers.service lxcfleet-run@web.service"
    units += " lxcfleet-export.service lxcfleet-export.timer"
    said = guest.run(f"systemd-analyze verify --man=no {units} 2>&1")
    assert "lxcfleet" not in said.stdout


def test_doctor_finds_no_failure(guest: Guest) -> None:
    assert "FAIL" not in fleet(guest, "doctor", "-n", str(COUNT))


def test_man_pages_and_completion_are_installed(guest: Guest) -> None:
    for page in ("man1/lxcfleet.1", "man5/lxcfleet.yaml.5", "man8/lxcfleetd.8"):
        assert guest.run(f"zcat /usr/share/man/{page}.gz").stdout.startswith(".TH ")
    script = (
        ". /usr/share/bash-completion/completions/lxcfleet;"
        "COMP_LINE='lxcfleet rest'; COMP_WORDS=($COMP_LINE); COMP_CWORD=1;"
        "_lxcfleet_completion lxcfleet; echo ${COMPREPLY[@]}"
    )
    assert guest.run(["bash", "-c", script]).stdout == "restart restore-check\n"


def test_many_app_containers_run(guest: Guest) -> None:
    fleet(guest, "create", "app", "-n", str(COUNT), "-l", "kind=app", *SLEEP)
    assert states(guest) == dict.fromkeys(APPS, "running")


def test_many_system_containers_run(guest: Guest) -> None:
    fleet(guest, "create", "sys", "-n", str(COUNT), "-l", "kind=system")
    fleet(guest, "wait", "-l", "kind=system", "--for", "healthy", "--timeout", f"{LONG:g}")
    assert states(guest) == dict.fromkeys([*APPS, *SYSTEMS], "running")
    assert fleet(guest, "exec", "sys3", "--", "systemctl", "is-system-running") == "running\n"


def test_the_fleet_is_in_its_slice(guest: Guest) -> None:
    shown = guest.run("systemctl status --no-pager --lines 0 lxcfleet.slice").stdout
    assert all(f"lxc.payload.{name}" in shown for name in (*APPS, *SYSTEMS))
    assert "lxc.payload" not in guest.run("ls /sys/fs/cgroup").stdout
    assert data(guest, "info", "sys1")["memory_bytes"] > 1 << 20
    guest.run("systemctl daemon-reload")
    assert data(guest, "info", "app1")["processes"] == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("list -q 'app*' -l kind=app", "app1"),
        ("list -f csv", "name,"),
        ("exec app1 app2 -- cat /proc/1/comm", "app2"),
        ("exec sys1 -- cat /proc/1/comm", "systemd"),
        ("exec -t sys1 -- tty", "/dev/pts/"),
        ("freeze app3", "frozen"),
        ("unfreeze app3", "unfrozen"),
        ("stop app4 sys4", "stopped"),
        ("start app4 sys4", "started"),
        ("restart app4 sys4", "restarted"),
        ("wait app4 sys4 --for running", "app4"),
        # While a systemd boots, processes come all the time, and of all of them nothing can be proven.
        (f"wait sys4 --for healthy --timeout {LONG:g}", "sys4"),
        ("logs sys1 -n 5", ""),
        ("logs app1 --lxc", ""),
        ("info sys1 -f yaml", "name: sys1"),
        ("events", "created"),
        ("config check", ""),
        ("config show", "stop_timeout"),
        ("destroy app4 --dry-run --force", "app4"),
        ("create --ensure app -n 4 -- sleep infinity", "unchanged"),
        ("stale", ""),
        ("verify", ""),
        ("patch status", ""),
        ("patch apply --dry-run", ""),
        ("rollout status", ""),
        ("doctor -f json", "findings"),
        ("shell app1 <<<hostname", "app1"),
        ("audit shadow app2", "no shadows"),
        ("restart app1 app2 --rolling --min-healthy-time 100 --no-wait && lxcfleet rollout pause &&"
         "lxcfleet rollout resume --no-wait && lxcfleet rollout abort && "
         "lxcfleet wait --all --for running --timeout 600", "aborted"),
        ("patch notify", "packages changed"),
    ],
)
def test_verbs_succeed(guest: Guest, line: str, expected: str) -> None:
    done = guest.run(f"lxcfleet {line}", timeout=LONG)
    assert expected in done.stdout + done.stderr


def test_containers_outlive_the_daemon(guest: Guest) -> None:
    before = pids(guest)
    assert len(before) == 2 * COUNT
    guest.run("systemctl stop lxcfleet.service")
    guest.run("systemctl start lxcfleet.service")
    assert pids(guest) == before


def test_a_daemon_that_hangs_is_replaced(guest: Guest) -> None:
    before = pids(guest)
    guest.run(
        "mkdir -p /run/systemd/system/lxcfleet.service.d && cd /run/systemd/system/lxcfleet.service.d &&"
        "printf '[Service]\\nWatchdogSec=15\\nTimeoutAbortSec=2\\n' >quick.conf && systemctl daemon-reload &&"
        "systemctl restart lxcfleet.service"
    )
    main = "systemctl show -p MainPID --value lxcfleet.service"
    hung = guest.run(f"pid=$({main}); kill -STOP $pid; echo $pid").stdout
    until(lambda: guest.run(main).stdout not in (hung, "0\n"), 600, "the watchdog replaces the daemon")
    guest.run("rm -r /run/systemd/system/lxcfleet.service.d; systemctl daemon-reload; systemctl restart lxcfleet.service")
    assert pids(guest) == before


def test_an_upgrade_keeps_the_fleet_running_and_the_settings(guest: Guest) -> None:
    before = pids(guest)
    guest.run("echo 'stop_timeout: 11' >>/etc/lxcfleet/lxcfleet.yaml")
    guest.run(
        f"cd {HERE} && rm -rf new && dpkg-deb -R {DEB} new && sed -i 's/^Version: .*/&+new/' new/DEBIAN/control &&"
        "dpkg-deb -b new new.deb"
    )
    said = guest.run(f"{INSTALL} {HERE}/new.deb 2>&1", timeout=LONG).stdout
    assert "lxcfleet: " not in said
    assert guest.run("dpkg-query -W -f '${Version}' lxcfleet").stdout.endswith("+new")
    assert "stop_timeout: 11" in fleet(guest, "config", "show")
    assert pids(guest) == before


def test_containers_that_ran_come_back_after_a_reboot(guest: Guest) -> None:
    fleet(guest, "create", "never", "--no-autostart", *SLEEP)
    fewer = [*APPS[8:], *SYSTEMS[4:]]
    if fewer:
        fleet(guest, "destroy", "--force", *fewer)
    fleet(guest, "create", "last", "--boot-order", "10", *SLEEP)
    fleet(guest, "stop", "app4", "sys4")
    expected = {name: "running" for name in (*APPS[:8], *SYSTEMS[:4], "last")}
    expected |= dict.fromkeys(("app4", "sys4", "never"), "stopped")
    guest.reboot()
    until(lambda: states(guest) == expected, LONG, "all containers that ran run again")
    journal = guest.run("journalctl --no-pager -b -1 -u lxcfleet-containers.service").stdout
    assert "Deactivated successfully" in journal

    def started() -> list[str]:
        return [line.split()[2] for line in fleet(guest, "events").splitlines() if line.split()[1] == "started"]

    until(lambda: "last" in started(), LONG, "its start is told, a moment after it runs")
    assert started()[-1] == "last"
    assert data(guest, "info", "sys1")["memory_bytes"] > 1 << 20


def test_containers_that_ran_come_back_after_a_power_failure(guest: Guest) -> None:
    expected = states(guest)
    run = {name for name, state in expected.items() if state == "running"}

    def noted() -> set[str]:
        """What a daemon starts after a boot: it notes each second what runs, and has that on the disk."""
        return {*json.loads(guest.run("cat /var/lib/lxc/.lxcfleet-running").stdout)["running"]}

    until(lambda: noted() == run, LONG, "what runs is noted")
    guest.reboot(hard=True)
    until(lambda: states(guest) == expected, LONG, "all containers that ran run again")


def test_a_host_with_services_and_secrets_exposes_nothing(guest: Guest) -> None:
    guest.run(f"{INSTALL} nginx-light postgresql 2>&1", timeout=LONG)
    guest.run("(umask 077; openssl genpkey -algorithm ED25519 -out /etc/nginx/server.key)")
    guest.run("echo '0 3 * * * backup --password secret' | crontab -")
    fleet(guest, "restart", "app1", "sys1")
    fleet(guest, "wait", "app1", "sys1", "--for", "healthy", "--timeout", f"{LONG:g}")
    audit = json.loads(fleet(guest, "audit", "exposure", "-f", "json", "app1", "sys1"))
    assert [each["exposed"] for each in audit] == [[], []]
    private = (
        "/etc/nginx/server.key", "/etc/ssh/ssh_host_ed25519_key", "/var/spool/cron/crontabs/root",
        *guest.run("ls /etc/postgresql/*/main/pg_hba.conf /var/lib/postgresql/*/main/PG_VERSION").stdout.split(),
    )  # fmt: skip
    for path in private:
        assert guest.run(["test", "-e", path], check=False).returncode == 0, path
        assert guest.run(["lxcfleet", "exec", "app1", "sys1", "--", "cat", path], check=False).stdout == "", path
    # sys1 has the programs of the host's nginx and PostgreSQL, and runs neither.
    active = guest.run("lxcfleet exec sys1 -- systemctl is-active nginx.service postgresql.service", check=False).stdout
    assert "inactive" in active
    assert "active" not in active.replace("inactive", "")
    assert fleet(guest, "exec", "sys1", "--", "systemctl", "is-system-running") == "running\n"


def test_remove_and_purge_leave_the_containers(guest: Guest) -> None:
    before = pids(guest)
    fleet(guest, "exec", "app1", "--", "sh", "-c", "echo kept >/etc/kept")
    fleet(guest, "volume", "create", "kept")
    guest.run("echo kept >/var/lib/lxcfleet/volumes/kept/data/file")
    said = guest.run("apt-get -o Dpkg::Use-Pty=0 remove --yes lxcfleet 2>&1", timeout=LONG).stdout
    assert "containers stay in /var/lib/lxc" in said
    assert guest.run("test -e /etc/lxcfleet/lxcfleet.yaml && lxc-info -sHn app1").stdout == "RUNNING\n"
    said = guest.run("apt-get -o Dpkg::Use-Pty=0 purge --yes lxcfleet 2>&1", timeout=LONG).stdout
    assert "with all that they have written" in said
    assert "1 volumes with all files on them" in said
    assert guest.run("cat /var/lib/lxcfleet/volumes/kept/data/file").stdout == "kept\n"
    assert "their bridge" in said
    left = guest.run("ls /etc/lxcfleet /etc/sysctl.d/60-lxcfleet.conf /usr/bin/lxcfleet", check=False).stdout
    assert left == ""
    assert guest.run("cat /var/lib/lxc/app1/delta/etc/kept").stdout == "kept\n"
    assert all(guest.run(f"kill -0 {pid}", check=False).returncode == 0 for pid in before.values())
    guest.run(f"{INSTALL} {HERE}/{DEB} 2>&1", timeout=LONG)
    assert pids(guest) == before


def test_unsuited_hosts_do_not_break_apt(guest: Guest) -> None:
    """One host has a mount where containers can't have one; another has no free ids."""
    again = f"{INSTALL} --reinstall {HERE}/{DEB} 2>&1"
    guest.run("mount --bind /var/lib/dpkg /var/lib/dpkg")
    said = guest.run(again, timeout=LONG).stdout
    assert "lxcfleet: /var/lib/dpkg (ext4) is not on the root file system" in said
    assert "lxcfleet doctor" in said
    doctor = guest.run("lxcfleet doctor", check=False)
    assert doctor.returncode == 4
    assert "/var/lib/dpkg" in doctor.stdout
    refused = guest.run("lxcfleet create refused -- true", check=False)
    assert refused.returncode == 1
    assert "/var/lib/dpkg" in refused.stderr
    # Whoever looks at the packages at this moment, as the daemon does after a change, is in the way.
    until(lambda: guest.run("umount /var/lib/dpkg", check=False).returncode == 0, LONG, "nobody looks at the packages")
    guest.run("for file in subuid subgid; do cp /etc/$file /root/; echo somebody:65536:4294800000 >/etc/$file; done")
    said = guest.run(again, timeout=LONG).stdout
    assert "not ready" in said
    guest.run("cp /root/subuid /root/subgid /etc/")
    assert guest.run("dpkg --audit").stdout == ""


def test_dpkg_installs_the_package_inside_a_container(guest: Guest) -> None:
    guest.run(f"cp {HERE}/{DEB} /var/lib/lxc/sys1/delta/root.deb")
    said = guest.run(
        ["lxcfleet", "exec", "sys1", "--", "sh", "-c", "dpkg --force-confnew --install /root.deb 2>&1"], timeout=LONG
    ).stdout
    assert "not ready" in said
    assert guest.run(["lxcfleet", "exec", "sys1", "--", "dpkg", "--audit"]).stdout == ""


def test_needrestart_leaves_containers_to_lxcfleet(guest: Guest) -> None:
    guest.run(f"{INSTALL} needrestart 2>&1", timeout=LONG)
    ask = "print needrestart_cont_check(0, shift, 'x'), ' ', join(',', needrestart_cont_get(0))"
    for name in ("sys1", "app1"):
        pid = str(data(guest, "info", name)["pid"])
        assert guest.run(["perl", "-MNeedRestart", "-e", ask, pid]).stdout == "1 "
    assert guest.run(["perl", "-MNeedRestart", "-e", ask, "1"]).stdout == "0 "
    guest.run("apt-get -o Dpkg::Use-Pty=0 purge --yes needrestart 2>&1", timeout=LONG)


def test_nothing_is_left_of_a_fleet(guest: Guest) -> None:
    """The daemon may still be dealing with the patch of the test before, for which it looks at what containers have."""
    fleet(guest, "destroy", "--all", "--force", "-q")

    def left() -> str:
        return guest.run(
            "grep lxcfleet /proc/self/mountinfo; losetup --list --noheadings; ls -A /var/lib/lxc;"
            "find /sys/fs/cgroup -name 'lxc.payload*' -o -name 'lxc.monitor*'; ip -o link | grep -E 'lxcfleet|lf0';"
            "nft list tables | grep lxcfleet", check=False,
        ).stdout  # fmt: skip

    until(lambda: left() == "", LONG, "nothing is left")
