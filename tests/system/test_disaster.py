"""The story of docs/backup.md: each night all is exported, the host is lost, and another one has the fleet back, serving.

The two hosts are daemons that share no state, each in mount and network namespaces of its own, with a /srv of its own. The
commands are those of the page, and are read from it: nothing but the installation of the package is left out.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import CLIENT, ROOT, Fleet, Ran, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PAGE = (ROOT / "docs/backup.md").read_text(encoding="utf-8")
INSTALL = "apt install ./lxcfleet_*.deb"
APART = """\
ip link set lo up && mount --bind {place}/srv /srv && mount -t sysfs sysfs {place}/sys &&
for each in class/net devices/virtual/net; do mount --bind {place}/sys/$each /sys/$each; done && exec "$0" "$@"
"""
"""sysfs shows the interfaces of the network namespace in which it was mounted, and liblxc looks there."""
FILE = """\
lxcfleet: 1
fleet: shop
secrets:
  pw: {{file: /srv/pw}}
volumes:
  {db}-data: {{labels: {{kind: orders}}}}
groups:
  {db}:
    command: [sleep, infinity]
    secrets: [pw]
    volumes: ["{db}-data:/srv/data"]
    health: {{exec: [test, -s, /srv/data/orders]}}
  {web}:
    count: 2
    network: bridge
    labels: {{role: web}}
    command: [python3, -m, http.server, "8000", --directory, /srv/www]
    publish: ["8080:8000"]
    depends_on: {{{db}: started}}
    health: {{tcp: 8000}}
"""


class Host:
    """A host: a fleet whose daemon sees a network of its own, and a directory that is /srv."""

    def __init__(self, fleet: Fleet, place: Path) -> None:
        self.fleet, self.srv = fleet, place / "srv"
        (self.srv / "backup").mkdir(parents=True)
        (place / "sys").mkdir()
        programs = place / "bin"
        programs.mkdir()
        (programs / "lxcfleet").symlink_to(CLIENT)
        self._path = f"{programs}:{os.environ['PATH']}"
        fleet.stop_daemon()
        way = ("unshare", "--mount", "--net", "--propagation", "slave", "sh", "-euc")
        fleet.within = (*way, APART.format(place=place))

    def sh(self, script: str) -> Ran:
        """Run a script as an operator of that host does."""
        mounted = f"mount --bind {self.srv} /srv && cd / && exec sh -euc \"$0\""
        argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", mounted, script]
        done = subprocess.run(
            argv, env=self.fleet.environment(PATH=self._path), capture_output=True, text=True, timeout=500, check=False
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def ok(self, script: str) -> str:
        ran = self.sh(script)
        assert ran.status == 0, (script, ran.out, ran.err, self.fleet.log()[-3000:])
        return ran.out

    def served(self) -> str:
        """What a client on that host gets from the published port; empty: nothing."""
        code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/', timeout=5).read().decode(), end='')"
        daemon = self.fleet.daemon_pid()
        argv = ["nsenter", "--net", "--target", str(daemon), "/usr/bin/python3", "-c", code]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    def lose(self) -> None:
        """The host is no more: daemon, containers, files."""
        pids = [each["pid"] for each in self.fleet.records() if each["pid"]]
        self.fleet.stop_daemon(signal.SIGKILL)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not self.fleet.processes() and not self.fleet.cgroups(), what="nothing of it runs")


@pytest.fixture
def lost(fleet: Fleet, tmp_path: Path) -> Iterator[Host]:
    yield Host(fleet, tmp_path / "lost")
    if fleet.daemon_pid() is None:
        fleet.within = ()
        fleet.start_daemon()
    fleet.ok("destroy", "--all", "--force", "-q")
    remove_volumes(fleet)


@pytest.fixture
def new(lost: Host, tmp_path: Path) -> Iterator[Host]:
    other = Fleet()
    try:
        yield Host(other, tmp_path / "new")
        other.clean()
        remove_volumes(other)
    finally:
        other.run("destroy", "--all", "--force", "-q")
        other.remove()


def remove_volumes(fleet: Fleet) -> None:
    fleet.run("fleet", "rm", "shop")
    for name in fleet.ok("volume", "list", "-q").split():
        fleet.ok("volume", "rm", name)


def nightly() -> str:
    """The line that the page has for each night."""
    (line,) = re.findall(r"^ +ExecStart=/usr/bin/(lxcfleet export .*)$", PAGE, re.MULTILINE)
    return str(line)


def way_back() -> str:
    """What the page has for the new host, but for the installation."""
    section = PAGE.partition("\n## From a lost host to the fleet on another one\n")[2].partition("\n### ")[0]
    (block,) = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    first, _, rest = block.partition("\n")
    assert first.startswith(INSTALL)
    return str(rest)


def test_a_lost_host_s_fleet_is_back_on_another_one(lost: Host, new: Host) -> None:
    fleet, names = lost.fleet, {"db": lost.fleet.name("db"), "web": lost.fleet.name("web")}
    settings = f"network: {{bridge: {fleet.bridge}, drain: 0}}\n"
    fleet.settings(settings)
    (lost.srv / "fleet.yaml").write_text(FILE.format(**names))
    (lost.srv / "pw").write_text("s3cret")
    (lost.srv / "pw").chmod(0o600)
    fleet.start_daemon()
    lost.ok("lxcfleet apply -f /srv/fleet.yaml")
    fleet.inside(names["db"], "echo 'order 1' >/srv/data/orders && chown 33:44 /srv/data/orders")
    for number in (1, 2):
        fleet.inside(f"{names['web']}{number}", "mkdir -p /srv/www && echo hello >/srv/www/index.html")
    until(lambda: lost.served() == "hello\n", what="it serves")
    # Two nights, and what changed in between.
    (lost.srv / "backup").mkdir(exist_ok=True)
    lost.ok(nightly())
    fleet.inside(names["db"], "echo 'order 2' >>/srv/data/orders")
    time.sleep(1)  # archives are named by the second
    lost.ok(nightly())
    assert len(list((lost.srv / "backup").iterdir())) == 6
    spec = fleet.record(f"{names['web']}1")
    # The archives, the settings, the fleet file and the secret are elsewhere, too. All the rest is gone.
    shutil.copytree(lost.srv, new.srv, dirs_exist_ok=True)
    shutil.copy(fleet.paths.config_file, new.fleet.paths.config_file)
    lost.lose()

    new.fleet.start_daemon()
    assert new.ok("lxcfleet list -q") == ""
    new.ok(way_back())
    states = {each["name"]: each["state"] for each in new.fleet.records()}
    assert states == dict.fromkeys((names["db"], f"{names['web']}1", f"{names['web']}2"), "running")
    until(lambda: new.served() == "hello\n", what="it serves again")
    look = "cat /srv/data/orders && stat -c %u:%g /srv/data/orders && cat /run/secrets/pw"
    assert new.fleet.inside(names["db"], look).split("\n") == ["order 1", "order 2", "33:44", "s3cret"]
    found = new.fleet.record(f"{names['web']}1")
    assert {key: found[key] for key in ("labels", "publish")} == {key: spec[key] for key in ("labels", "publish")}
    assert '"kind": "orders"' in new.ok(f"lxcfleet volume info {names['db']}-data -f json")
