"""When the mask is built, and the state after a failed build. The image itself is a stand-in here."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.base.mask import build, compiler, rules
from lxcfleet.base.tree import Tree
from lxcfleet.errors import HostError, InvalidInput, NoCapacity, Unsupported
from lxcfleet.host.kernel import image
from lxcfleet.host.kernel.entries import Copy, Directory, Entry, File, Owner, Symlink, Whiteout
from lxcfleet.paths import Paths

write_image = image.write
"""The real one: in each test there is another in its place."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A much reduced host."""
    root = tmp_path / "host"
    for name in ("etc/app", "usr/bin", "var/lib/dpkg", "home", "opt/tool"):
        (root / name).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/bin/sh").write_text("")
    (root / "var/lib/dpkg/status").write_text("")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/shadow").write_text("root:$6$secret:1::::::\n")
    return root


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(lxc=tmp_path / "lxc", run=tmp_path / "run", etc=tmp_path / "etc")


@pytest.fixture(autouse=True)
def written(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Entry]]:
    """Images are not written but noted here: real ones need root."""
    images: list[Mapping[str, Entry]] = []

    def write(entries: Mapping[str, Entry], _root: Path, work: Path, target: Path) -> None:
        assert (work.stat().st_mode & 0o777) == 0o700
        images.append(entries)
        target.write_text(f"image {len(images)}")

    monkeypatch.setattr(image, "write", write)
    return images


def test_builds_once(paths: Paths, base: Path, written: list[object]) -> None:
    assert not build.is_current(paths, base)
    assert build.ensure(paths, root=base)
    assert build.is_current(paths, base)
    assert not build.ensure(paths, root=base)
    assert len(written) == 1
    assert not build.ensure(paths, root=base, force=True)
    (base / "etc/new-secret").touch(mode=0o600)
    assert build.ensure(paths, root=base, force=True)
    assert paths.mask_image.read_text() == "image 2"
    assert sorted(os.listdir(paths.run)) == ["locks", "mask.ext4", "mask.json"]


def later(path: Path) -> None:
    """Wait for the next tick of the kernel's clock, which file times are taken from, so that this change is a later one."""
    status = path.lstat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def change_shadow(base: Path, _paths: Paths) -> None:
    (base / "etc/shadow").write_text("root:!:1::::::\n")


def change_accounts(base: Path, _paths: Paths) -> None:
    new = base / "etc/passwd+"
    new.write_text("root:x:0:0::/root:/bin/sh\nbob:x:1:1::/:/bin/sh\n")
    new.rename(base / "etc/passwd")


def change_packages(base: Path, _paths: Paths) -> None:
    (base / "var/lib/dpkg/status").write_text("Package: new\n")


def add_secret(base: Path, _paths: Paths) -> None:
    (base / "etc/app/key").write_text("secret")


def add_directory(base: Path, _paths: Paths) -> None:
    (base / "data").mkdir()


def add_state(base: Path, _paths: Paths) -> None:
    (base / "var/lib/database").mkdir()


def add_in_opt(base: Path, _paths: Paths) -> None:
    (base / "opt/tool/settings").write_text("")


def add_rule(_base: Path, paths: Paths) -> None:
    paths.mask_rules.mkdir(parents=True)
    (paths.mask_rules / "a.yaml").write_text("hide: [/opt/tool]\n")


def lose_image(_base: Path, paths: Paths) -> None:
    paths.mask_image.unlink()


def swap_image(_base: Path, paths: Paths) -> None:
    (paths.run / "other").write_text("another image")
    (paths.run / "other").rename(paths.mask_image)


def damage_record(_base: Path, paths: Paths) -> None:
    paths.mask_record.write_bytes(paths.mask_record.read_bytes()[:100])


def strip_record(_base: Path, paths: Paths) -> None:
    paths.mask_record.write_text(json.dumps({"rules": 1, "watched": []}))


@pytest.mark.parametrize(
    "change",
    [
        change_shadow, change_accounts, change_packages, add_secret, add_directory, add_state, add_in_opt,
        add_rule, lose_image, swap_image, damage_record, strip_record,
    ],
)  # fmt: skip
def test_is_out_of_date_after_a_change(paths: Paths, base: Path, change: object) -> None:
    build.ensure(paths, root=base)
    for path in [base, *base.rglob("*")]:
        if not path.is_symlink():
            later(path)
    build.ensure(paths, root=base)
    assert callable(change)
    change(base, paths)
    assert not build.is_current(paths, base)
    build.ensure(paths, root=base)
    assert build.is_current(paths, base)


