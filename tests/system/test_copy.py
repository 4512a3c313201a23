"""push and pull with real containers."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from .harness import Fleet

pytestmark = pytest.mark.system


def test_owners_and_modes_are_kept_both_ways(fleet: Fleet, tmp_path: Path) -> None:
    one, two = fleet.name("one"), fleet.name("two")
    fleet.create(one, two)
    site = tmp_path / "site"
    site.mkdir(mode=0o750)
    (site / "index").write_text("hello\n")
    os.chown(site / "index", 33, 33)
    (site / "index").chmod(0o4640)
    (site / "link").symlink_to("index")
    fleet.ok("push", one, two, "--", str(site), "/srv/www")
    for name in (one, two):
        assert fleet.inside(name, "cd /srv/www/site && stat -c '%u:%g %a' . index && cat link").split("\n") == [
            "0:0 750", "33:33 4640", "hello",
        ]  # fmt: skip
    fleet.ok("pull", f"{fleet.prefix}*", "--", "/srv/www/site", str(tmp_path / "all"))
    for name in (one, two):
        found = os.stat(tmp_path / "all" / name / "site/index")
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (33, 33, 0o640)


def test_a_hostile_container_leads_pull_nowhere(fleet: Fleet, tmp_path: Path) -> None:
    name = fleet.name("evil")
    fleet.create(name)
    script = (
        "mkdir -p /srv/d && cd /srv/d && echo fine >fine && ln -s / root && ln -s ../../../../etc up && mkfifo pipe"
        " && cp /bin/sh sh && chmod 6755 sh"
    )
    fleet.inside(name, script)
    ran = fleet.run("pull", name, "--", "/srv/d", str(tmp_path / "got"))
    assert (ran.status, "3 of its files" in ran.err) == (1, True), ran
    got = tmp_path / "got/d"
    assert sorted(path.name for path in got.iterdir()) == ["fine", "sh"]
    assert stat.S_IMODE((got / "sh").stat().st_mode) == 0o755
    # Its own tar sends what it likes.
    forge = (
        "import io,sys,tarfile\n"
        "made = tarfile.open(fileobj=sys.stdout.buffer, mode='w|')\n"
        "for name in ('../out', '/out', 'd/../../out'):\n"
        "    entry = tarfile.TarInfo(name); entry.size = 1; made.addfile(entry, io.BytesIO(b'x'))\n"
        "made.close()\n"
    )
    program = f"#!/usr/bin/python3\n{forge}".encode()
    fleet.inside(name, "cat >/usr/local/bin/tar && chmod 755 /usr/local/bin/tar", input=program)
    ran = fleet.run("pull", name, "--", "/srv/d", str(tmp_path / "again"))
    assert (ran.status, "leads out" in ran.err) == (1, True), ran
    assert sorted(path.name for path in tmp_path.rglob("out")) == []
