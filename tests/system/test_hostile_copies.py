"""Containers that change their files while these are copied, that leave traps for what copies them, or print without end."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from .harness import SLEEP, Fleet, alive, source, until

pytestmark = pytest.mark.system

ROUNDS = 6


def exchange() -> None:
    """Exchange a directory and a link to the host's /etc, again and again; renameat2(2), RENAME_EXCHANGE."""
    import ctypes
    import os

    libc = ctypes.CDLL(None)
    os.makedirs("/srv/w/d")
    with open("/srv/w/d/mine", "w", encoding="ascii") as file:
        file.write("x" * 100)
    os.symlink("/etc", "/srv/w/l")
    open("/srv/ready", "w").close()
    while True:
        libc.renameat2(-100, b"/srv/w/d", -100, b"/srv/w/l", 2)


def names(top: Path) -> set[str]:
    return {name for _, directories, files in os.walk(top) for name in (*directories, *files)}


def test_directories_that_become_links_meanwhile_lead_no_copy_out(fleet: Fleet, tmp_path: Path) -> None:
    name = fleet.name("swaps")
    fleet.ok("create", name, *SLEEP)
    swapping = fleet.spawn("exec", name, "--", "python3", "-c", source(exchange))
    try:
        until((fleet.delta(name) / "srv/ready").exists, what="it exchanges them")
        ours = {"w", "d", "l", "mine", "hostname"}
        for number in range(ROUNDS):
            fleet.run("pull", name, "--", "/srv/w", str(tmp_path / str(number)))
            assert names(tmp_path / str(number)) <= ours
            fleet.run("push", name, "--", "/etc/hostname", "/srv/w/d")  # it may find itself in the container's own /etc
            found = fleet.run("diff", name, "/srv/w", "-f", "json").json["changes"]
            assert {each["path"].rpartition("/")[2] for each in found} <= ours
            (size,) = json.loads(fleet.ok("du", name, "--depth", "4", "-f", "json"))
            assert size["items"] < 20
        fleet.ok("snapshot", "create", name, "--name", "s")
        assert "passwd" not in names(fleet.paths.snapshot(name, "s").delta / "srv")
        archive = tmp_path / "archive.tar.zst"
        fleet.ok("export", name, "-o", str(archive))
        fleet.ok("restore-check", str(archive))
    finally:
        swapping.kill()
        swapping.wait()
    until(lambda: "renameat2" not in fleet.inside(name, "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; true"))
    fleet.run("pull", name, "--", "/srv/w", str(tmp_path / "still"))
    assert "mine" in names(tmp_path / "still"), "what nobody exchanges any more is copied, but for the link that leads out"
    fleet.ok("destroy", name, "--force", "--with-snapshots")


def test_what_a_build_leaves_behind_is_neither_run_nor_in_its_release(fleet: Fleet) -> None:
    fleet.ok("create", fleet.name("other"), *SLEEP)
    before = set(fleet.mounts())
    script = (
        "mkdir -p /opt/trap/m /opt/trap/etc && cd /opt/trap && echo fine >fine && cp /bin/sh sh && chmod 6755 sh"
        " && mount -t tmpfs x m && echo hidden >m/hidden && mount --bind /etc etc"
        " && (setsid sleep 54321 >/dev/null 2>&1 &)"
    )
    fleet.ok("app", "bake", "trap", "--version", "1", "--network", "none", "--", "sh", "-ec", script)
    tree = fleet.paths.release("trap", "1").tree
    assert names(tree) == {"m", "etc", "fine", "sh"}
    assert stat.S_IMODE((tree / "sh").stat().st_mode) == 0o555
    traps = {
        "mkfifo p": "it is a device, a pipe or a socket",
        "ln -s ../../etc/shadow p": "leads out of the release",
        "cd /opt; mv trap t; ln -s /etc trap": "a link or a file is in the way",
        "truncate -s 10T p || exit 9": "too much for a release",
    }
    for trap, why in traps.items():
        script = f"mkdir -p /opt/trap; cd /opt/trap; {trap}"
        ran = fleet.run("app", "bake", "trap", "--version", "2", "--network", "none", "--", "sh", "-c", script)
        assert (ran.status, why in ran.err) == (1, True), (trap, ran)
    assert [each["release"] for each in fleet.json_any("app", "list")] == ["trap@1"]
    assert set(fleet.states()) == {fleet.name("other")}
    assert set(fleet.mounts()) == before
    fleet.ok("app", "rm", "trap@1")


def test_a_hook_that_prints_without_end_or_kills_all_costs_others_nothing(fleet: Fleet) -> None:
    name, other = fleet.name("hooks"), fleet.name("calm")
    fleet.ok("create", name, "--hooks", "post_freeze=/hook timeout=4", *SLEEP)
    fleet.ok("create", other, *SLEEP)
    calm = fleet.pid(other)

    def hook(text: str) -> None:
        script = "cat >/hook.new && chmod 755 /hook.new && mv /hook.new /hook"
        fleet.inside(name, script, input=f"#!/bin/sh\n{text}\n".encode())

    hook("yes")
    assert "post_freeze failed: /hook: not done after 4 s: y" in fleet.run("snapshot", "create", name, "--name", "a").err
    hook(r"printf 'ok\nx\033]0;own\007\302\233forged'; exit 1")
    ran = fleet.run("snapshot", "create", name, "--name", "b")
    assert r"exit status 1: x\x1b]0;own\x07\x9bforged" in ran.err
    assert not {"\x1b", "\x9b", "\x07"} & set(ran.err + fleet.ok("events") + fleet.log())
    hook("(setsid sleep 54321 &) >/dev/null 2>&1; kill -STOP -1")
    fleet.run("snapshot", "create", name, "--name", "c")
    assert fleet.state(name) == "running"
    fleet.ok("stop", name, "--timeout", "0")
    assert (fleet.pid(other), alive(calm)) == (calm, True)
    fleet.ok("destroy", name, "--force", "--with-snapshots")
