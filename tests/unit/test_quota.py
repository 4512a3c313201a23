"""Disk limits, without a file system that enforces them; tests/system/test_disk.py tests real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxcfleet.containers import store
from lxcfleet.errors import Broken, InvalidInput, Unsupported
from lxcfleet.host.facts import features
from lxcfleet.host.kernel import quota
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import parse

PROC = Path("/proc")
"""A file system that enforces no limits on any host."""


def test_files_go_with_bytes_as_on_a_disk_of_that_size() -> None:
    assert quota.files_for(64 << 20) == 16384
    assert quota.files_for(512 << 20) == quota.files_for(2 << 30) == 131072
    assert quota.files_for(10 << 30) == 655360
    sizes = [quota.files_for(size) for size in range(4 << 20, 8 << 30, 64 << 20)]
    assert sizes == sorted(sizes)


def test_a_file_system_without_quotas_refuses_limits_only() -> None:
    assert not quota.enforced(PROC)
    with pytest.raises(Unsupported, match="project quotas"):
        quota.check(PROC)
    with pytest.raises(Unsupported):
        quota.keep([PROC], 1879048192, 1 << 30)
    assert quota.keep([PROC], 1879048192, 0) == 0
    assert quota.used(PROC) is None
    quota.forget(PROC, 1879048192)
    quota.mark(PROC, 0)


@pytest.mark.parametrize(("kind", "word"), [("ext4", "tune2fs"), ("xfs", "mount it with prjquota"), ("btrfs", "mount ext4")])
def test_doctor_tells_how_to_have_limits(kind: str, word: str) -> None:
    probe = features._disk_limits(PROC, kind)
    assert (probe.level, word in probe.hint) == ("warning", True)


def test_the_spec_keeps_the_limit_but_not_a_privileged_ones() -> None:
    spec = Spec("web", first_id=1879048192, disk=1 << 30, created="2026-01-01T00:00:00Z")
    assert store.parse("web", store.render(spec).encode(), "spec") == spec
    with pytest.raises(Broken, match="could raise its limit"):
        store.parse("web", store.render(spec).replace("1879048192", "null").encode(), "spec")


def test_a_disk_limit_can_be_set_for_all_containers_and_for_profiles() -> None:
    config = parse(b"disk: 10G\nprofiles: {small: {disk: 32M}, free: {disk: 0}}\n", "settings")
    of_profiles = [config.profiles[name].said["disk"] for name in ("small", "free")]
    assert (config.disk, *of_profiles) == (10 << 30, 32 << 20, 0)
    with pytest.raises(InvalidInput, match="disk"):
        parse(b"profiles: {root: {disk: 32M, privileged: true}}\n", "settings")
