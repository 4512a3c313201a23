"""What may keep the host's services from running in a container, and the settings that come with them."""

import hashlib
from pathlib import Path

import pytest

from lxcfleet.base import exposure
from lxcfleet.base.services import layer, planner
from lxcfleet.base.services.problems import problems
from lxcfleet.base.stack import Services, stack_of
from lxcfleet.base.tree import Tree
from lxcfleet.host.kernel.entries import Copy, stage
from lxcfleet.paths import Paths

from .mask_tree import SYSTEM, put, small_host

ADMIN = "etc/systemd/system"
WEB = "[Service]\nExecStart=/usr/bin/web\n"
HIDDEN = "/etc/private"
"""What the mask hides in these tests, with all below it."""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    root = small_host(tmp_path / "host")
    put(root, "usr/bin/web", mode=0o755)
    return root


def told(host: Path, unit: str, *names: str, name: str = "web.service") -> list[str]:
    if name.endswith(".service") and "[Service]" not in unit:
        unit += "[Service]\nExecStart=/usr/bin/web\n"
    put(host, f"{SYSTEM}/{name}", unit)
    tree = Tree(host)
    plan = planner.plan(tree, [name, *names], ())
    plan.check()
    return [f"{each.unit}: {each.text}" for each in problems(tree, plan, lambda path: f"{path}/".startswith(f"{HIDDEN}/"))]


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("[Service]\nExecStart=/usr/bin/web --all\n", ""),
        ("[Service]\nExecStart=web\n", ""),
        ("[Service]\nExecStart=-@!+/usr/bin/gone\n", ""),
        ("[Service]\nExecStart=/usr/bin/%i\n", ""),
        ("[Service]\nExecStart=/usr/bin/gone --all\n", "its program /usr/bin/gone is not there"),
        ("[Service]\nExecStart=gone\n", "its program gone is not there"),
        ("[Service]\nExecStart=/usr/bin/web\nExecStartPre=+/usr/bin/gone\n", "its program /usr/bin/gone is not there"),
        ("[Service]\nExecStart=/usr/bin/gone\nExecStart=\nExecStart=/usr/bin/web\n", ""),
        ('[Service]\nExecStart="/usr/bin/gone"\n', "its program /usr/bin/gone is not there"),
        ("[Service]\nExecStart=/etc/private/run\n", "its program /etc/private/run is hidden by the mask"),
        ("[Service]\nExecStart=/sbin/modprobe x\n", "it loads kernel modules"),
        ("[Service]\nExecStart=/usr/bin/web\nEnvironmentFile=/etc/private/env\n", "/etc/private/env is hidden by the mask"),
        ("[Service]\nExecStart=/usr/bin/web\nEnvironmentFile=-/etc/private/env\n", "/etc/private/env is hidden by the mask"),
        ("[Service]\nExecStart=/usr/bin/web\nEnvironmentFile=/etc/gone\n", "/etc/gone is not there"),
        ("[Service]\nExecStart=/usr/bin/web\nEnvironmentFile=-/etc/gone\n", ""),
        ("[Service]\nExecStart=/usr/bin/web\nEnvironmentFile=/etc/%i\n", ""),
        ("[Unit]\nConditionPathExists=/etc/private/run\n", "it is passed over, as /etc/private/run is hidden"),
        ("[Unit]\nConditionPathExists=!/etc/gone\n", ""),
        ("[Unit]\nConditionPathExists=/run/gone\n", ""),
        ("[Unit]\nConditionVirtualization=!container\n", "passed over in containers (ConditionVirtualization=!container)"),
        ("[Unit]\nConditionVirtualization=no\n", "passed over in containers"),
        ("[Unit]\nAssertVirtualization=vm\n", "passed over in containers"),
        ("[Unit]\nConditionVirtualization=container\n", ""),
        ("[Unit]\nConditionVirtualization=!vm\n", ""),
        ("[Unit]\nConditionPathExists=|/etc/gone\nConditionPathExists=|/etc/private\n", ""),
        ("[Unit]\nConditionVirtualization=|!container\n", ""),
        ("[Unit]\nConditionPathIsReadWrite=/proc/sys/net/\n", ""),
        ("[Unit]\nConditionPathIsReadWrite=/sys\n", "containers can't write to /sys"),
        ("[Unit]\nRequires=dev-sda.device\n", "it waits for dev-sda.device"),
        ("[Unit]\nBindsTo=data.mount\n", "it needs data.mount, and containers have no mounts"),
        ("[Unit]\nRequires=gone.service\n", "it needs gone.service, which the host does not have"),
        ("[Unit]\nConditionVirtualization=kvm\n", "passed over in containers (ConditionVirtualization=kvm)"),
        ("[Unit]\nConditionVirtualization=!docker\n", ""),
        ("[Service]\nType=simple\n", "systemd does not load it: [Service] has no ExecStart… or ExecStop="),
        ("[Service]\nType=oneshot\nExecStop=/usr/bin/web\n", ""),
        ("ExecStart=/usr/bin/web\n[Service]\nRestart=no\n", "systemd does not load it"),
        (f"{WEB}CPUSchedulingPolicy=rr\n", "can't be started in an unprivileged container (CPUSchedulingPolicy=rr)"),
        (f"{WEB}IOSchedulingClass=realtime\n", "in an unprivileged container (IOSchedulingClass=realtime)"),
        (f"{WEB}CPUSchedulingPolicy=batch\nNice=-5\n", ""),
        (f"{WEB}WorkingDirectory=/etc/private\n", "/etc/private is hidden by the mask (WorkingDirectory=)"),
        (f"{WEB}WorkingDirectory=-/etc/gone\n", ""),
        (f"{WEB}WorkingDirectory=~\n", ""),
        (f"{WEB}WorkingDirectory=/var/lib/web\nStateDirectory=web\n", ""),
        (f"{WEB}ReadWritePaths=/usr -/etc/gone +/etc/gone2\n", "/etc/gone2 is not there (ReadWritePaths=)"),
        (f"{WEB}BindReadOnlyPaths=/etc/private/env:/etc/env:norbind\n", "/etc/private/env is hidden by the mask"),
        (f"{WEB}BindPaths=/dev/log:/var/lib/web/log /run/x\n", ""),
        (f"{WEB}LoadCredential=key:/etc/private/env\n", "/etc/private/env is hidden by the mask (LoadCredential=)"),
        (f"{WEB}LoadCredential=key\n", ""),
        (f"{WEB}User=nosuch\n", "the host has no user nosuch (User=)"),
        (f"{WEB}Group=nosuch\n", "the host has no group nosuch (Group=)"),
        (f"{WEB}User=www\nGroup=made\n", ""),
        (f"{WEB}User=1000\n", ""),
        (f"{WEB}User=%i\n", ""),
        (f"{WEB}User=nosuch\nDynamicUser=yes\n", ""),
        ("[Service]\nExecStart='/usr/bin/web\n", "its program '/usr/bin/web is not there"),
    ],
)  # fmt: skip
def test_what_keeps_a_unit_from_running_is_told(host: Path, unit: str, expected: str) -> None:
    for path in ("usr/sbin/modprobe", "etc/private/run", "etc/private/env"):
        put(host, path, mode=0o755)
    (host / "sbin").symlink_to("usr/sbin")
    put(host, "etc/passwd", "www:x:33:33::/:/bin/sh\n")
    put(host, "usr/lib/sysusers.d/web.conf", "g made - -\n")
    found = told(host, unit)
    assert len(found) == (1 if expected else 0), found
    assert expected in "".join(found)


