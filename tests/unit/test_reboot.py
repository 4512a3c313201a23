"""Packages that take effect with a reboot of the host."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from lxcfleet.host.packages import reboot
from lxcfleet.host.process import proc


@pytest.fixture
def info(tmp_path: Path) -> Path:
    """The lists of packages that were installed before the host's boot, and of one installed after it."""
    made = tmp_path / "info"
    made.mkdir()
    before, after = proc.as_time(0) - 100, proc.as_time(0) + 1
    running = platform.release()
    for name, moment in {
        f"linux-image-{running}": before, "linux-image-amd64": before, "libc6:amd64": after, "linux-libc-dev:amd64": after,
        "intel-microcode": after, "linux-image-9.9.9-test": after, "linux-headers-9.9.9": after, "linux-image-0.1": before,
    }.items():  # fmt: skip
        (made / f"{name}.list").touch()
        os.utime(made / f"{name}.list", (moment, moment))
    return made


def test_a_kernel_and_microcode_that_came_after_the_boot_are_due(tmp_path: Path, info: Path) -> None:
    required = tmp_path / "reboot-required"
    assert reboot.due(required, info) == ["intel-microcode", "linux-image-9.9.9-test"]
    required.with_name("reboot-required.pkgs").write_text("dbus\ndbus\n")
    assert "dbus" not in reboot.due(required, info), "nobody asks for one"
    required.touch()
    assert reboot.due(required, info) == ["dbus", "intel-microcode", "linux-image-9.9.9-test"]


def test_a_request_for_a_reboot_need_not_name_a_package(tmp_path: Path) -> None:
    required = tmp_path / "reboot-required"
    assert reboot.due(required, tmp_path) == []
    required.touch()
    assert reboot.due(required, tmp_path) == ["unknown"]


def test_a_kernel_that_the_host_does_not_run_yet_is_pending(tmp_path: Path, info: Path) -> None:
    required = tmp_path / "reboot-required"
    required.with_name("reboot-required.pkgs").write_text("dbus\n")
    running = platform.release()
    asked = [
        f"linux-image-{running}", "linux-image-amd64", "libc6:amd64", "intel-microcode", "linux-image-9.9.9-test",
        "linux-image-0.1", "dbus", "linux-libc-dev:amd64",
    ]  # fmt: skip
    assert reboot.pending(asked, required, info) == {
        "intel-microcode": "it was installed after the host booted",
        "linux-image-9.9.9-test": f"the host runs the kernel {running}",
        "linux-image-0.1": f"the host runs the kernel {running}",
        "dbus": "it asks for a reboot",
    }
