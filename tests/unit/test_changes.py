"""What a container changed against the layers below its delta."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.api.disk import parse_path
from lxcfleet.base import changes, exposure
from lxcfleet.base.changes import Changes
from lxcfleet.base.present import Shelf, Upper
from lxcfleet.base.tree import Tree
from lxcfleet.errors import InvalidInput
from lxcfleet.host.process import inside
from lxcfleet.host.process.inside import FileMark

from .layers_in import directories, layer_in, put, stack_in

FIRST = 100_000


@pytest.fixture
def four(tmp_path: Path) -> dict[str, Path]:
    if os.geteuid():
        pytest.skip("only root may make whiteouts and opaque directories")
    return directories(tmp_path, "app")


def whiteout(layer: Path, path: str) -> None:
    target = layer / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(target, 0o020000, 0)


def opaque(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    os.setxattr(directory, "trusted.overlay.opaque", b"y")


def own(top: Path) -> None:
    """Give all below a delta to the container's root, as what it makes has."""
    for path in [top, *top.rglob("*")]:
        os.lchown(path, FIRST, FIRST)


def find(four: dict[str, Path], path: str = "", most: int = 100, first_id: int | None = FIRST) -> Changes:
    if first_id is not None:
        own(four["delta"])
    shelf = Shelf()
    with shelf.present(stack_in(four)) as present:
        found = changes.find(present, first_id, path, most, 20.0)
    shelf.close()
    return found


def told(found: Changes) -> dict[str, str]:
    return {each.path: each.kind.value for each in found.listed}


def one(found: Changes, path: str) -> dict[str, Any]:
    (change,) = [each for each in found.listed if each.path == path]
    return change.to_json()


def test_each_kind_of_change_is_told(four: dict[str, Path]) -> None:
    base, delta = four["base"], four["delta"]
    for name in ("same", "new", "mode", "kind", "gone", "left"):
        put(base, f"/etc/{name}", "text")
    (base / "etc/link").symlink_to("a")
    put(base, "/srv/tree/a/b", "x")
    (delta / "etc").mkdir()
    put(delta, "/etc/same", "text")
    put(delta, "/etc/new", "TEXT")
    put(delta, "/etc/mode", "text").chmod(0o600)
    (delta / "etc/kind").symlink_to("/etc/shadow")
    (delta / "etc/link").symlink_to("b")
    put(delta, "/etc/added", "more text")
    put(delta, "/opt/mine/deep/file", "x")
    whiteout(delta, "/etc/gone")
    whiteout(delta, "/etc/never")
    whiteout(delta, "/srv/tree")
    found = find(four)
    assert told(found) == {
        "/etc/added": "added", "/etc/gone": "removed", "/etc/kind": "type", "/etc/link": "changed", "/etc/mode": "mode",
        "/etc/new": "changed", "/etc/same": "touched", "/opt": "added", "/opt/mine": "added", "/opt/mine/deep": "added",
        "/opt/mine/deep/file": "added", "/srv/tree": "removed",
    }  # fmt: skip
    assert found.counts == {"added": 5, "removed": 2, "type": 1, "changed": 2, "mode": 1, "touched": 1}
    assert (found.cut, one(found, "/etc/kind")["was"], one(found, "/etc/kind")["type"]) == (False, "file", "link")
    mode = one(found, "/etc/mode")
    assert (mode["was_mode"], mode["mode"], mode["owner"]) == ("0644", "0600", None)
    assert one(found, "/srv/tree")["type"] == "directory"


def test_owners_are_those_that_the_container_sees(four: dict[str, Path]) -> None:
    base, delta = four["base"], four["delta"]
    put(base, "/srv/a", "x")
    (base / "srv").chmod(0o755)
    put(delta, "/srv/a", "x")
    own(delta)
    os.chown(delta / "srv", FIRST + 33, FIRST + 33)
    os.chown(delta / "srv/a", FIRST + 33, FIRST)
    shelf = Shelf()
    with shelf.present(stack_in(four)) as present:
        found = changes.find(present, FIRST, "", 100, 20.0)
    shelf.close()
    assert told(found) == {"/srv": "owner", "/srv/a": "owner"}
    assert (one(found, "/srv/a")["was_owner"], one(found, "/srv/a")["owner"]) == ("0:0", "33:0")
    assert one(found, "/srv")["owner"] == "33:33"


def test_what_the_mask_hides_is_not_there_below(four: dict[str, Path]) -> None:
    put(four["base"], "/var/lib/db/file", "secret")
    put(four["base"], "/etc/shadow", "secret")
    opaque(four["mask"] / "var/lib/db")
    whiteout(four["mask"], "/etc/shadow")
    put(four["mask"], "/etc/hostname", "localhost")
    put(four["base"], "/etc/hostname", "thehost")
    put(four["delta"], "/var/lib/db/file", "secret")
    put(four["delta"], "/etc/shadow", "secret")
    put(four["delta"], "/etc/hostname", "thehost")
    found = find(four)
    assert told(found) == {"/var/lib/db/file": "added", "/etc/shadow": "added", "/etc/hostname": "changed"}
    assert one(found, "/etc/hostname")["layer"] == "mask"


