"""What is told of dpkg's records, and of who is at work on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxcfleet.host.packages import dpkg


@pytest.fixture
def admin(tmp_path: Path) -> Path:
    """dpkg's directory, with something in its journal."""
    (tmp_path / "status").write_text("")
    (tmp_path / "updates").mkdir()
    (tmp_path / "updates/0001").write_text("")
    for name in ("lock", "lock-frontend"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_dpkg_at_work_is_not_told_as_one_that_was_interrupted(admin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its journal is the same. The advice to run `dpkg --configure -a` would be wrong."""
    assert dpkg.half_done(admin) == "dpkg was interrupted"
    monkeypatch.setattr(dpkg, "holder", lambda _: 12)
    assert dpkg.half_done(admin) == "dpkg is at work (process 12 holds its lock)"


def test_the_stamp_differs_once_dpkg_has_written(admin: Path) -> None:
    before = dpkg.stamp(admin)
    assert dpkg.stamp(admin) == before
    (admin / "status-new").write_text("Package: x\n")
    (admin / "status-new").rename(admin / "status")
    after = dpkg.stamp(admin)
    assert after != before
    os.utime(admin / "updates", ns=(1, 1))
    assert dpkg.stamp(admin) != after
    assert dpkg.stamp(admin / "none") == (0, 0, 0, 0)
