"""The host's devices that containers are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxcfleet.base import devices
from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.spec.container.devices import DEVICES, check_devices, parse_device


def test_only_devices_of_the_list_are_given() -> None:
    said = ("tun", "/dev/net/tun", "/dev/fuse", "kvm", "dri")
    assert [parse_device(text) for text in said] == ["tun", "tun", "fuse", "kvm", "dri"]
    for text in ("mem", "/dev/sda", "", "../kvm", "kvm ", "null"):
        with pytest.raises(InvalidInput):
            parse_device(text)
    with pytest.raises(InvalidInput):
        check_devices(["kvm", "kvm"])
    assert {rule.rule.split()[0] for rule in DEVICES.values()} == {"c"}, "no block device is ever given"


def test_a_device_that_the_host_lacks_is_told(tmp_path: Path) -> None:
    for name, path in (("kvm", "/dev/kvm"), ("dri", "/dev/dri/renderD*")):
        with pytest.raises(HostError, match=f"this host has no device {name}") as caught:
            devices.check([name], tmp_path)
        assert f"there is no {path}" in str(caught.value)
    (tmp_path / "kvm").touch()
    with pytest.raises(HostError):
        devices.check(["kvm"], tmp_path)


def test_of_graphics_processors_only_the_render_nodes_are_given(tmp_path: Path) -> None:
    (tmp_path / "dri").mkdir()
    for name, number in (("card0", "/dev/null"), ("renderD128", "/dev/zero")):
        (tmp_path / "dri" / name).symlink_to(number)
    assert list(devices.check(["dri"], tmp_path)) == ["dri/renderD128"]
