"""What Ansible's modules say to lxcfleet is what it reads."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from lxcfleet.spec.container.io import IoLimit, IoType

CLI = Path(__file__).resolve().parents[2] / "ansible/plugins/module_utils/cli.py"


@pytest.fixture(scope="module")
def cli() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ansible_cli", CLI)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_limits_of_disks_are_said_as_the_command_line_has_them(cli: ModuleType) -> None:
    limits = {"sda": {"write_ops": 200}, "delta": {"write": "20M", "read": "50M"}}
    words = cli.pairs("--io", limits)
    assert words == ["--io", "delta=read=50M,write=20M", "--io", "sda=write_ops=200"]
    assert [IoType().parse(each) for each in words[1::2]] == [
        {"delta": IoLimit(read=50 << 20, write=20 << 20)}, {"sda": IoLimit(write_ops=200)}
    ]  # fmt: skip


def test_values_are_said_as_yaml_has_them(cli: ModuleType) -> None:
    said = cli.pairs("-l", {"b": True, "n": 1, "none": None, "t": "x"})
    assert said == ["-l", "b=true", "-l", "n=1", "-l", "none=", "-l", "t=x"]
