"""Patches of real packages of the host, and tools that administrators use beside.

At first unattended-upgrade puts a new OpenSSL on the host, and soon every container that used the old one runs the new one,
without another command. Later patches are the suite's own packages with a change in them. Bad patches and kernels are in
tests/system/test_stories.py, which test_system.py runs on the same kind of host. Each suite is booted once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .guest import Guest
from .image import PRODUCT_PACKAGES, SUITES
from .product import DEB, HERE, INSTALL, LONG, SLEEP, data, fleet, pids, states, until

LIBRARY = {"bookworm": "libssl3", "trixie": "libssl3t64"}
LIBLXC = {"bookworm": "liblxc1", "trixie": "liblxc1t64"}
CERTIFICATES = "/usr/share/ca-certificates/mozilla"
SETTINGS = "patch: {quiet: 5}\nrollout: {min_healthy_time: 0, max_unavailable: 50%, healthy_deadline: 1800}\n"
"""An emulated processor may take minutes to boot a container."""
USES_IT = ("--", "python3", "-c", "import ssl, time; time.sleep(1e9)")
USERS = ["tls1", "tls2"]
OTHERS = ["idle1"]
THERE = (*PRODUCT_PACKAGES, "apparmor", "python3-dnspython", "unattended-upgrades")
"""What the image has already, as this is not about the installation."""


@pytest.fixture(scope="module", params=SUITES)
def guest(request: pytest.FixtureRequest, package: Path) -> Iterator[Guest]:
    """A host with the package, and with an OpenSSL that a security update is due for."""
    with Guest.boot(request.param, packages=THERE) as booted:
        booted.push(package, HERE)
        booted.run(f"apt-get -qq update && {INSTALL} {HERE}/{DEB} 2>&1", timeout=LONG)
        booted.run(["tee", "/etc/lxcfleet/lxcfleet.yaml"], input=SETTINGS)
        booted.run("systemctl reload lxcfleet", timeout=LONG)
        _downgrade(booted, LIBRARY[booted.suite])
        yield booted


def _downgrade(guest: Guest, library: str) -> None:
    """Install the newest version but one that the archive has, which changes with time."""
    lines = guest.run(["apt-cache", "madison", library]).stdout.splitlines()
    known = list(dict.fromkeys(line.split("|")[1].strip() for line in lines))
    assert len(known) > 1, f"the archive has one version only of {library}: {known}"
    guest.run(f"{INSTALL} --allow-downgrades {library}={known[1]} 2>&1", timeout=LONG)


def installed(guest: Guest) -> str:
    return guest.run(["dpkg-query", "-W", "-f", "${Version}", LIBRARY[guest.suite]]).stdout


def test_a_patch_arrives_by_itself(guest: Guest) -> None:
    fleet(guest, "create", "tls", "-n", "2", *USES_IT)
    fleet(guest, "create", "idle", "-n", "1", *SLEEP)
    fleet(guest, "create", "sys", "-n", "1")
    fleet(guest, "wait", "--all", "--for", "healthy", "--timeout", "900")
    old, before = installed(guest), pids(guest)
    assert guest.run("lxcfleet stale", check=False, timeout=LONG).returncode == 0

    guest.run("unattended-upgrade -v 2>&1", timeout=1800)

    assert installed(guest) != old
    until(
        lambda: all(pids(guest).get(name, before[name]) != before[name] for name in USERS),
        LONG, "all containers that use the library run anew",
    )  # fmt: skip
    fleet(guest, "rollout", "status", "--follow")
    assert guest.run("lxcfleet stale", check=False, timeout=LONG).returncode == 0
    fleet(guest, "wait", "--all", "--for", "healthy", "--timeout", "900")
    assert set(states(guest).values()) == {"running"}
    now = pids(guest)
    assert {name: now[name] for name in OTHERS} == {name: before[name] for name in OTHERS}


def test_the_patch_is_proven(guest: Guest) -> None:
    assert guest.run(["lxcfleet", "verify", "--package", LIBRARY[guest.suite]], timeout=LONG).returncode == 0
    assert not any(each["stale"] for each in data(guest, "stale"))


# patches of other kinds, which nothing maps


def patch(guest: Guest, package: str, change: str) -> None:
    """Install the package anew with a change: a shell command that is run where the package's files are unpacked."""
    guest.run(
        f"cd $(mktemp -d) && apt-get -qq download {package} && dpkg-deb -R *.deb tree && cd tree && {change} && cd .. &&"
        " dpkg-deb -b tree changed.deb && DEBIAN_FRONTEND=noninteractive dpkg -i changed.deb && lxcfleet patch notify -q",
        timeout=LONG,
    )


