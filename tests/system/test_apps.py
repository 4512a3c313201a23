"""Apps on real kernels: the example of docs/apps.md, the mount as containers have it, and what a crash leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lxcfleet.data.apps import store
from lxcfleet.host.kernel import loops

from .harness import ROOT, TIMEOUT, Fleet, until

pytestmark = pytest.mark.system

PAGE = ROOT / "docs/apps.md"


@pytest.fixture(autouse=True)
def no_apps_left(fleet: Fleet) -> Iterator[None]:
    """Remove the releases after the test's containers."""
    yield
    fleet.ok("destroy", "--all", "--force", "-q")
    for release in fleet.ok("app", "list", "-q").split():
        fleet.ok("app", "rm", release)
    assert not [each for each in fleet.paths.apps.iterdir() if each.is_dir()]


def apps(fleet: Fleet) -> list[str]:
    return [each["app"] for each in json.loads(fleet.ok("list", "-f", "json"))]


def using(file: Path) -> list[int]:
    """The processes that have a file or a directory open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(link) == str(file):
                found.append(int(link.parts[2]))
    return found


def serves(fleet: Fleet, name: str, version: str) -> None:
    """Wait until the container's command has said which version it is, and check that it is this one."""
    assert until(lambda: fleet.inside(name, "cat /run/version 2>/dev/null || :")) == version