def test_a_drop_in_that_names_a_hidden_file_is_named(host: Path) -> None:
    put(host, "etc/private/env")
    put(host, f"{ADMIN}/web.service.d/local.conf", "[Service]\nEnvironmentFile=/etc/private/env\n")
    (found,) = told(host, "[Service]\nExecStart=/usr/bin/web\n")
    assert found == (
        "web.service: the file of its variables /etc/private/env is hidden by the mask"
        " (/etc/systemd/system/web.service.d/local.conf)"
    )


def test_a_private_drop_in_is_told(host: Path) -> None:
    put(host, f"{ADMIN}/web.service.d/secret.conf", "[Service]\nEnvironment=A=1\n", mode=0o600)
    (found,) = told(host, "[Service]\nExecStart=/usr/bin/web\n")
    assert "/etc/systemd/system/web.service.d/secret.conf stay hidden" in found


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("[Socket]\nListenStream=80\n", "[Socket]\nListenStream=80\n", "a.socket: it wants port 80, and so does b.socket"),
        ("[Socket]\nListenStream=0.0.0.0:80\n", "[Socket]\nListenStream=[::]:80\n", "a.socket: it wants port 80"),
        ("[Socket]\nListenStream=80\n", "[Socket]\nListenStream=81\n", ""),
        ("[Socket]\nListenStream=/run/a\n", "[Socket]\nListenStream=/run/a\n", ""),
        ("[Socket]\nListenStream=127.0.0.1:80\n", "[Socket]\nListenStream=80\n", "a.socket: it wants port 80"),
        ("[Socket]\nListenStream=127.0.0.1:80\n", "[Socket]\nListenStream=127.0.0.2:80\n", ""),
        ("[Socket]\nListenStream=[::1]:80\n", "[Socket]\nListenStream=127.0.0.1:80\n", ""),
        ("[Socket]\nListenDatagram=53\n", "[Socket]\nListenDatagram=53\n", "a.socket: it wants port 53/udp, and so does b"),
        ("[Socket]\nListenDatagram=53\n", "[Socket]\nListenStream=53\n", ""),
        (
            "[Socket]\nListenStream=2\n[Unit]\nConflicts=b.socket\n",
            "[Socket]\nListenStream=1\n",
            "a.socket: it can't run together with b.socket",
        ),
    ],
)
def test_units_that_are_in_each_others_way_are_told(host: Path, one: str, other: str, expected: str) -> None:
    for name in ("a", "b"):
        put(host, f"{SYSTEM}/{name}.service", "[Service]\nExecStart=/usr/bin/web\n")
    put(host, f"{SYSTEM}/b.socket", other)
    found = told(host, one, "b.socket", name="a.socket")
    assert len(found) == (1 if expected else 0), found
    assert "".join(found).startswith(expected)


