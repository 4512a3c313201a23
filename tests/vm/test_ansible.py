"""Two hosts, one Debian 12 and one Debian 13, run as a fleet by Ansible on this machine, over ssh.

Both hosts are booted once; each test goes on with what the tests before it left. Hosts are named by their suites, which are
hosts in ssh's configuration.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.programs import Programs, Ran, copy_collection
from system.debs import Package

from .guest import Guest
from .image import SUITES
from .product import DEB, LONG, fleet, pids, states, until

FIRST, SECOND = SUITES
COUNT = 4
"""App containers on each host; a hundred take too long on an emulated CPU."""
WEB = [f"web{number}" for number in range(1, COUNT + 1)]
ARCHIVE = "/srv/archive"
PACKAGE = "lxcfleet-vm-library"
FOREVER = f"import ctypes, time; ctypes.CDLL('/usr/lib/{PACKAGE}/libpatched.so.1'); time.sleep(1e9)"
"""A program that maps a library of the host's."""
SETTINGS = {"rollout": {"min_healthy_time": 1, "healthy_deadline": 60}}

MAPPED = textwrap.dedent("""
    import glob, os, re
    for process in glob.glob("/proc/[0-9]*"):
        try:
            name = re.search(r"lxc[.]payload[.]([^/\\s]+)", open(process + "/cgroup").read())
            files = glob.glob(process + "/map_files/*") if name else []
            found = [file for file in files if os.readlink(file).endswith("/libpatched.so.1")]
            if found:
                print(name[1], open(found[0], "rb").read().split()[-1].decode())
        except OSError:
            pass
""")
"""Which version of the library the processes of containers have mapped, by the mapped files' own last words."""


