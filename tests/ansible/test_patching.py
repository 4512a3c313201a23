"""Patching by Ansible: only what is stale, in waves, proven; and the hosts after one that fails are not touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from system.harness import Fleet

from .conftest import Ansible

pytestmark = pytest.mark.system

SETTINGS = "alive_time: 0.2\nrollout: {min_healthy_time: 0.2, healthy_deadline: 60}\n"


@pytest.fixture(scope="module", autouse=True)
def _quick(own_fleet: Fleet) -> None:
    """Rollouts that do not wait for long."""
    own_fleet.stop_daemon()
    own_fleet.settings(own_fleet.usual + SETTINGS)
    own_fleet.start_daemon()


@pytest.fixture
def program() -> Iterator[Path]:
    """A program of the host's that can be patched."""
    directory = Path(f"/opt/lxcfleet-ansible-{os.getpid()}")
    directory.mkdir()
    try:
        install(directory / "serve")
        yield directory / "serve"
    finally:
        shutil.rmtree(directory)


def install(path: Path) -> None:
    """As dpkg does it: a new file, renamed to its place."""
    new = path.with_suffix(".dpkg-new")
    shutil.copy("/usr/bin/sleep", new)
    with new.open("ab") as file:
        file.write(os.urandom(8))  # a patch changes the content; the same bytes would be no reason for a restart
    os.rename(new, path)


def runs(fleet: Fleet) -> dict[str, int]:
    return {record["name"]: record["pid"] for record in fleet.records()}


def test_only_what_is_stale_is_restarted(ansible: Ansible, program: Path) -> None:
    fleet = ansible.fleet
    stale = [fleet.name(f"s{number}") for number in (1, 2, 3)]
    fleet.create(*stale, command=("--", str(program), "infinity"))
    fleet.create(fleet.name("other"))
    assert not ansible.task("patch")["changed"]
    install(program)
    before = runs(fleet)

    planned = ansible.task("patch", "--check", "--diff")
    assert (planned["changed"], sorted(planned["restarted"])) == (True, stale)
    assert sorted(planned["diff"]["after"]) == stale
    assert runs(fleet) == before

    done = ansible.task("patch", max_unavailable="50%")
    assert (done["changed"], sorted(done["restarted"]), done["rollout"]["status"]) == (True, stale, "done")
    after = runs(fleet)
    assert {name for name in after if after[name] != before[name]} == {*stale}
    assert not ansible.task("patch")["changed"]


def test_a_rollout_that_halts_is_a_failure(ansible: Ansible, program: Path) -> None:
    fleet = ansible.fleet
    name = fleet.name("bad")
    # It ends at once when it is started again.
    script = f"test -e /opt/once && exit 7; touch /opt/once; exec {program} infinity"
    fleet.create(name, command=("--", "sh", "-c", script))
    install(program)
    result = ansible.task("patch")
    assert result["failed"]
    assert result["msg"].startswith(f"the rollout is halted at {name}: ")
    fleet.ok("rollout", "abort")


def test_restart_in_waves(ansible: Ansible) -> None:
    fleet = ansible.fleet
    names = [fleet.name(number) for number in (1, 2)]
    fleet.create(*names)
    before = runs(fleet)
    planned = ansible.task("restart", "--check", names=[fleet.name("*")], rolling=True)
    assert (planned["changed"], sorted(planned["restarted"])) == (True, names)
    assert runs(fleet) == before
    done = ansible.task("restart", names=[fleet.name("*")], rolling=True, max_unavailable=1)
    assert (done["changed"], sorted(done["restarted"])) == (True, names)
    assert all(runs(fleet)[name] != before[name] for name in names)


def test_verify(ansible: Ansible, program: Path) -> None:
    fleet = ansible.fleet
    fleet.create(fleet.name("a"), command=("--", str(program), "infinity"))
    proof = ansible.task("verify")
    assert (proof["changed"], proof["proven"], proof["not_proven"]) == (False, True, {})
    install(program)
    proof = ansible.task("verify")
    assert (proof["failed"], proof["proven"], [*proof["not_proven"]]) == (True, False, [fleet.name("a")])
    assert proof["msg"].startswith("not proven: 1 of 1: ")


def test_the_playbook_patches_host_after_host_and_stops_at_one_that_fails(ansible: Ansible, program: Path) -> None:
    """Two names of this machine stand for two hosts."""
    fleet = ansible.fleet
    name = fleet.name("a")
    fleet.create(name, command=("--", str(program), "infinity"))
    install(program)
    hosts = ("-i", "h1,h2", "-c", "local", "-e", "ansible_python_interpreter=/usr/bin/python3", "--skip-tags", "upgrade")
    before = runs(fleet)
    ran = ansible.run("ansible-playbook", "lxcfleet.fleet.patch", "--check", *hosts)
    assert (ran.status, runs(fleet)) == (0, before), ran
    ran = ansible.run("ansible-playbook", "lxcfleet.fleet.patch", *hosts)
    assert ran.status == 0, ran
    # The one host is patched, and nothing is left for the other, which is the same.
    assert {host: counts["changed"] for host, counts in ran.stats.items()} == {"h1": 1, "h2": 0}
    assert runs(fleet) != before

    # One that does not come back after its restart halts the rollout of the first host: the second one is not touched.
    bad = fleet.name("bad")
    script = f"test -e /opt/once && exit 7; touch /opt/once; exec {program} infinity"
    fleet.create(bad, command=("--", "sh", "-c", script))
    install(program)
    ran = ansible.run("ansible-playbook", "lxcfleet.fleet.patch", *hosts)
    assert ran.status != 0
    assert ran.stats["h1"]["failures"] == 1
    assert "h2" not in ran.stats
    fleet.ok("rollout", "abort")


def test_a_host_that_is_lost_keeps_the_next_ones_from_being_touched(ansible: Ansible) -> None:
    """Also where others of its batch are well, in which case Ansible itself goes on."""
    (ansible.directory / "hosts").write_text(
        "[all:vars]\nansible_python_interpreter=/usr/bin/python3\n[all]\nh1 ansible_connection=local\n"
        "lost ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=9\nh2 ansible_connection=local\n"
    )
    serial = ("-e", '{"patch_serial": [2, 1]}', "--skip-tags", "upgrade")
    ran = ansible.run("ansible-playbook", "-i", "hosts", "lxcfleet.fleet.patch", *serial)
    assert ran.status != 0
    assert (ran.stats["lost"]["unreachable"], ran.stats["h1"]["failures"]) == (1, 0)
    assert ran.task("Go on only if no host before was lost")["h2"]["msg"].endswith(": lost")
    assert "h2" not in ran.task("Restart the containers that run old code")