def test_an_opaque_directory_removes_what_it_has_nothing_in_place_of(four: dict[str, Path]) -> None:
    for name in ("a", "b", "c"):
        put(four["base"], f"/opt/tree/{name}", "x")
    put(four["app"], "/opt/tree/d", "x")
    whiteout(four["mask"], "/opt/tree/c")
    opaque(four["delta"] / "opt/tree")
    put(four["delta"], "/opt/tree/a", "x")
    put(four["delta"], "/opt/tree/e", "x")
    assert told(find(four)) == {
        "/opt/tree/a": "touched", "/opt/tree/b": "removed", "/opt/tree/d": "removed", "/opt/tree/e": "added",
    }  # fmt: skip


def test_a_path_limits_the_look(four: dict[str, Path]) -> None:
    put(four["base"], "/etc/a", "x")
    put(four["base"], "/etc/gone/b", "x")
    put(four["delta"], "/etc/a", "y")
    put(four["delta"], "/srv/b", "y")
    whiteout(four["delta"], "/etc/gone")
    assert told(find(four, "/etc")) == {"/etc/a": "changed", "/etc/gone": "removed"}
    assert told(find(four, "/etc/a")) == {"/etc/a": "changed"}
    assert told(find(four, "/etc/gone/b")) == {"/etc/gone/b": "removed"}
    assert told(find(four, "/srv")) == {"/srv": "added", "/srv/b": "added"}
    assert not find(four, "/usr").counts
    assert not find(four, "/etc/a/below").counts


def test_no_link_of_a_container_is_followed(four: dict[str, Path], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    put(outside, "/secret", "x")
    put(four["base"], "/etc/a", "x")
    (four["delta"] / "etc").symlink_to(outside)
    assert told(find(four)) == {"/etc": "type"}
    assert not find(four, "/etc/secret").counts
    assert told(find(four, "/etc")) == {"/etc": "type"}


def test_names_of_any_bytes_are_told(four: dict[str, Path]) -> None:
    names = [b"a\xff", b"b\n\x1b[31m", b"c" * 255]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(four["delta"]), name))).touch()
    assert [os.fsencode(each.path)[1:] for each in find(four).listed] == sorted(names)


def test_many_and_deep_files_cost_no_more_than_is_told(four: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MOST_TEXT", 60)
    for number in range(40):
        put(four["delta"], f"/srv/many/{number}", "x")
    found = find(four, most=10)
    assert (found.counts["added"], found.cut) == (42, True)
    assert 2 < len(found.listed) < 10
    monkeypatch.setattr(changes, "MOST_TEXT", 1 << 20)
    monkeypatch.setattr(changes, "LONGEST", 100)
    four["delta"].joinpath(*["d" * 20] * 100).mkdir(parents=True)
    deep = find(four)
    assert deep.cut
    assert max(len(each.path) for each in deep.listed) < 2 * changes.LONGEST
    shelf = Shelf()
    with shelf.present(stack_in(four)) as present:
        late = changes.find(present, FIRST, "", 1000, -1.0)
    shelf.close()
    assert (late.cut, bool(late.counts)) == (True, True)


@pytest.mark.parametrize(("text", "path"), [("/etc/", "/etc"), ("//a/../b", "/b"), ("/", "/"), ("/a b\n", "/a b\n")])
def test_a_path_is_taken_as_the_container_has_it(text: str, path: str) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize("text", ["etc", "", "/a\0b", "/" + "a" * 5000])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_path(text)


def test_a_container_s_own_file_is_no_exposed_one(four: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content may be the host's, as where both have the same empty or usual file."""
    put(four["base"], "/etc/key", "x")
    put(four["delta"], "/etc/key", "x")
    put(four["delta"], "/etc/copied", "x")
    os.setxattr(four["delta"] / "etc/copied", "trusted.overlay.origin", b"\0")
    whiteout(four["delta"], "/etc/gone")
    top = Upper(layer_in(four["delta"].parent, "delta"))
    owned = [path for path in ("/etc/key", "/etc/copied", "/etc/gone", "/etc/other", "/etc") if exposure.is_own(top, path)]
    top.close()
    assert owned == ["/etc/key", "/etc"]
    both = "/etc/key", "/etc/copied"
    secrets = [exposure.Secret(path, "0600", (FileMark(path, 0o100000, 1, 1, 1),)) for path in both]
    monkeypatch.setattr(inside, "readable", lambda *_: [(path, None) for path in both])
    found = exposure.exposed(1, "web", secrets, Tree(four["base"]), (), lambda path: path in owned)
    assert [each.path for each in found] == ["/etc/copied"]