def patched(guest: Guest, package: str) -> str:
    """Wait for the proof that this package is everywhere; returns its text."""
    command = f"lxcfleet verify --package {package}"
    until(lambda: guest.run(command, check=False, timeout=LONG).returncode == 0, LONG, f"{package} is proven")
    return guest.run(command, timeout=LONG).stdout


def anew(guest: Guest, before: dict[str, int]) -> set[str]:
    """The containers that were restarted since."""
    return {name for name, pid in pids(guest).items() if before.get(name) != pid}


def test_a_certificate_that_is_trusted_no_longer_is_gone_from_containers_that_had_read_it(guest: Guest) -> None:
    fleet(guest, "destroy", "sys*", "--force")
    name = guest.run(f"ls {CERTIFICATES} | head -n 1").stdout.strip()
    trusted = f"/etc/ssl/certs/{name.removesuffix('.crt')}.pem"
    fleet(guest, "create", "reader", "--", "sh", "-c", f"cat {trusted} >/run/read; exec sleep infinity")
    fleet(guest, "exec", "reader", "--", "grep", "-q", "BEGIN", trusted)
    before = pids(guest)
    # The package's scripts start thousands of programs, which takes a quarter of an hour on an emulated processor.
    patch(guest, "ca-certificates", f"rm -f .{CERTIFICATES}/{name} DEBIAN/config DEBIAN/post* DEBIAN/triggers")
    assert guest.run(["test", "-e", trusted], check=False).returncode != 0, "the host trusts it no longer"
    until(lambda: "reader" in anew(guest, before), LONG, "the container that had read it is restarted")
    patched(guest, "ca-certificates")
    assert guest.run(["lxcfleet", "exec", "reader", "--", "test", "-e", trusted], check=False).returncode == 1


def test_a_module_that_an_interpreter_has_read_is_old_after_a_patch(guest: Guest) -> None:
    """The daemon itself has read it, too."""
    fleet(guest, "create", "module", "--", "python3", "-c", "import yaml, time; print('read', flush=True); time.sleep(1e9)")
    until(lambda: "read" in fleet(guest, "logs", "module"), LONG, "the module is read")
    before = pids(guest)
    patch(guest, "python3-yaml", "echo '# fixed' >>usr/lib/python3/dist-packages/yaml/nodes.py")
    until(lambda: "module" in anew(guest, before), LONG, "the container with the interpreter is restarted")
    patched(guest, "python3-yaml")
    assert not anew(guest, before) & {*OTHERS}, "of those that run no interpreter none is restarted"


def test_liblxc_is_patched_in_all_monitors(guest: Guest) -> None:
    """It is asked for by the name that it had before Debian 13."""
    before = pids(guest)
    patch(guest, LIBLXC[guest.suite], "for file in usr/lib/*/liblxc.so.1.*; do echo new >>$file; done")
    until(lambda: anew(guest, before) == set(before), LONG, "all containers have new monitors")
    assert LIBLXC[guest.suite] in patched(guest, "liblxc1")
    assert guest.run("lxcfleet stale", check=False, timeout=LONG).returncode == 0


def test_dnsmasq_is_patched_and_containers_run_on(guest: Guest) -> None:
    def server() -> tuple[int, bool]:
        """Its pid and whether it is old; there is none while it is renewed."""
        said = guest.run("lxcfleet patch status -f json", check=False, timeout=LONG).stdout
        parts = [part for part in json.loads(said)["parts"] if part["name"] == "dnsmasq"]
        return (parts[0]["pid"], parts[0]["stale"]) if parts else (0, True)

    old, before = server(), pids(guest)
    assert old[0]
    patch(guest, "dnsmasq-base", "echo new >>usr/sbin/dnsmasq")
    until(lambda: server()[0] != old[0] and not server()[1], LONG, "the name server is renewed")
    patched(guest, "dnsmasq-base")
    assert anew(guest, before) == set()
    fleet(guest, "exec", "module", "--", "getent", "hosts", "module")