def test_an_image_is_only_written_if_its_content_changes(paths: Paths, base: Path, written: list[object]) -> None:
    build.ensure(paths, root=base)
    began = build.looked(paths)
    change_packages(base, paths)
    assert not build.is_current(paths, base)
    assert not build.ensure(paths, root=base)
    assert (len(written), build.is_current(paths, base)) == (1, True)
    assert build.looked(paths) > began
    lose_image(base, paths)
    assert build.ensure(paths, root=base)
    assert len(written) == 2


def test_the_view_knows_what_clones_can_see() -> None:
    view = build.View({"/": "directory", "/root": "opaque", "/etc": "directory", "/etc/shadow": "file", "/x": "whiteout"})
    assert view.matters("/etc/ssl/key", False)
    assert view.matters("/etc/shadow", False)
    assert view.matters("/root", False)
    assert not view.matters("/root", True)
    assert not view.matters("/root/.ssh/id", False)
    assert not view.matters("/x/y", False)
    assert view.matters("/etc", True)


def test_a_change_of_an_operators_file_counts(
    paths: Paths, base: Path, written: list[Mapping[str, Entry]]
) -> None:
    add_rule(base, paths)
    build.ensure(paths, root=base)
    assert isinstance(written[-1]["/opt/tool"], Whiteout)
    (paths.mask_rules / "a.yaml").write_text("hide: []\n")
    assert build.ensure(paths, root=base)
    assert "/opt/tool" not in written[-1]


def test_changes_that_do_not_matter(paths: Paths, base: Path) -> None:
    build.ensure(paths, root=base)
    (base / "home/alice").mkdir()
    (base / "usr/bin/sh").write_text("patched")
    assert build.is_current(paths, base)


