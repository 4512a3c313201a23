"""A generation as the lowest layer: its sheets are looked into, masked and mounted as one tree."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from lxcfleet.base import layers, mount_plan
from lxcfleet.base.generations import roots, store
from lxcfleet.base.generations.record import Generation, dump
from lxcfleet.base.generations.roots import tree_of
from lxcfleet.base.generations.sheets import Sheets
from lxcfleet.base.mask import compiler
from lxcfleet.base.mask.sweep import sweep
from lxcfleet.base.mount_plan import Restricted
from lxcfleet.base.present import Shelf
from lxcfleet.base.stack import Services, Stack, base, stack_for, stack_of
from lxcfleet.errors import Broken, NotFound
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.mask_rules import Rules

from .layers_in import put


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(lxc=tmp_path / "lxc", run=tmp_path / "run", etc=tmp_path / "etc")


@pytest.fixture
def sheets(paths: Paths) -> tuple[Path, Path]:
    """The sheets of generation 2: what changed, and below it the whole."""
    newer, whole = (store.sheet(paths, name) for name in ("s2", "s1"))
    for each in (newer, whole):
        each.mkdir(parents=True)
    generation = Generation(2, "2026-01-01T00:00:00Z", ("s2", "s1"), "test", 1, 1, 0, 0, "", 0)
    paths.generation_record(2).write_text(dump(generation))
    put(whole, "/usr/lib/libssl.so", "old")
    put(whole, "/usr/lib/libc.so", "libc")
    put(whole, "/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    put(newer, "/usr/lib/libssl.so", "new")
    return newer, whole


def test_the_stack_has_it_in_place_of_the_host(paths: Paths, sheets: tuple[Path, Path]) -> None:
    stack = stack_for(paths, "web", Spec(name="web", generation=2))
    assert [layer.name for layer in stack] == ["delta", "mask", "base"]
    assert stack.bottom.sheets == tuple(map(str, sheets))
    assert stack.bottom.hosts
    assert stack.lower[0].source == str(paths.run / "mask-2"), "the host's own mask fits the host"
    assert Stack.from_json(json.loads(json.dumps(stack.to_json()))) == stack
    live = stack_for(paths, "web", Spec(name="web", generation=2), live=True)
    assert live == stack_for(paths, "web", Spec(name="web")) == stack_of(paths, "web")
    with pytest.raises(NotFound):
        stack_for(paths, "web", Spec(name="web", generation=3))


def test_each_sheet_is_mounted_for_itself_and_lies_over_the_next(paths: Paths, sheets: tuple[Path, Path]) -> None:
    stack = stack_of(paths, "web", Services(("web.service",)), 2)
    plan = mount_plan.plan(paths, stack, "web", 65536, [])
    run = paths.run
    assert [(clone.source, clone.target, clone.shifted) for clone in plan.clones] == [
        (str(sheets[1]), f"{run}/base.1", True),
        (str(sheets[0]), f"{run}/base.0", True),
        (f"{run}/mask-2", f"{run}/mask-2", True),
    ]
    assert plan.overlays[0].lower == (f"{run}/services", f"{run}/mask-2", f"{run}/base.0", f"{run}/base.1")
    assert plan.fresh[0].base == stack.bottom, "services come from the same base"


def test_sheets_on_other_file_systems_lie_over_the_next_as_well(
    paths: Paths, sheets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One overlay for all of them; what the host's file systems restrict is restricted in it."""
    elsewhere = tmp_path / "usr" / paths.sheets_elsewhere
    put(elsewhere / "s2.usr/tree", "/usr/bin/tool", "tool")
    (paths.generations / "places.json").write_text(json.dumps({"usr": str(elsewhere)}))
    generation = Generation(2, "2026-01-01T00:00:00Z", ("s2", "s2.usr", "s1"), "test", 1, 1, 0, 0, "", 0)
    paths.generation_record(2).write_text(dump(generation))
    stack = stack_of(paths, "web", generation=2)
    assert stack.bottom.outside("/usr/bin/tool") == f"{elsewhere}/s2.usr/tree/usr/bin/tool"
    assert stack.bottom.outside("/usr/lib/libssl.so") == f"{sheets[0]}/usr/lib/libssl.so"
    system = os.statvfs_result((4096, 4096, 1, 1, 1, 1, 1, 1, os.ST_NOSUID | os.ST_RDONLY, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: system)
    restricted = layers.restrictions(stack)
    assert restricted == [Restricted("/usr", ("nosuid",))]
    plan = mount_plan.plan(paths, stack, "web", None, [], restricted)
    assert [overlay.lower for overlay in plan.overlays] == [
        (f"{paths.run}/mask-2", *(f"{paths.run}/base.{number}" for number in range(3)))
    ]
    assert plan.lines()[-1] == f"{paths.run}/root/usr: nosuid"
    assert layers.restrictions(stack_of(paths, "web")) == []
    # Parts of the host as it is now have nothing to do with it.
    host = mount_plan.clones([stack.bottom], [("/usr", "x")], shifted=False)
    assert [clone.target for clone in host] == [f"{paths.run}/base.{number}" for number in (2, 1, 0)]
    shutil.rmtree(elsewhere)
    with pytest.raises(Broken, match=r"s2\.usr/tree is gone, or its file system is not mounted"):
        stack_of(paths, "web", generation=2)


def test_files_come_from_the_topmost_sheet_that_has_them(paths: Paths, sheets: tuple[Path, Path]) -> None:
    stack = stack_of(paths, "web", generation=2)
    paths.container("web").delta.mkdir(parents=True)
    Path(stack.lower[0].source).mkdir(parents=True)
    shelf = Shelf()
    with shelf.present(stack) as present:
        for path, place in (("/usr/lib/libssl.so", sheets[0]), ("/usr/lib/libc.so", sheets[1])):
            found = present.find(path)
            assert found.status is not None
            assert os.path.samestat(found.status, os.lstat(f"{place}{path}"))
            assert found.layer.outside(path) == f"{place}{path}"
        assert present.find("/usr/lib/none.so").status is None
    shelf.close()


def test_the_sweep_looks_at_what_lies_on_top(sheets: tuple[Path, Path]) -> None:
    newer, whole = sheets
    for sheet, path, mode in (
        (whole, "/etc/became-public", 0o600), (newer, "/etc/became-public", 0o644),
        (whole, "/etc/became-private", 0o644), (newer, "/etc/became-private", 0o600),
        (whole, "/etc/stays-private", 0o600), (newer, "/etc/new-private", 0o600),
    ):  # fmt: skip
        put(sheet, path).chmod(mode)
    tree = tree_of(Sheets(map(str, sheets)))
    assert sorted(each.path for each in sweep(tree, {})) == [
        "/etc/became-private", "/etc/new-private", "/etc/stays-private"
    ]  # fmt: skip


def test_a_mask_over_it_hides_what_it_hides_over_the_host(paths: Paths, sheets: tuple[Path, Path], tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    put(merged, "/usr/lib/libssl.so", "new")
    put(merged, "/usr/lib/libc.so", "libc")
    put(merged, "/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    for root in (merged, sheets[0]):
        put(root, "/etc/private").chmod(0o600)
        (root / "home").mkdir()
    for root in (merged, sheets[1]):
        put(root, "/etc/hostname", "host")
        put(root, "/usr/lib/systemd/system/apache2.service", "")
    operator = Rules()
    entries, _ = compiler.plan(paths, operator, tree_of(roots.root_of(paths, 2)))
    expected, _ = compiler.plan(paths, operator, tree_of(merged))
    assert entries == expected
    assert "/etc/private" in entries


def test_the_host_is_base_number_zero(paths: Paths) -> None:
    assert roots.root_of(paths, 0) == roots.LIVE
    assert base(paths) == base(paths, 0)
    assert not base(paths).sheets
    assert paths.on(0) is paths
    assert paths.on(2).mask_image != paths.mask_image
    assert paths.on(2).container("web") == paths.container("web")