def test_the_usual_ports_of_well_known_services_count(host: Path) -> None:
    put(host, f"{SYSTEM}/nginx.service", "[Service]\nExecStart=/usr/bin/web\n")
    unit = "[Service]\nExecStart=/usr/bin/web\n"
    (found,) = told(host, unit, "nginx.service", name="apache2.service")
    assert found.startswith("apache2.service: it wants port 80, and so does nginx.service")
    assert told(host, unit, name="apache2.service") == []


# -- private settings ----------------------------------------------------------------------------------------------


def with_settings(host: Path, packed: bytes, now: bytes) -> None:
    """A package whose private settings were packed as ``packed``."""
    put(host, f"{SYSTEM}/web.service", "[Service]\nExecStart=/usr/bin/web\n")
    put(host, "var/lib/dpkg/info/web:amd64.list", f"/.\n/lib/systemd/system/web.service\n/{SYSTEM}\n")
    put(host, "etc/web/web.conf", now, mode=0o640)
    put(host, "etc/web/open.conf", "open")
    (host / "etc/web").chmod(0o755)
    digest = hashlib.md5(packed).hexdigest()
    lines = f" /etc/web/web.conf {digest}\n /etc/web/open.conf {'0' * 32}\n /etc/web/old.conf {digest} obsolete\n"
    other = f"Package: other\nConffiles:\n /etc/key {digest}\nDescription: other\n"
    put(host, "etc/key", packed, mode=0o600)
    web = f"Package: web\nStatus: install ok installed\nConffiles:\n{lines}Description: web\n"
    put(host, "var/lib/dpkg/status", f"{other}\n{web}")


def test_private_settings_that_are_as_packed_come_with_the_service(host: Path, tmp_path: Path) -> None:
    with_settings(host, b"port 1\n", b"port 1\n")
    plan = layer.plan(Tree(host), Services(("web.service",)))
    (path,) = plan.given
    entry = plan.entries[path]
    assert path == "/etc/web/web.conf"
    assert isinstance(entry, Copy)
    assert (entry.content, entry.owner.mode) == (b"port 1\n", 0o640)
    assert not {"/etc/key", "/etc/web/open.conf"} & plan.entries.keys()
    put(host, "etc/web/web.conf", "password x\n", mode=0o640)
    (tmp_path / "etc/web").mkdir(parents=True)
    stage({path: entry}, Tree(host).outside, tmp_path)
    assert (tmp_path / "etc/web/web.conf").read_bytes() == b"port 1\n", "what was written since gets nowhere"


def test_private_settings_that_the_host_changed_stay_hidden_and_that_is_told(host: Path) -> None:
    with_settings(host, b"port 1\n", b"password x\n")
    tree = Tree(host)
    plan = layer.plan(tree, Services(("web.service",)))
    assert plan.given == frozenset()
    assert "/etc/web/web.conf" not in plan.entries
    (found,) = problems(tree, plan, lambda _: False)
    assert "/etc/web/web.conf stay hidden" in found.text


def test_what_a_container_is_given_on_purpose_is_no_exposure(host: Path, tmp_path: Path) -> None:
    with_settings(host, b"port 1\n", b"port 1\n")
    paths = Paths(lxc=tmp_path, run=tmp_path / "run")
    assert exposure._given(stack_of(paths, "web", Services(("web.service",))), Tree(host)) == {"/etc/web/web.conf"}
    assert exposure._given(stack_of(paths, "web"), Tree(host)) == frozenset()