class Control(Programs):
    """The control node: this machine, with both hosts in its inventory."""

    def __init__(self, directory: Path, collections: Path, guests: list[Guest]) -> None:
        super().__init__(directory, collections, timeout=1800)
        (directory / "ssh.conf").write_text("\n".join(_stanza(guest) for guest in guests))
        programs = directory / "programs"
        programs.mkdir()
        # ssh does not look for an operator's configuration below HOME, so it is told where this one is.
        (programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {directory}/ssh.conf "$@"\n')
        (programs / "ssh").chmod(0o755)
        self.path.append(programs)
        (directory / "hosts").write_text("\n".join(["[fleet_hosts]", *SUITES]))
        keyed = [{"key": "lxcfleet_labels", "prefix": "label"}]
        plugin = {"plugin": "lxcfleet.fleet.containers", "hosts": list(SUITES), "keyed_groups": keyed}
        (directory / "lxcfleet.yml").write_text(json.dumps(plugin))

    def environment(self) -> dict[str, str]:
        """Ansible's environment, with pipelining: fewer round trips."""
        return {**super().environment(), "ANSIBLE_PIPELINING": "1"}

    def hosts(self, *tasks: dict[str, Any], options: tuple[str, ...] = (), **more: Any) -> Ran:
        """Run tasks, or other parts of a play, on both hosts. Ansible must succeed."""
        return good(self.play(*tasks, hosts="fleet_hosts", options=("-i", "hosts", *options), **more))

    def containers(self, *tasks: dict[str, Any], hosts: str = "lxcfleet") -> Ran:
        """Run tasks in containers. Ansible must succeed."""
        return good(self.play(*tasks, hosts=hosts, options=("-i", "lxcfleet.yml")))

    def playbook(self, name: str, *options: str, **variables: Any) -> Ran:
        """Run one of the collection's playbooks on both hosts. It may fail."""
        return self.run("ansible-playbook", f"lxcfleet.fleet.{name}", "-i", "hosts", "-e", json.dumps(variables), *options)


def _stanza(guest: Guest) -> str:
    """A host of ssh's configuration with the options of the guest's ssh command line."""
    command = guest.ssh_command()
    given = dict(zip(command[1:-1:2], command[2:-1:2], strict=True))
    lines = [f"Host {guest.suite}", "HostName 127.0.0.1", "User root", f"Port {given['-p']}", f"IdentityFile {given['-i']}"]
    lines += ["IdentitiesOnly yes", "StrictHostKeyChecking no", "UserKnownHostsFile /dev/null", "LogLevel ERROR"]
    return "\n    ".join(lines)


def good(ran: Ran) -> Ran:
    """The same run; fails the test if Ansible failed."""
    assert ran.status == 0, f"{ran.out}\n{ran.err}"
    return ran


def changed(ran: Ran) -> dict[str, int]:
    """How many tasks changed each host."""
    return {host: counts["changed"] for host, counts in ran.stats.items()}


def each(what: Any) -> dict[str, Any]:
    """The same value for both hosts."""
    return dict.fromkeys(SUITES, what)


@pytest.fixture(scope="module")
def guests() -> Iterator[list[Guest]]:
    """Both hosts, as Debian installs them."""
    if shutil.which("ansible-playbook") is None:
        pytest.skip("needs ansible-core")
    booted = Guest.boot_all(SUITES, packages=())
    try:
        yield booted
    finally:
        for guest in booted:
            guest.close()


@pytest.fixture(scope="module")
def control(guests: list[Guest], tmp_path_factory: pytest.TempPathFactory) -> Control:
    """The control node of both hosts."""
    collections = copy_collection(tmp_path_factory.mktemp("collections"))
    return Control(tmp_path_factory.mktemp("control"), collections, guests)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package with a library."""
    return Package(PACKAGE, tmp_path_factory.mktemp("library"))


def publish(guests: list[Guest], library: Package, version: str) -> None:
    """Put a version of the package into an apt archive that both hosts have."""
    archive = library.build(version).parent / "archive"
    archive.mkdir(exist_ok=True)
    shutil.copy(library.deb(version), archive)
    index = subprocess.run(["dpkg-scanpackages", "--multiversion", "."], cwd=archive, capture_output=True, check=True).stdout
    (archive / "Packages").write_bytes(index)
    for guest in guests:
        guest.push(archive, ARCHIVE)


def installed(guest: Guest) -> str:
    return guest.run(["dpkg-query", "-W", "-f", "${Version}", PACKAGE]).stdout


def mapped(guest: Guest) -> dict[str, str]:
    """Which version of the library each container runs, without asking lxcfleet."""
    return dict(line.split() for line in guest.run("python3 -", input=MAPPED).stdout.splitlines())


def test_the_role_installs_lxcfleet(control: Control, guests: list[Guest], package: Path) -> None:
    asked = {"lxcfleet_deb": str(package / DEB), "lxcfleet_settings": SETTINGS, "lxcfleet_room": 2 * COUNT}
    play: dict[str, Any] = {"roles": [{"role": "lxcfleet.fleet.lxcfleet", "vars": asked}]}
    control.hosts(options=("--check",), **play)
    assert all(guest.run("command -v lxcfleet", check=False).returncode != 0 for guest in guests)
    assert min(changed(control.hosts(**play)).values()) > 0
    for guest in guests:
        assert guest.run("systemctl is-active lxcfleet.service lxcfleet.socket").stdout.split() == ["active"] * 2
        assert "min_healthy_time: 1.0\n" in fleet(guest, "config", "show")
    assert changed(control.hosts(**play)) == each(0)


def test_the_module_removes_containers_that_the_plain_command_made(control: Control, guests: list[Guest]) -> None:
    """`lxcfleet create -n` makes system containers."""
    gone = {"lxcfleet.fleet.containers": {"name": "c", "count": COUNT, "state": "absent"}}
    ran = control.hosts(
        {"ansible.builtin.command": f"lxcfleet create -n {COUNT}"},
        {"lxcfleet.fleet.containers_info": {}},
        {**gone, "check_mode": True},
        {"lxcfleet.fleet.containers_info": {}},
        gone,
        gone,
    )
    for host in SUITES:
        created, first, planned, second, removed, again = (task[host] for task in ran.tasks)
        assert created["rc"] == 0
        assert [container["name"] for container in first["containers"]] == [f"c{number}" for number in range(1, COUNT + 1)]
        assert {container["init"] for container in first["containers"]} == {"system"}
        assert first["states"] == second["states"] == {"running": COUNT}
        assert (planned["changed"], removed["changed"], again["changed"]) == (True, True, False)
    assert [states(guest) for guest in guests] == [{}, {}]


def test_the_playbook_makes_a_hundred_containers(control: Control, guests: list[Guest], library: Package) -> None:
    publish(guests, library, "1")
    for guest in guests:
        guest.run(f"echo 'deb [trusted=yes] file:{ARCHIVE} ./' >/etc/apt/sources.list.d/archive.list")
        guest.run(["dpkg", "--install", f"{ARCHIVE}/{library.deb('1').name}"])
    ask = {"name_prefix": "web", "count": COUNT, "command": ["python3", "-c", FOREVER], "labels": {"role": "web"}}
    assert changed(good(control.playbook("hundred", "--check", **ask))) == each(1)
    assert [states(guest) for guest in guests] == [{}, {}]
    assert changed(good(control.playbook("hundred", **ask))) == each(1)
    again = good(control.playbook("hundred", **ask))
    assert changed(again) == each(0)
    assert {host: said["states"] for host, said in again.task("Look at them").items()} == each({"running": COUNT})
    until(lambda: all(mapped(guest) == dict.fromkeys(WEB, "1") for guest in guests), LONG, "all map the library")


def test_modules_with_nothing_to_do_change_nothing(control: Control, guests: list[Guest]) -> None:
    before = [pids(guest) for guest in guests]
    ran = control.hosts(
        {"lxcfleet.fleet.patch": {}},
        {"lxcfleet.fleet.verify": {"packages": [PACKAGE]}},
        {"lxcfleet.fleet.restart": {"labels": {"role": "web"}}, "check_mode": True},
    )
    for host in SUITES:
        patch, verify, restart = (task[host] for task in ran.tasks)
        assert (patch["changed"], patch["restarted"]) == (False, [])
        assert (verify["changed"], verify["proven"]) == (False, True)
        assert sorted(verify["evidence"]["packages"]) == [PACKAGE]
        assert (restart["changed"], len(restart["containers"])) == (True, COUNT)
    assert [pids(guest) for guest in guests] == before


def test_containers_of_both_hosts_are_hosts_in_the_inventory(control: Control) -> None:
    found = json.loads(good(control.run("ansible-inventory", "-i", "lxcfleet.yml", "--list")).out)
    names = sorted(f"{name}.{host}" for host in SUITES for name in WEB)
    assert sorted(found["label_role_web"]["hosts"]) == names
    assert found[f"lxcfleet_on_{SECOND}"]["hosts"] == [f"{name}.{SECOND}" for name in WEB]
    ran = control.containers(
        {"ansible.builtin.shell": "hostname; . /etc/os-release; echo $VERSION_CODENAME"},
        {"ansible.builtin.copy": {"content": "mine\n", "dest": "/opt/mine", "mode": "0644"}},
        hosts=f"label_role_web:!{WEB[0]}.*",
    )
    said, copied = ran.tasks
    assert {name: result["stdout_lines"] for name, result in said.items()} == {
        f"{name}.{host}": [name, host] for host in SUITES for name in WEB[1:]
    }
    assert all(result["changed"] for result in copied.values())


def test_containers_have_facts(control: Control) -> None:
    ran = control.containers({"ansible.builtin.setup": {"gather_subset": ["!all", "min"]}}, hosts=f"{WEB[0]}.*")
    versions = {FIRST: "12", SECOND: "13"}
    facts = {name: result["ansible_facts"] for name, result in ran.tasks[0].items()}
    assert {name: (fact["ansible_hostname"], fact["ansible_distribution_major_version"]) for name, fact in facts.items()} == {
        f"{WEB[0]}.{host}": (WEB[0], versions[host]) for host in SUITES
    }


def patch_both(control: Control) -> Ran:
    """Run the collection's playbook, one host after the other. The inventory has the containers, too."""
    return control.playbook("patch", "-i", "lxcfleet.yml", patch_serial=1, patch_packages=[PACKAGE])


def check_only_the_first_was_touched(ran: Ran, guests: list[Guest], before: dict[str, int]) -> None:
    """Check that the play ended with the first host."""
    first, second = guests
    assert ran.status != 0
    assert ran.stats[FIRST]["failures"] == 1, ran
    assert SECOND not in ran.stats
    assert (installed(first), installed(second)) == ("2", "1")
    assert (mapped(second), pids(second)) == (dict.fromkeys(WEB, "1"), before)


def test_a_container_that_does_not_come_back_stops_the_play(control: Control, guests: list[Guest], library: Package) -> None:
    first, second = guests
    publish(guests, library, "2")
    once = f'test -e /opt/once && exit 7; touch /opt/once; exec python3 -c "{FOREVER}"'
    fleet(first, "create", "bad", "--", "sh", "-c", once)
    until(lambda: "bad" in mapped(first), LONG, "the container has mapped the library")
    before = pids(second)
    ran = patch_both(control)
    check_only_the_first_was_touched(ran, guests, before)
    said = ran.task("Restart the containers that run old code")[FIRST]["msg"]
    assert said.startswith("the rollout is halted at ")
    assert "bad" in said  # at its own gate, or at the next one's if the hook's rollout came first
    fleet(first, "rollout", "abort")
    fleet(first, "destroy", "bad", "--force")


def test_a_container_that_is_not_proven_stops_the_play(control: Control, guests: list[Guest]) -> None:
    """The container has a copy of the library, so that the fix does not reach it."""
    last = WEB[-1]
    control.containers(
        {"ansible.builtin.shell": f"echo copy >>/usr/lib/{PACKAGE}/libpatched.so.1"}, hosts=f"{last}.{FIRST}"
    )
    before = pids(guests[1])
    ran = patch_both(control)
    check_only_the_first_was_touched(ran, guests, before)
    verify = ran.task("Prove that the fix is everywhere")[FIRST]
    assert (verify["proven"], [*verify["not_proven"]]) == (False, [last])
    assert mapped(guests[0]) == {**dict.fromkeys(WEB, "2"), last: "copy"}

    ask = {"name": last, "labels": {"role": "web"}, "command": ["python3", "-c", FOREVER]}
    made = control.hosts(
        {"lxcfleet.fleet.containers": {"name": last, "state": "absent"}},
        {"lxcfleet.fleet.containers": ask},
        options=("--limit", FIRST),
    )
    assert changed(made) == {FIRST: 2}


def test_both_hosts_are_patched(control: Control, guests: list[Guest]) -> None:
    ran = good(patch_both(control))
    # Nothing is left to do on the first host. On the second, the hook may have begun before Ansible asked.
    assert changed(ran)[FIRST] == 0
    assert changed(ran)[SECOND] > 0
    assert {host: verify["proven"] for host, verify in ran.task("Prove that the fix is everywhere").items()} == each(True)
    for guest in guests:
        assert installed(guest) == "2"
        assert mapped(guest) == dict.fromkeys(WEB, "2")
        assert states(guest) == dict.fromkeys(WEB, "running")