def test_needrestart_has_nothing_to_say_of_lxcfleet(guest: Guest) -> None:
    """Each of lxcfleet's processes ran old code after one of the patches before."""
    guest.run(f"{INSTALL} needrestart 2>&1", timeout=LONG)
    before = pids(guest)
    said = guest.run("needrestart -b -r l", timeout=LONG).stdout
    assert "NEEDRESTART-VER" in said
    assert "lxcfleet" not in said
    guest.run("needrestart -q -r a", check=False, timeout=LONG)
    assert anew(guest, before) == set(), "nor does its automatic mode touch containers"


def test_a_ufw_that_keeps_queries_out_is_told(guest: Guest) -> None:
    def told() -> str:
        return guest.run("lxcfleet doctor", check=False, timeout=LONG).stdout

    assert "can't look up names" not in told()
    guest.run(f"{INSTALL} ufw 2>&1", timeout=LONG)
    guest.run("ufw allow 22/tcp && ufw --force enable", timeout=LONG)
    try:
        until(lambda: "ufw allow in on lxcfleet0" in told(), LONG, "doctor names the rule")
        assert "names-fail" in guest.run("lxcfleet events", timeout=LONG).stdout
        guest.run("ufw allow in on lxcfleet0")
        until(lambda: "can't look up names" not in told(), LONG, "names are found")
        assert "names-work" in guest.run("lxcfleet events", timeout=LONG).stdout
    finally:
        guest.run("ufw --force disable", timeout=LONG)


SERVE = {"1": "exec sleep infinity", "2": "echo cannot load plugin; exit 3"}


def serve(guest: Guest, version: str) -> None:
    """Install a version of a program by apt."""
    fields = {"Package": "greet", "Version": version, "Architecture": "all", "Maintainer": "nobody <nobody@localhost>"}
    control = "".join(f"{key}: {value}\\n" for key, value in {**fields, "Description": "a story"}.items())
    guest.run(
        f"d=$(mktemp -d) && mkdir -p $d/DEBIAN $d/usr/lib/greet && printf '{control}' >$d/DEBIAN/control &&"
        f" echo '{SERVE[version]}' >$d/usr/lib/greet/serve && dpkg-deb --root-owner-group -b $d /root/greet{version}.deb &&"
        f" {INSTALL} --allow-downgrades /root/greet{version}.deb 2>&1",
        timeout=LONG,
    )


def test_a_bad_patch_whose_rollout_was_halted_a_reboot_of_the_host_and_the_way_back(guest: Guest) -> None:
    fleet(guest, "destroy", "--all", "--force")
    serve(guest, "1")
    # Version 2 may take seconds to fail on an emulated processor. With a check no gate takes it to be well until then.
    check = ("--health-exec", "pidof sleep", "--health-interval", "5", "--health-timeout", "60")
    fleet(guest, "create", "greet", "-n", "3", *check, "--", "sh", "/usr/lib/greet/serve")
    fleet(guest, "wait", "--all", "--for", "healthy", "--timeout", "900")
    serve(guest, "2")
    until(lambda: guest.run("lxcfleet rollout status", check=False).returncode == 4, LONG, "the rollout halts at its canary")
    assert sorted(states(guest).values()) == ["failed", "running", "running"]
    guest.reboot()

    def down() -> list[str]:
        said = guest.run("lxcfleet patch status -f json", check=False, timeout=LONG).stdout
        return [each["name"] for each in json.loads(said)["notice"]["down"]]

    until(lambda: down() == ["greet1", "greet2", "greet3"], LONG, "the boot brought all of them the patch")
    assert guest.run("lxcfleet verify", check=False, timeout=LONG).returncode == 4
    serve(guest, "1")
    until(lambda: set(states(guest).values()) == {"running"}, LONG, "the way back starts all of them")
    patched(guest, "greet")