def test_the_record_of_other_rules_or_another_base_does_not_count(
    paths: Paths, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.ensure(paths, root=base)
    shutil.copytree(base, tmp_path / "twin", symlinks=True)
    assert not build.is_current(paths, tmp_path / "twin")
    monkeypatch.setattr(rules, "FORMAT", 99)
    assert not build.is_current(paths, base)


@pytest.mark.parametrize("step", ["write", "replace-image", "replace-record"])
def test_a_crash_leaves_the_old_image_or_the_new(
    paths: Paths, base: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Wherever the crash was, the next attempt ends with one image and nothing beside it."""

    class Crash(BaseException):
        pass

    build.ensure(paths, root=base)
    add_rule(base, paths)
    calls = {"write": 0, "replace-image": 0, "replace-record": 0}

    def crash(*_: object) -> None:
        raise Crash

    def replace(source: Path, target: Path) -> None:
        calls["replace-image" if target == paths.mask_image else "replace-record"] += 1
        if step == ("replace-image" if target == paths.mask_image else "replace-record"):
            raise Crash
        os.rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(build, "_remove", lambda _: None)  # kill -9 runs no `finally`
        patched.setattr(os, "replace", replace)
        if step == "write":
            patched.setattr(image, "write", crash)
        with pytest.raises(Crash):
            build.ensure(paths, root=base)
    assert paths.mask_image.exists()
    assert not build.is_current(paths, base)
    assert (paths.run / "mask.new").exists()
    assert build.ensure(paths, root=base)
    assert sorted(os.listdir(paths.run)) == ["locks", "mask.ext4", "mask.json"]


@pytest.mark.parametrize("error", [NoCapacity("full"), Unsupported("no mkfs"), HostError("broken")])
def test_failure_keeps_the_old_image(
    paths: Paths, base: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    build.ensure(paths, root=base)
    (base / "etc/new-secret").touch(mode=0o600)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(image, "write", fail)
    with pytest.raises(type(error)):
        build.ensure(paths, root=base, force=True)
    assert paths.mask_image.read_text() == "image 1"
    assert not (paths.run / "mask.new").exists()


def test_a_file_that_goes_before_it_is_copied_is_left_out(
    paths: Paths, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a package is removed, or a service disabled, while the mask is made."""
    unit, path = base / "etc/systemd/system/app.service.d/own.conf", "/etc/systemd/system/app.service.d/own.conf"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")
    plans: list[bool] = []
    plan = compiler.plan

    def planned(*arguments: Any) -> Any:
        entries, look = plan(*arguments)
        plans.append(unit.exists())
        if unit.exists():
            entries[path] = Copy(path, Owner(0o644), "allow-listed")
        return entries, look

    def write(entries: Mapping[str, Entry], _outside: object, _work: Path, target: Path) -> None:
        if path in entries:
            unit.unlink()
            unit.read_text()
        target.write_text("image")

    monkeypatch.setattr(compiler, "plan", planned)
    monkeypatch.setattr(image, "write", write)
    assert build.ensure(paths, root=base)
    assert plans == [True, False]
    assert sorted(os.listdir(paths.run)) == ["locks", "mask.ext4", "mask.json"]


def test_a_file_that_is_never_there_when_it_is_copied_is_told(
    paths: Paths, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/etc/gone")

    monkeypatch.setattr(image, "write", write)
    with pytest.raises(HostError, match="the mask can't be built"):
        build.ensure(paths, root=base)
    assert sorted(os.listdir(paths.run)) == ["locks"]


def test_a_source_that_is_gone_is_told_apart_from_other_failures(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_image({"/file": Copy("/gone", Owner(0o644))}, lambda path: f"{tmp_path}{path}", tmp_path, tmp_path / "image")
    assert not os.listdir(tmp_path)


def test_what_goes_between_a_look_and_its_reading_is_not_there(base: Path) -> None:
    tree = Tree(base)
    assert tree.is_file("/etc/passwd")
    assert tree.is_link("/bin")
    (base / "etc/passwd").unlink()
    (base / "bin").unlink()
    assert tree.read("/etc/passwd") is None
    assert tree.real("/bin/sh") == "/bin/sh"


def test_wrong_rules_keep_the_old_image(paths: Paths, base: Path) -> None:
    build.ensure(paths, root=base)
    paths.mask_rules.mkdir(parents=True)
    (paths.mask_rules / "a.yaml").write_text("nonsense: 1\n")
    with pytest.raises(InvalidInput, match="nonsense: unknown key"):
        build.ensure(paths, root=base)
    assert paths.mask_image.read_text() == "image 1"


def test_leftovers_are_removed_and_links_in_them_not_followed(
    paths: Paths, base: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("")
    left = paths.run / "mask.new/tree"
    left.mkdir(parents=True)
    (left / "link").symlink_to(precious)
    build.ensure(paths, root=base)
    assert (precious / "file").exists()
    assert not (paths.run / "mask.new").exists()


def test_a_run_directory_that_cannot_be_made(paths: Paths, base: Path) -> None:
    paths.run.write_text("a file is in the way")
    with pytest.raises(HostError) as caught:
        build.ensure(paths, root=base)
    assert str(paths.run) in caught.value.why


def test_hidden_asks_the_record(paths: Paths, base: Path) -> None:
    with pytest.raises(HostError, match="no mask yet"):
        build.hidden(paths, "/bin/sh", base)
    (base / "home/tool").write_text("")
    (base / "usr/bin/tool").symlink_to("/home/tool")
    build.ensure(paths, root=base)
    asked = ("/bin/sh", "/bin/tool", "/bin/none", "/home", "/etc/shadow", "/etc/machine-id", "/etc/hostname")
    assert [build.hidden(paths, path, base) for path in asked] == [
        False,
        True,
        True,
        False,
        False,
        False,
        True,
    ]


def test_the_record_keeps_only_the_needed_part_of_the_entries() -> None:
    entries: dict[str, Entry] = {
        "/a\udcff\n": Whiteout("why"),
        "/b": Directory(Owner(0o700), opaque=True),
        "/c": Directory(Owner(0o700)),
        "/d": File(b"x", Owner(0o600)),
        "/e": Symlink("a b\udcff"),
    }
    loaded = build._load_entries(json.loads(json.dumps(build._dump_entries(entries))))
    assert {path: type(entry) for path, entry in loaded.items()} == {p: type(e) for p, e in entries.items()}
    assert loaded["/e"] == Symlink("a b\udcff")
    assert [path for path, e in loaded.items() if isinstance(e, Directory) and e.opaque] == ["/b"]


def test_plan_needs_no_image(paths: Paths, base: Path, written: list[object]) -> None:
    entries = build.plan(paths, base)
    assert "/home" in entries
    assert not written
    assert not paths.run.exists()
