"""Raising limits: written for the next boot, set for now, never lowered."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxcfleet.errors import HostError
from lxcfleet.host.facts import limits
from lxcfleet.paths import Paths


@pytest.fixture
def sysctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    top = tmp_path / "sys"
    for name, value in {"fs/inotify/max_user_instances": "128", "kernel/pid_max": "4194304"}.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(f"{value}\n", encoding="ascii")
    monkeypatch.setattr(limits, "_SYSCTL", top)
    return top


def test_values_are_set_and_written_down(tmp_path: Path, sysctl: Path) -> None:
    file = tmp_path / "sysctl.d/60-lxcfleet.conf"
    limits.apply({"fs.inotify.max_user_instances": 2048}, file)
    assert (sysctl / "fs/inotify/max_user_instances").read_text(encoding="ascii") == "2048\n"
    assert file.read_text(encoding="ascii").splitlines()[1:] == ["fs.inotify.max_user_instances = 2048"]
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_nothing_is_lowered(tmp_path: Path, sysctl: Path) -> None:
    file = tmp_path / "60-lxcfleet.conf"
    file.write_text("fs.inotify.max_user_instances = 9000\n", encoding="ascii")
    limits.apply({"kernel.pid_max": 65536, "fs.inotify.max_user_instances": 2048}, file)
    assert (sysctl / "kernel/pid_max").read_text(encoding="ascii") == "4194304\n"
    assert "fs.inotify.max_user_instances = 9000" in file.read_text(encoding="ascii")


def test_a_setting_that_the_kernel_lacks_is_an_error_with_its_path(tmp_path: Path, sysctl: Path) -> None:
    with pytest.raises(HostError) as caught:
        limits.apply({"kernel.odd": 5}, tmp_path / "60-lxcfleet.conf")
    assert f"{sysctl}/kernel/odd: No such file" in caught.value.why


def test_what_a_table_has_left_is_never_negative() -> None:
    assert limits.Table("x", 100, 30, reserved=20).free == 50
    assert limits.Table("x", 100, 90, reserved=20).free == 0


def test_a_host_without_the_containers_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        limits.read(Paths(lxc=tmp_path / "missing"))
    assert "missing: No such file" in caught.value.why


def test_a_host_too_slow_for_the_budget_is_estimated(tmp_path: Path) -> None:
    found = limits.read(Paths(lxc=tmp_path), budget=-1.0)
    assert not found.tables["inotify-instances"].exact
    assert found.memory_available > 0
