"""Settings of AppArmor's parser with which profiles of containers allow locks on sockets."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from lxcfleet.host.kernel import syscalls
from lxcfleet.host.lxc import apparmor

FEATURES = """\
signal {mask {hup int
}
}
network_v8 {af_mask {unspec unix inet
}
}
file {mask {create read
}
}
"""


def test_rules_about_the_network_are_left_out_and_nothing_else() -> None:
    found = apparmor.without_network(FEATURES)
    assert found == FEATURES.replace("network_v8 {af_mask {unspec unix inet\n}\n}\n", "")
    assert apparmor.without_network(found) is None
    assert apparmor.without_network("network_v8 {af_mask {unspec") == ""


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """A host with AppArmor, and the mounts that are asked for."""
    mounts: list[tuple[str, Path]] = []
    (tmp_path / "enabled").write_text("Y\n")
    (tmp_path / "features").write_text(FEATURES)
    (tmp_path / "parser.conf").write_text(f"# Debian's\npolicy-features={tmp_path}/features\nwrite-cache\n")
    monkeypatch.setattr(apparmor, "_ENABLED", tmp_path / "enabled")
    monkeypatch.setattr(apparmor, "PARSER_CONF", tmp_path / "parser.conf")
    monkeypatch.setattr(syscalls, "mount", lambda source, target, *_: mounts.append((source, target)))
    return mounts


def test_the_parser_s_settings_are_replaced_in_this_mount_namespace(tmp_path: Path, mounted: list[tuple[str, Path]]) -> None:
    ours = tmp_path / "ours"
    for _ in range(2):
        apparmor.allow_socket_locks(ours)
    assert mounted == [(str(ours / "parser.conf"), tmp_path / "parser.conf")] * 2
    assert (ours / "parser.conf").read_text() == f"# Debian's\npolicy-features={ours}/features\nwrite-cache\n"
    assert "network_v8" not in (ours / "features").read_text()


@pytest.mark.parametrize("lacks", ["enabled", "parser.conf", "features"])
def test_nothing_happens_on_other_hosts(tmp_path: Path, mounted: list[tuple[str, Path]], lacks: str) -> None:
    for content in (None, "N\n"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tmp_path / lacks)
        if content is not None:
            (tmp_path / lacks).write_text(content)
        apparmor.allow_socket_locks(tmp_path / "ours")
    assert mounted == []
