"""``du`` and ``diff NAME`` with real layers, on a container that runs, that is hostile, and that is stopped."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from .harness import Fleet

pytestmark = pytest.mark.system

CHANGES = r"""
set -e
printf x >>/etc/bash.bashrc
chmod 600 /etc/profile
chown 33:0 /etc/issue.net
touch -c -d 2001-01-01 /etc/networks /etc/issue
rm -r /etc/skel
mkdir /srv/own && printf 'a lot\n' >/srv/own/file
rm /etc/debian_version && ln -s /etc/shadow /etc/debian_version
rm -r /etc/ld.so.conf.d && mkdir /etc/ld.so.conf.d
printf x >/srv/"$(printf 'n\377\n\033[31m')"
truncate -s 1G /srv/sparse
head -c 300000 /dev/zero >/srv/big
ln /srv/big /srv/again
ln -s / /srv/out
"""

DEEP = """
import os
os.chdir('/srv')
for _ in range(600):
    os.mkdir('d' * 200)
    os.chdir('d' * 200)
"""


def changes(fleet: Fleet, name: str, *more: str) -> dict[str, Any]:
    ran = fleet.run("diff", name, *more, "-f", "json")
    record: dict[str, Any] = ran.json
    assert ran.status == (4 if record["changed"] else 0), ran
    return record


def test_what_a_container_changed_and_takes(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    before = changes(fleet, name)["counts"]
    fleet.inside(name, CHANGES)
    for state in ("running", "stopped"):
        found = changes(fleet, name)
        told = {each["path"]: each for each in found["changes"]}
        kinds = {path: each["change"] for path, each in told.items()}
        wanted = {
            "/etc/bash.bashrc": "changed", "/etc/profile": "mode", "/etc/issue.net": "owner", "/etc/issue": "touched",
            "/etc/skel": "removed", "/srv/own": "added", "/srv/own/file": "added", "/etc/debian_version": "type",
            "/srv/n\udcff\n\x1b[31m": "added", "/etc/ld.so.conf.d/libc.conf": "removed", "/srv/out": "added",
        }  # fmt: skip
        assert {path: kinds.get(path) for path in wanted} == wanted, (state, before)
        assert (told["/etc/profile"]["was_mode"], told["/etc/profile"]["mode"]) == ("0644", "0600")
        assert (told["/etc/issue.net"]["was_owner"], told["/etc/issue.net"]["owner"]) == ("0:0", "33:0")
        assert (told["/etc/debian_version"]["was"], told["/etc/debian_version"]["type"]) == ("file", "link")
        assert not found["cut"]
        assert {each["path"] for each in changes(fleet, name, "/srv/own")["changes"]} == {"/srv/own", "/srv/own/file"}
        assert "\x1b" not in fleet.run("diff", name).out
        (record,) = json.loads(fleet.ok("du", name, "--depth", "2", "-f", "json"))
        top = fleet.delta(name)
        by_du = int(subprocess.run(["du", "-s", "-B1", top], capture_output=True, check=True).stdout.split()[0])
        assert record["disk_bytes"] == by_du - top.stat().st_blocks * 512  # without the top itself
        assert record["disk_bytes"] < 1 << 20 < 1 << 30 < record["apparent_bytes"]
        assert record["paths"][0]["path"] == "/srv"
        fleet.ok("stop", name, "--timeout", "0")


def test_a_container_with_a_hostile_tree_costs_nobody_else_anything(fleet: Fleet) -> None:
    hostile, other = fleet.name("h"), fleet.name("o")
    fleet.create(hostile, other)
    fleet.inside(hostile, f"python3 -c \"{DEEP}\"")
    found = changes(fleet, hostile, "/srv")
    assert (found["cut"], found["counts"]["added"] > 10) == (True, True)
    records = {record["name"]: record for record in json.loads(fleet.ok("du", "-f", "json"))}
    assert (records[hostile]["items"] >= 600, records[other]["cut"], records[other]["problem"]) == (True, False, None)
