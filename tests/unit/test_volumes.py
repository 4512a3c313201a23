"""Volumes: how mounts are written, what is refused, and what records on disk say."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from lxcfleet.capacity.ids import IdPool
from lxcfleet.containers.lxc_config import Platform, render
from lxcfleet.data import mounting, volumes
from lxcfleet.errors import Broken, InvalidInput, Unsupported, WrongState
from lxcfleet.host.kernel import quota, syscalls, tree
from lxcfleet.paths import Paths
from lxcfleet.spec.container.fields import table
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.volumes import IdsOwner, MountKind, Volume, VolumeMount, VolumesType, parse_mount, volumes_of
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.terms import RANGE_SIZE, Init

TYPE = VolumesType()


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("data:/srv/data", VolumeMount("/srv/data", MountKind.VOLUME, "data")),
        ("data:/srv/data:ro", VolumeMount("/srv/data", MountKind.VOLUME, "data", read_only=True)),
        ("/srv/ref:/opt/ref", VolumeMount("/opt/ref", MountKind.HOST, "/srv/ref", read_only=True)),
        (
            "/srv/own:/opt/own:rw:owner=container:suid:dev:noexec",
            VolumeMount("/opt/own", MountKind.HOST, "/srv/own", owner=IdsOwner.CONTAINER, suid=True, dev=True, noexec=True),
        ),
        ("tmpfs:/tmp:size=64M:mode=1777", VolumeMount("/tmp", MountKind.TMPFS, size=64 << 20, mode=0o1777)),
    ],
)
def test_a_mount_is_read_as_it_is_written(text: str, mount: VolumeMount) -> None:
    assert parse_mount(text) == mount
    assert parse_mount(str(mount)) == mount


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("data", "does not say what is mounted where"),
        ("data:srv", "no absolute path"),
        ("data:/srv/../etc", "no absolute path"),
        ("data:/srv/", "no absolute path"),
        ("data:/", "whole root"),
        ("/:/srv", "whole root"),
        ("Data:/srv", "can't be a volume's name"),
        ("data:/srv:fast", "no option"),
        ("data:/srv:ro:rw", "again"),
        ("data:/srv:owner=container", "owner is for a path of the host"),
        ("data:/srv:size=64M", "size is for tmpfs"),
        ("tmpfs:/srv", "no size"),
        ("tmpfs:/srv:size=64M:ro", "read-only"),
        ("data:/run/secrets", "/run anew"),
        ("data:/proc/x", "/proc anew"),
        ("data:/tmp", "only a tmpfs"),
        ("data:/var/tmp/x", "only a tmpfs"),
        ("tmpfs:/tmp/x:size=64M", "/tmp is mounted anew"),
        ("data:/etc", "which each patch changes"),
        ("data:/usr/lib/x86_64-linux-gnu", "which each patch changes"),
        ("data:/var/lib/dpkg/info", "which each patch changes"),
        ("data:/s\nrv", "can't be mounted"),
        ("data:/" + "x" * 2000, "can't be mounted"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_mount(text)
    assert why in str(caught.value)


def read(value: object) -> tuple[VolumeMount, ...]:
    fields = Fields({"volumes": value}, "spec")
    found = TYPE.read(fields, "volumes")
    fields.finish("no")
    return found


def test_a_mount_may_be_a_mapping() -> None:
    assert read([
        {"volume": "data", "target": "/srv/data", "read_only": True},
        {"host": "/srv/ref", "target": "/opt/ref", "owner": "host"},
        {"tmpfs": "64M", "target": "/var/cache/x", "mode": "1777"},
    ]) == tuple(map(parse_mount, ["data:/srv/data:ro", "/srv/ref:/opt/ref", "tmpfs:/var/cache/x:size=64M:mode=1777"]))


def test_all_mistakes_in_a_list_are_told_with_their_place() -> None:
    with pytest.raises(InvalidInput) as caught:
        read([
            "data:/srv", {"target": "/x"}, {"volume": "a", "host": "/b", "target": "/c"},
            {"volume": "a", "target": "/d", "colour": 1},
        ])  # fmt: skip
    assert [line.split(": ")[1] for line in caught.value.why.splitlines()] == ["volumes[1]", "volumes[2]", "volumes[3]"]


def test_two_mounts_at_one_place_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no") as caught:
        read(["a:/srv", "b:/srv"])
    assert "/srv is given twice" in caught.value.why


def test_of_two_mounts_at_one_place_the_requests_holds_before_the_profiles() -> None:
    under, over = map(TYPE.parse, ("a:/srv,b:/opt/b", "c:/srv:ro"))
    assert [str(mount) for mount in TYPE.merge(under, over)] == ["c:/srv:ro", "b:/opt/b"]


def test_the_volumes_among_mounts() -> None:
    assert volumes_of(TYPE.parse("b:/x,/srv:/y,a:/z,b:/w,tmpfs:/v:size=4M")) == ("b", "a")


def test_another_mount_takes_a_restart() -> None:
    assert table()["volumes"].change == "restart"


@pytest.mark.parametrize("mounted", [False, True])
def test_an_app_has_a_tmp_of_its_own_unless_it_mounts_one(mounted: bool) -> None:
    spec = Spec(
        "web", Init.APP, ("sleep", "9"), first_id=1 << 20,
        volumes=TYPE.parse("tmpfs:/tmp:size=64M") if mounted else (),
    )  # fmt: skip
    platform = Platform(True, frozenset(), False, False, "br", "", Path("/hook"))
    assert ("tmpfs tmp tmpfs" in render(spec, Paths(), platform, 4)) is not mounted


# -- places inside ------------------------------------------------------------------------------------------------

DIRECTORY, LINK, FILE = stat.S_IFDIR, stat.S_IFLNK, stat.S_IFREG


@pytest.mark.parametrize(
    ("there", "wrong"),
    [
        ({}, ""),
        ({"/srv": DIRECTORY, "/srv/a": DIRECTORY}, ""),
        ({"/srv": LINK}, "/srv is a link"),
        ({"/srv": DIRECTORY, "/srv/a": LINK}, "/srv/a is a link"),
        ({"/srv": DIRECTORY, "/srv/a": FILE}, "/srv/a is no directory"),
        ({"/srv": DIRECTORY, "/srv/a": DIRECTORY, "/srv/a/b": LINK}, ""),  # hidden by the mount at /srv/a
    ],
)
def test_a_link_in_the_way_is_found_before_anything_is_stopped(there: dict[str, int], wrong: str) -> None:
    wanted = ["data:/srv/a/b/c", "data:/srv/a"]
    if not wrong:
        mounting.check_places(there.get, wanted)
        return
    with pytest.raises(InvalidInput) as caught:
        mounting.check_places(there.get, wanted)
    assert wrong in caught.value.why


def test_what_lies_below_another_mount_is_mounted_after_it() -> None:
    mounts = TYPE.parse("a:/srv/x/y,b:/srv,c:/srv/x,d:/opt/d")
    assert [mount.target for mount in mounting.in_order(mounts)] == ["/srv", "/srv/x", "/opt/d", "/srv/x/y"]


# -- on disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "lxc", tmp_path / "run", tmp_path / "etc")


DATA = Volume("data", 64 << 20, {"tier": "db"}, 1 << 20, "2026-01-01T00:00:00Z")


def put(paths: Paths, name: str, text: str) -> None:
    paths.volume(name).data.mkdir(parents=True)
    paths.volume(name).record.write_text(text)


def test_a_record_is_read_as_it_was_written(paths: Paths) -> None:
    put(paths, "data", volumes.render(DATA))
    assert volumes.load(paths, "data") == DATA
    assert volumes.check(paths, "data") == DATA


def test_the_usual_volumes_are_in_var_lib_lxcfleet() -> None:
    assert Paths().volumes == Path("/var/lib/lxcfleet/volumes")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "version: is missing"),
        (volumes.render(DATA)[:60], "first_id: is missing"),
        (volumes.render(DATA).replace("version: 1", "version: 2"), "2 is not between 1 and 1"),
        (volumes.render(DATA) + "colour: red\n", "colour: unknown key"),
        ("{", "line"),
    ],
)
def test_a_record_that_can_t_be_used_makes_its_volume_broken_and_no_other(paths: Paths, text: str, why: str) -> None:
    put(paths, "bad", text)
    put(paths, "data", volumes.render(DATA))
    bad = volumes.load(paths, "bad")
    assert isinstance(bad, Broken)
    assert why in bad.why
    with pytest.raises(Broken):
        volumes.check(paths, "bad")
    assert volumes.names(paths) == ["bad", "data"]
    assert volumes.load(paths, "data") == DATA


def test_a_volume_that_does_not_exist_names_the_way_to_create_it(paths: Paths) -> None:
    assert volumes.load(paths, "data") is None
    assert volumes.names(paths) == volumes.leftovers(paths) == []
    with pytest.raises(InvalidInput, match="no volume data") as caught:
        volumes.check(paths, "data")
    assert caught.value.hint == "lxcfleet volume create data"


def test_ids_of_volumes_are_given_to_no_container_also_of_those_left_over(paths: Paths) -> None:
    first = 1 << 20
    put(paths, "data", volumes.render(DATA))
    put(paths, f"{Paths.GONE_PREFIX}old.0", volumes.render(Volume("old", first_id=first + RANGE_SIZE)))
    line = f"root:{first}:{3 * RANGE_SIZE}"
    pool = IdPool(line, line, own=volumes.ids(paths))
    assert pool.free == 1
    assert pool.take() == first + 2 * RANGE_SIZE
    assert volumes.leftovers(paths) == [f"{Paths.GONE_PREFIX}old.0"]


def test_whose_directory_is_left_over() -> None:
    assert volumes.was(f"{Paths.NEW_PREFIX}data", "data")
    assert volumes.was(f"{Paths.GONE_PREFIX}data.12", "data")
    assert not volumes.was(f"{Paths.GONE_PREFIX}data2.0", "data")


def test_the_name_goes_before_the_files(paths: Paths) -> None:
    put(paths, "data", volumes.render(DATA))
    volumes.retire(paths, "data")
    assert volumes.names(paths) == []
    (left,) = volumes.leftovers(paths)
    volumes.remove(paths, left)
    assert volumes.leftovers(paths) == []


def test_a_volume_on_a_file_system_that_can_not_show_other_owners_is_refused_and_leaves_nothing(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's answer to mount_setattr(2) there is EINVAL."""

    def refuses(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(syscalls, "user_namespace", lambda *_: os.open(os.devnull, os.O_RDONLY))
    monkeypatch.setattr(syscalls, "clone_apart", refuses)
    monkeypatch.setattr(os, "chown", lambda *_: None)
    volume = Volume("data", first_id=os.getuid() + 1)
    monkeypatch.setattr(volumes, "try_mount", lambda own, _: volumes.clone(0, str(own.data), 0, 65536, 0))
    with pytest.raises(Unsupported) as caught:
        volumes.make(paths, volume)
    assert "its file system can't be mounted with other owners" in caught.value.why
    assert "ext4, xfs and btrfs can" in caught.value.hint
    assert not [*paths.volumes.iterdir()]


def test_a_volume_whose_name_can_not_be_forced_to_the_disk_leaves_nothing(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, it was told as an error, and the volume was there."""

    def sync(directory: Path) -> None:
        if directory == paths.volumes:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(tree, "sync_directory", sync)
    monkeypatch.setattr(os, "chown", lambda *_: None)
    monkeypatch.setattr(volumes, "try_mount", lambda *_: None)
    with pytest.raises(OSError, match="Input/output"):
        volumes.make(paths, Volume("data", first_id=os.getuid() + 1))
    assert not [*paths.volumes.iterdir()]


def test_a_size_that_can_not_be_kept_is_told_with_the_place_of_volumes(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "chown", lambda *_: None)
    monkeypatch.setattr(quota, "enforced", lambda _: False)
    with pytest.raises(Unsupported) as caught:
        volumes.make(paths, Volume("data", 64 << 20, first_id=os.getuid() + 1))
    assert f"the file system of {paths.volumes} has no" in caught.value.why


def test_a_size_below_what_is_on_a_volume_is_refused_and_its_record_stays(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = Volume("data", 64 << 20, first_id=1879048192, created="2026-01-01T00:00:00Z")
    paths.volume("data").data.mkdir(parents=True)
    paths.volume("data").record.write_text(volumes.render(volume))
    monkeypatch.setattr(quota, "counted", lambda *_: 20 << 20)
    monkeypatch.setattr(quota, "enforced", lambda _: True)
    limits: list[int] = []
    monkeypatch.setattr(quota, "keep", lambda trees, project, size: limits.append(size))
    with pytest.raises(WrongState, match="can't get the size 16M"):
        volumes.change(paths, replace(volume, size=16 << 20))
    assert (volumes.load(paths, "data"), limits) == (volume, [])
    volumes.change(paths, replace(volume, size=32 << 20, labels={"tier": "db"}))
    assert (volumes.load(paths, "data"), limits) == (replace(volume, size=32 << 20, labels={"tier": "db"}), [32 << 20])
    with pytest.raises(Broken, match="anew"):
        volumes.change(paths, replace(volume, first_id=65536))
