"""The kernel is made ready for moves between cgroups by one that moves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxcfleet.host.kernel import small
from lxcfleet.host.process import cgroup

V2, V1, HYBRID = b"0::/a.slice/b.service\n", b"3:cpu,cpuacct:/own\n1:name=systemd:/\n", b"1:name=systemd:/b.service\n0::/\n"


@pytest.mark.parametrize(
    ("lines", "unified", "written"),
    [
        (V2, True, "a.slice/b.service"),
        (V1, False, "cpu/own"),
        (HYBRID, False, "systemd/b.service"),
        (b"0::/\n", False, None),
        (b"0::/../elsewhere\n", True, None),
    ],
)
def test_this_process_is_moved_to_its_own_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: bytes, unified: bool, written: str | None
) -> None:
    """To the root, or to that of another hierarchy, it would be moved for good."""
    top = tmp_path / "cgroup"
    for name in ("a.slice/b.service", "cpu/own", "systemd/b.service", "../elsewhere"):
        (top / name).mkdir(parents=True)
    for directory in (tmp_path, *tmp_path.rglob("*")):
        if directory.is_dir():
            (directory / "cgroup.procs").touch()
    monkeypatch.setattr(cgroup, "unified", lambda: unified)
    monkeypatch.setattr(cgroup, "_ROOT", top)
    monkeypatch.setattr(small, "content", {"/proc/self/cgroup": lines}.__getitem__)
    cgroup.expect_moves()
    found = [file.parent for file in tmp_path.rglob("cgroup.procs") if file.read_text() == "0"]
    assert found == ([] if written is None else [top / written])


def test_a_host_that_does_not_tell_its_cgroups_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "unified", lambda: False)
    monkeypatch.setattr(cgroup, "_ROOT", tmp_path)
    monkeypatch.setattr(small, "content", {"/proc/self/cgroup": V1}.__getitem__)
    cgroup.expect_moves()