def test_the_example_runs_as_it_stands(fleet: Fleet, tmp_path: Path) -> None:
    (script,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    script = script.replace("web", fleet.name("web"))
    variables = fleet.environment(PATH=f"{ROOT}/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    ran = subprocess.run(["sh", "-eux"], input=script.encode(), cwd=tmp_path, env=variables, capture_output=True, check=False)
    assert ran.returncode == 0, ran
    assert "shop@1.6 -> shop@1.5" in ran.stderr.decode()
    assert apps(fleet) == ["shop@1.4"] * 3
    for number in (1, 2, 3):
        serves(fleet, fleet.name(f"web{number}"), "1.4")
    told = [each["message"] for each in map(json.loads, fleet.ok("events", "--since", "1h", "--format", "json").splitlines())]
    begun = next(number for number, text in enumerate(told) if text.endswith("containers: shop@1.5 -> shop@1.6"))
    # Of the bad release, the canary alone had a run.
    waves = [text for text in told[begun:] if text.startswith("wave")]
    assert waves[0].count(fleet.name("web")) == 1
    assert any(text.startswith("halted") and "(shop@1.5 -> shop@1.6)" in text for text in told[begun:])


def test_containers_with_different_ids_have_the_same_files_and_can_not_change_them(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/id").write_bytes(Path("/usr/bin/id").read_bytes())
    (tmp_path / "bin/id").chmod(0o4755)
    fleet.ok("app", "add", "shop", str(tmp_path), "--version", "1")
    one, two = fleet.name("one"), fleet.name("two")
    fleet.create(one, two, options=("--app", "shop@1:/srv/shop"))
    tree = fleet.paths.release("shop", "1").tree
    for name in (one, two):
        script = "stat -c '%u:%g %a' /srv/shop/bin/id; setpriv --reuid 33 --clear-groups /srv/shop/bin/id -u"
        assert fleet.inside(name, script) == "0:0 555\n33"
        assert fleet.run("exec", name, "--", "touch", "/srv/shop/x").status != 0
        options = fleet.inside(name, "sed -n 's/.* .srv.shop \\([^ ]*\\) .*/\\1/p' /proc/self/mountinfo").split(",")
        assert {"ro", "nosuid", "nodev"} <= {*options}
    assert os.lstat(tree / "bin/id").st_uid == 0
    assert fleet.record(one)["first_id"] != fleet.record(two)["first_id"]
    assert all(each["app"] == "shop@1:/srv/shop" for each in json.loads(fleet.ok("list", "-f", "json")))
    (tree / "bin/id").chmod(0o755)
    time.sleep(store._TRUSTED_SECONDS)  # containers that start within that time share one look
    assert "bin/id has the mode 0755 instead of 0555" in fleet.run("restart", one).err
    assert fleet.record(one)["state"] == "running"
    assert fleet.run("app", "verify", "shop").status == 4
    assert not json.loads(fleet.run("stale", "-f", "json").out)[0]["stale"]


def test_a_layer_is_among_the_hosts_files_and_shares_one_loop_device(fleet: Fleet, tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version / "usr/local/bin").mkdir(parents=True)
        serve = tmp_path / version / "usr/local/bin/serve"
        serve.write_text(f"#!/bin/sh\necho {version} >/run/version; exec sleep infinity\n")
        serve.chmod(0o755)
        fleet.ok("app", "add", "shop", str(tmp_path / version), "--version", version, "--form", "layer")
    (tmp_path / "1/etc").mkdir()
    (tmp_path / "1/etc/debian_version").write_text("0\n")
    refused = fleet.run("app", "add", "shop", str(tmp_path / "1"), "--version", "3", "--form", "layer")
    assert (refused.status, "/etc/debian_version of base-files" in refused.err) == (1, True)
    covers = ("--form", "layer", "--covers", "/etc/debian_version")
    fleet.ok("app", "add", "shop", str(tmp_path / "1"), "--version", "3", *covers)
    one, two = fleet.name("one"), fleet.name("two")
    fleet.create(one, two, options=("--app", "shop@1:/"), command=("--", "/usr/local/bin/serve"))
    image = fleet.paths.release("shop", "1").image
    assert len(loops.devices(image)) == 1
    for name in (one, two):
        serves(fleet, name, "1")
        script = "stat -c '%u:%g %a' /usr/local/bin/serve /usr; touch /usr/local/bin/own"
        assert fleet.inside(name, script) == "0:0 555\n0:0 755"
    assert fleet.record(one)["first_id"] != fleet.record(two)["first_id"]
    assert not any(each["stale"] for each in json.loads(fleet.run("stale", "-f", "json").out))
    fleet.ok("app", "use", one, two, "shop@2")
    for name in (one, two):
        serves(fleet, name, "2")
    until(lambda: not loops.devices(image), 10, "the loop device of the former release goes")
    bad = fleet.run("set", two, "app=shop@2")
    assert (bad.status, "shop@2 is a layer" in bad.err) == (2, True)
    fleet.ok("set", two, "app=shop@3:/")
    assert fleet.inside(two, "cat /etc/debian_version") == "0"
    shadows = {each["name"]: each["shadows"] for each in json.loads(fleet.run("audit", "shadow", "-f", "json").out)}
    assert [(each["path"], each["layer"], each["package"]) for each in shadows[two]] == [
        ("/etc/debian_version", "app shop@3", "base-files")
    ]
    assert not shadows[one]
    image = fleet.paths.release("shop", "2").image
    fleet.ok("stop", one)
    subprocess.run(["lxc-start", "-P", str(fleet.paths.lxc), "-n", one], check=True, timeout=TIMEOUT)
    serves(fleet, one, "2")
    assert len(loops.devices(image)) == 1
    os.kill(fleet.record(one)["pid"], signal.SIGKILL)
    until(lambda: not loops.devices(image), 10, "a kill leaves no loop device")
    image.chmod(0o600)
    with image.open("r+b") as file:
        file.seek(5000)
        file.write(b"x")
    assert "image has other contents" in fleet.run("start", one).err
    assert fleet.run("app", "verify", "shop@2").status == 4


def test_a_kill_while_a_release_is_sealed_leaves_nothing(fleet: Fleet, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
    client = fleet.spawn("app", "add", "shop", str(tmp_path), "--version", "1")
    half = fleet.paths.new_release("shop", "1").tree
    for pid in until(lambda: half.exists() and using(half)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert client.wait(TIMEOUT) == 0  # another child begins it anew
    assert fleet.ok("app", "verify", "-q") == ""
    fleet.ok("app", "rm", "shop@1")
    half.mkdir(parents=True)  # as if all were killed
    fleet.stop_daemon(signal.SIGKILL)
    fleet.start_daemon()
    assert fleet.ok("app", "list", "-q") == ""
    until(lambda: not fleet.paths.app("shop").exists(), 20, "what was half made is removed")
    (tmp_path / "large").write_text("small")
    fleet.ok("app", "add", "shop", str(tmp_path), "--version", "1")
    assert fleet.ok("app", "verify", "-q") == ""


def test_a_clone_builds_a_release(fleet: Fleet) -> None:
    install = "mkdir -p /opt/shop/bin; cp /usr/bin/id /opt/shop/bin; touch /etc/other; chown 33 /opt/shop/bin/id"
    fleet.ok("app", "bake", "shop", "--version", "1", "--", "sh", "-ec", install)
    record = json.loads(fleet.ok("app", "info", "shop@1", "-f", "json"))
    assert any(name.startswith("libc6") for name in record["packages"])
    assert record["older"] == {}
    tree = fleet.paths.release("shop", "1").tree
    assert (sorted(os.listdir(tree)), (tree / "bin/id").stat().st_uid) == (["bin"], 0)
    install = "mkdir -p /usr/local/lib/shop /etc/shop; cp /usr/bin/id /usr/local/lib/shop; touch /etc/shop/x"
    fleet.ok("app", "bake", "tools", "--version", "1", "--form", "layer", "--", "sh", "-ec", install)
    record = json.loads(fleet.ok("app", "info", "tools@1", "-f", "json"))
    assert any(name.startswith("libc6") for name in record["packages"])
    assert os.listdir(fleet.paths.release("tools", "1").tree) == ["usr"]
    fleet.create(fleet.name("one"), options=("--app", "tools@1:/"))
    assert fleet.inside(fleet.name("one"), "/usr/local/lib/shop/id -u; ls -d /etc/shop 2>&1 | wc -l") == "0\n1"
    fleet.ok("destroy", fleet.name("one"), "--force")
    failed = fleet.run("app", "bake", "shop", "--version", "2", "--", "sh", "-c", "echo no make here; exit 2")
    assert (failed.status, "the command failed\n  exit status 2\n  no make here" in failed.err) == (1, True)
    assert fleet.json_any("list") == []


def test_clones_build_at_the_same_time(fleet: Fleet) -> None:
    there = fleet.name("there")
    fleet.create(there)
    build = "mkdir -p /opt/$APP; echo $APP >/opt/$APP/name; sleep 1"
    names = ["one", "two", "three"]
    clients = [
        fleet.spawn("app", "bake", name, "--version", "1", "-e", f"APP={name}", "--", "sh", "-ec", build) for name in names
    ]
    for client in clients:
        _, said = client.communicate(timeout=3 * TIMEOUT)
        assert client.returncode == 0, said
    for name in names:
        assert (fleet.paths.release(name, "1").tree / "name").read_text() == f"{name}\n"
    assert list(fleet.states()) == [there]
