"""Archives: what is read, what is refused, and that what was unpacked is what they have."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lxcfleet.base.merge import reconcile
from lxcfleet.data.archives import head as heads
from lxcfleet.data.archives.entries import ACLS, DEEPEST, ArchiveLimits, EntryKind, Reader
from lxcfleet.data.archives.unpacking import Comparing, Unpacking
from lxcfleet.errors import FleetError, InvalidInput, NoCapacity, Unsupported
from lxcfleet.spec.container.volumes import Volume

OWNER: dict[str, Any] = {"uid": b"%07o\0" % os.geteuid(), "gid": b"%07o\0" % os.getegid()}
TOP = pax.member(b"delta/", b"5", mode=b"0000755\0", **OWNER)


def read(data: bytes, limits: ArchiveLimits | None = None) -> list[Any]:
    """All entries."""
    reader = Reader(io.BytesIO(data), limits or ArchiveLimits())
    found = []
    while (entry := reader.next()) is not None:
        found.append((entry, b"".join(piece for _, piece in reader.pieces(entry))))
    return found


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[dict[tuple[bytes, ...], int]]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield {(b"delta",): handle}
    finally:
        os.close(handle)


def unpack(data: bytes, directory: Path) -> None:
    with opened(directory) as tops:
        reader, unpacking = Reader(io.BytesIO(data), ArchiveLimits()), Unpacking(tops)
        try:
            while (entry := reader.next()) is not None:
                unpacking.take(reader, entry)
            unpacking.finish()
        finally:
            unpacking.close()


def compare(data: bytes, directory: Path) -> list[str]:
    with opened(directory) as tops:
        reader, comparing = Reader(io.BytesIO(data), ArchiveLimits()), Comparing(tops)
        while (entry := reader.next()) is not None:
            comparing.take(reader, entry)
        comparing.finish()
        assert comparing.count >= len(comparing.differences)
        return comparing.differences


# -- what is read -------------------------------------------------------------------------------------------------


def test_access_lists_have_the_container_s_own_ids_on_linux_6_1_too() -> None:
    attributes = {b"SCHILY.xattr." + ACLS[0]: acl((2, 4, 100_033), (8, 4, 44), (8, 4, 165_535))}
    reader = Reader(io.BytesIO(pax.member(b"delta/x", attributes=attributes) + pax.END), ArchiveLimits())
    reader.first_id = 100_000
    entry = reader.next()
    assert entry is not None
    assert entry.attributes == {ACLS[0]: acl((2, 4, 33), (8, 4, 44), (8, 4, 65_535))}
    # Ids of nobody's are refused, but for those of volumes that are not taken.
    for who, path, read in (
        (165_536, b"delta/x", False), (99_999, b"delta/x", False), (99_999, b"volumes/v/x", True),
        (99_999, b"volumes/taken/x", False), (100_033, b"volumes/taken/x", False), (300_033, b"volumes/taken/x", True),
    ):  # fmt: skip
        attributes = {b"SCHILY.xattr." + ACLS[0]: acl((2, 4, who))}
        reader = Reader(io.BytesIO(pax.member(path, attributes=attributes) + pax.END), ArchiveLimits())
        reader.first_id, reader.taken = 100_000, {b"taken": 300_000}
        if read:
            assert reader.next() is not None
        else:
            with pytest.raises(InvalidInput, match="refused"):
                reader.next()


def test_entries_are_read_as_tar_writes_them() -> None:
    long = b"delta/" + b"/".join([b"d" * 60] * 3)
    data = (
        pax.member(long, data=b"hello", attributes={b"mtime": b"-1.5", b"SCHILY.xattr.user.a%3Db%25": b"x\0\n"})
        + pax.member(b"sub", data=b"", prefix=b"delta")
        + pax.member(b"delta/l", b"2", target=b"/etc/x")
        + pax.sparse(b"delta/s", 1 << 40, [(4096, b"mid"), (1 << 39, b"end")])
        + pax.END
    )
    (one, content), (two, _), (link, _), (holes, parts) = read(data)
    assert (one.path, content, one.mtime_ns) == (tuple(long.split(b"/")), b"hello", -1_500_000_000)
    assert one.attributes == {b"user.a=b%": b"x\0\n"}
    assert two.path == (b"delta", b"sub")
    assert (link.kind, link.target) == (EntryKind.SYMLINK, b"/etc/x")
    assert (holes.path, holes.size, holes.pieces, parts) == ((b"delta", b"s"), 1 << 40, [(4096, 3), (1 << 39, 3)], b"midend")


def test_an_archive_is_whole_or_refused() -> None:
    data = TOP + pax.member(b"delta/a", data=b"x" * 700, attributes={b"mtime": b"1.5"}) + pax.END
    assert len(read(data)) == 2
    for length in range(0, len(data) - 1, 64):
        with pytest.raises(InvalidInput):
            read(data[:length])
    for rest in (b"\0" * 512 + b"x", TOP):
        with pytest.raises(InvalidInput, match="refused"):
            read(data + rest)


def acl(*lines: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *line) for line in lines)


XATTR = b"SCHILY.xattr."
HOSTILE: dict[str, bytes] = {
    "absolute": pax.member(b"/etc/x"),
    "absolute by attribute": pax.member(b"x", attributes={b"path": b"/etc/x"}),
    "up": pax.member(b"delta/../../x"),
    "up by attribute": pax.member(b"x", attributes={b"path": b"delta/.."}),
    "up by prefix": pax.member(b"x", prefix=b".."),
    "dot": pax.member(b"delta/./x"),
    "empty part": pax.member(b"delta//x"),
    "no name": pax.member(b""),
    "slash at a file": pax.member(b"delta/x/"),
    "name with nothing": pax.member(b"x", attributes={b"path": b"delta/a\0b"}),
    "long name": pax.member(b"x", attributes={b"path": b"delta/" + b"n" * 256}),
    "deep": pax.member(b"x", attributes={b"path": b"/".join([b"d"] * (DEEPEST + 1))}),
    "device": pax.member(b"delta/sda", b"3", major=b"0000010\0"),
    "block device": pax.member(b"delta/sda", b"4"),
    "character device by minor": pax.member(b"delta/null", b"3", minor=b"0000003\0"),
    "contiguous": pax.member(b"delta/x", b"7"),
    "old file": pax.member(b"delta/x", b"\0"),
    "GNU long name": pax.member(b"././@LongLink", b"L", b"delta/x\0"),
    "GNU long link": pax.member(b"././@LongLink", b"K", b"delta/x\0"),
    "GNU sparse": pax.member(b"delta/x", b"S"),
    "GNU magic": pax.member(b"delta/x", magic=b"ustar  \0"),
    "V7": pax.member(b"delta/x", magic=b""),
    "attributes for all": pax.header(b"g", b"g", 10) + pax.padded(pax.records({b"uid": b"1"})),
    "foreign id": pax.member(b"delta/x", uid=b"0200000\0"),
    "foreign group by attribute": pax.member(b"delta/x", attributes={b"gid": b"65536"}),
    "negative id": pax.member(b"delta/x", attributes={b"uid": b"-1"}),
    "base 256": pax.member(b"delta/x", uid=b"\x80" + bytes(7)),
    "huge id": pax.member(b"delta/x", attributes={b"uid": b"9" * 40}),
    "sum": pax.header(b"delta/x", sum=b"000000\0 "),
    "data of a directory": pax.member(b"delta/d/", b"5", b"x"),
    "size of a link": pax.member(b"delta/l", b"2", b"x", target=b"a"),
    "link to nothing": pax.member(b"delta/l", b"2"),
    "link to NUL": pax.member(b"delta/l", b"2", attributes={b"linkpath": b"a\0b"}),
    "file with target": pax.member(b"delta/l", target=b"x"),
    "other name of what is above": pax.member(b"delta/l", b"1", target=b"../x"),
    "other name of what is absolute": pax.member(b"delta/l", b"1", target=b"/etc/shadow"),
    "redirect": pax.member(b"delta/d/", b"5", attributes={XATTR + b"trusted.overlay.redirect": b"/etc"}),
    "metacopy": pax.member(b"delta/x", attributes={XATTR + b"trusted.overlay.metacopy": b""}),
    "origin": pax.member(b"delta/x", attributes={XATTR + b"trusted.overlay.origin": b"x"}),
    "whiteouts by attribute": pax.member(b"delta/d/", b"5", attributes={XATTR + b"trusted.overlay.opaque": b"x"}),
    "whiteout by attribute": pax.member(b"delta/x", attributes={XATTR + b"trusted.overlay.whiteout": b"y"}),
    "opaque file": pax.member(b"delta/x", attributes={XATTR + b"trusted.overlay.opaque": b"y"}),
    "label": pax.member(b"delta/x", attributes={XATTR + b"security.selinux": b"x"}),
    "trusted": pax.member(b"delta/x", attributes={XATTR + b"trusted.x": b"x"}),
    "long capability": pax.member(b"delta/x", attributes={XATTR + b"security.capability": b"x" * 25}),
    "capability of a directory": pax.member(b"delta/d/", b"5", attributes={XATTR + b"security.capability": b"x" * 20}),
    "attribute of a link": pax.member(b"delta/l", b"2", attributes={XATTR + b"user.x": b"x"}, target=b"a"),
    "large attribute": pax.member(b"delta/x", attributes={XATTR + b"user.x": b"x" * 70000}),
    "no list": pax.member(b"delta/x", attributes={XATTR + ACLS[0]: b"x"}),
    "list of another version": pax.member(b"delta/x", attributes={XATTR + ACLS[0]: struct.pack("<I", 3)}),
    "list with a foreign id": pax.member(b"delta/x", attributes={XATTR + ACLS[0]: acl((1, 7, 0), (2, 7, 65536))}),
    "list for new entries of a file": pax.member(b"delta/x", attributes={XATTR + ACLS[1]: acl((1, 7, 0))}),
    "list in words": pax.member(b"delta/x", attributes={b"SCHILY.acl.access": b"user::rwx"}),
    "unknown attribute": pax.member(b"delta/x", attributes={b"LIBARCHIVE.creationtime": b"1"}),
    "attribute twice": pax.header(b"x", b"x", 22) + pax.padded(b"11 uid=123\n" * 2) + pax.header(b"delta/x"),
    "attributes cut off": pax.header(b"x", b"x", 8) + pax.padded(b"99 uid=1") + pax.header(b"delta/x"),
    "attributes of no length": pax.header(b"x", b"x", 8) + pax.padded(b"0 uid=1\n") + pax.header(b"delta/x"),
    "attributes of attributes": pax.header(b"x", b"x") * 2 + pax.header(b"delta/x"),
    "attributes of nothing": pax.header(b"x", b"x"),
    "attributes without end": pax.header(b"x", b"x", 1 << 30),
    "time": pax.member(b"delta/x", attributes={b"mtime": b"soon"}),
    "time far away": pax.member(b"delta/x", attributes={b"mtime": b"999999999999"}),
    "size without end": pax.header(b"delta/x", size=0) + b"",
    "negative size": pax.member(b"delta/x", attributes={b"size": b"-512"}),
    "other holes": pax.member(b"delta/x", attributes={b"GNU.sparse.major": b"0", b"GNU.sparse.minor": b"1"}),
    "holes without name": pax.member(
        b"delta/x", attributes={b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"1"}
    ),
    "holes: too many": pax.sparse(b"delta/x", 10, [(0, b"x")], "99999999\n0\n1\n"),
    "holes: no number": pax.sparse(b"delta/x", 10, [(0, b"x")], "x\n"),
    "holes: backwards": pax.sparse(b"delta/x", 10, [(5, b"x"), (0, b"y")]),
    "holes: over each other": pax.sparse(b"delta/x", 10, [(0, b"xx"), (1, b"yy")]),
    "holes: past the end": pax.sparse(b"delta/x", 10, [(10, b"x")]),
    "holes: more than there is": pax.sparse(b"delta/x", 10, [(0, b"x")], "1\n0\n9\n"),
    "holes: less than there is": pax.sparse(b"delta/x", 10, [(0, b"xyz")], "1\n0\n1\n"),
    "holes: more numbers": pax.sparse(b"delta/x", 10, [(0, b"x")], "1\n0\n1\n7\n"),
    "holes: not a file": pax.member(
        b"x/", b"5", attributes={b"GNU.sparse.name": b"delta/x", b"GNU.sparse.major": b"1", b"GNU.sparse.what": b"0"}
    ),
}


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind not in ("size without end", "holes: not a file")])
def test_what_export_would_not_have_written_is_refused(kind: str, tmp_path: Path) -> None:
    data = TOP + HOSTILE[kind] + pax.END
    with pytest.raises(InvalidInput) as caught:
        read(data)
    assert caught.value.why
    assert caught.value.hint
    assert caught.value.why.isprintable()
    (tmp_path / "new").mkdir()
    with pytest.raises(InvalidInput):
        unpack(data, tmp_path / "new")
    assert [each.name for each in tmp_path.iterdir()] == ["new"]
    assert not [*(tmp_path / "new").iterdir()]


LEADING_OUT: dict[str, bytes] = {
    "by a link": pax.member(b"delta/a", b"2", target=b"/tmp", **OWNER) + pax.member(b"delta/a/x", data=b"x", **OWNER),
    "by a link to above": pax.member(b"delta/a", b"2", target=b"..", **OWNER) + pax.member(b"delta/a/out", **OWNER),
    "by a directory replaced": pax.member(b"delta/a/", b"5", mode=b"0000755\0", **OWNER)
    + pax.member(b"delta/a", b"2", target=b"..", **OWNER),
    "by a file replaced": pax.member(b"delta/a", **OWNER) + pax.member(b"delta/a", data=b"x", **OWNER),
    "by a link replaced by a file": pax.member(b"delta/a", b"2", target=b"../out", **OWNER)
    + pax.member(b"delta/a", data=b"x", **OWNER),
    "by another name through a link": pax.member(b"delta/a", b"2", target=b"/etc", **OWNER)
    + pax.member(b"delta/b", b"1", target=b"delta/a/passwd", **OWNER),
    "by another name of what is elsewhere": pax.member(b"delta/b", b"1", target=b"base", **OWNER),
    "by another name of a directory": pax.member(b"delta/d/", b"5", **OWNER)
    + pax.member(b"delta/b", b"1", target=b"delta/d", **OWNER),
    "by another name of what comes later": pax.member(b"delta/b", b"1", target=b"delta/c", **OWNER)
    + pax.member(b"delta/c", **OWNER),
    "without its directory": pax.member(b"delta/no/x", **OWNER),
    "beside": pax.member(b"other/x", **OWNER),
    "instead of the top": pax.member(b"delta", data=b"x", **OWNER),
    "the top twice": TOP,
}


@pytest.mark.parametrize("kind", LEADING_OUT)
def test_nothing_leads_out_or_replaces(kind: str, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    with pytest.raises(InvalidInput, match="refused"):
        unpack(TOP + LEADING_OUT[kind] + pax.END, new)
    assert [each.name for each in tmp_path.iterdir()] == ["new"]
    assert all(not each.is_file() or not each.stat().st_size for each in new.iterdir() if not each.is_symlink())


def test_an_archive_without_a_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="refused"):
        unpack(pax.END, tmp_path)


def test_bombs_end_at_the_limits() -> None:
    many = TOP + b"".join(pax.member(b"delta/%d" % number) for number in range(20)) + pax.END
    with pytest.raises(NoCapacity, match="refused") as caught:
        read(many, ArchiveLimits(entries=10))
    assert "10 entries" in caught.value.why
    large = TOP + pax.member(b"delta/x", data=b"x" * 2000) + pax.END
    with pytest.raises(NoCapacity):
        read(large, ArchiveLimits(data=1999))
    assert len(read(large, ArchiveLimits(data=2000))) == 2
    # A hole takes no room.
    read(TOP + pax.sparse(b"delta/s", 1 << 60, [(1 << 59, b"x")]) + pax.END, ArchiveLimits(data=10_000))


# -- what is unpacked ---------------------------------------------------------------------------------------------

names = st.binary(min_size=1, max_size=30).filter(lambda n: not {0, 47} & {*n} and n not in (b".", b".."))
times = st.integers(-(10**9), 4 * 10**9).map(lambda ns: b"%d.%09d" % (abs(ns), 7) if ns >= 0 else b"-%d.5" % -ns)
modes = st.integers(0, 0o1777).map(lambda mode: b"%07o\0" % mode)
values = st.dictionaries(st.sampled_from([b"user.a", b"user.b%25"]), st.binary(min_size=1, max_size=50), max_size=2)


@st.composite
def trees(draw: st.DrawFn) -> bytes:
    """An archive of a random tree."""
    data, directories, files, taken = TOP, [b"delta"], list[bytes](), {b"delta"}
    for name in draw(st.lists(names, max_size=12)):
        path = draw(st.sampled_from(directories)) + b"/" + name
        if path in taken:
            continue
        taken.add(path)
        kind = draw(st.sampled_from("dfslwp" if files else "dfswp"))
        said = {b"mtime": draw(times), b"path": path + (b"/" if kind == "d" else b"")}
        more: dict[str, Any] = {**OWNER, "mode": draw(modes)}
        if kind in "df":
            said |= {XATTR + key: value for key, value in draw(values).items()}
        match kind:
            case "d":
                directories.append(path)
                # Root may do all; others must be able to go on here.
                more["mode"] = b"0000755\0"
                data += pax.member(b"x/", b"5", b"", said, **more)
            case "f":
                more["mode"] = b"%07o\0" % (int(more["mode"][:7], 8) | 0o600)
                files.append(path)
                data += pax.member(b"x", b"0", draw(st.binary(max_size=2000)), said, **more)
            case "s":
                files.append(path)
                pieces, at = [], 0
                part = st.tuples(st.integers(0, 70000), st.binary(min_size=1, max_size=99))
                for gap, piece in draw(st.lists(part, max_size=3)):
                    pieces.append((at + gap, piece))
                    at += gap + len(piece)
                data += pax.sparse(path, at + draw(st.integers(0, 1 << 34)), pieces, **OWNER)
            case "l":
                said |= {XATTR + key: value for key, value in draw(values).items()}
                data += pax.member(b"x", b"1", b"", {**said, b"linkpath": draw(st.sampled_from(files))}, **more)
            case "w":
                data += pax.member(b"x", b"3", b"", said, **more)
            case "p":
                data += pax.member(b"x", b"6", b"", said, **more)
    return data + pax.END


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees())
def test_random_trees_come_back(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as made:
        unpack(data, Path(made))
        assert compare(data, Path(made)) == []
        wanted = {b"/".join(entry.path) for entry, _ in read(data)}
        assert {b"delta", *(b"delta/" + os.path.relpath(p, os.fsencode(made)) for p in walk(os.fsencode(made)))} == wanted


def walk(top: bytes) -> Iterator[bytes]:
    for directory, below, files in os.walk(top):
        yield from (os.path.join(directory, name) for name in (*below, *files))


CHANGES: dict[str, Callable[[Path], object]] = {
    "another content": lambda top: _keep_time(top / "file", lambda: (top / "file").write_bytes(b"hellO")),
    "is of another kind": lambda top: _replace(top / "link", b"x"),
    "has the mode": lambda top: (top / "file").chmod(0o600),
    "another time": lambda top: os.utime(top / "file", (1, 1)),
    "other attributes": lambda top: os.setxattr(top / "file", "user.x", b"x"),
    "is not another name": lambda top: _replace(top / "other", b"hello"),
    "leads elsewhere": lambda top: _replace(top / "link", None),
    "No such file": lambda top: (top / "link").unlink(),
    "is not in the archive": lambda top: (top / "more").write_text("x"),
    "sparse: has another content": lambda top: _keep_time(top / "sparse", lambda: _poke(top / "sparse")),
}


def _replace(file: Path, content: bytes | None) -> None:
    file.unlink()
    if content is None:
        file.symlink_to("elsewhere")
    else:
        file.write_bytes(content)


def _keep_time(file: Path, change: Callable[[], object]) -> None:
    before = file.stat()
    change()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _poke(file: Path) -> None:
    with file.open("r+b") as opened_file:
        opened_file.seek(100)
        opened_file.write(b"x")


@pytest.mark.parametrize("kind", CHANGES)
def test_each_difference_is_found(kind: str, tmp_path: Path) -> None:
    data = (
        TOP
        + pax.member(b"delta/file", data=b"hello", **OWNER)
        + pax.member(b"delta/link", b"2", target=b"there", **OWNER)
        + pax.member(b"delta/other", b"1", target=b"delta/file", **OWNER)
        + pax.sparse(b"delta/sparse", 100_000, [(8192, b"x")], **OWNER)
        + pax.END
    )
    unpack(data, tmp_path)
    assert compare(data, tmp_path) == []
    CHANGES[kind](tmp_path)
    found = compare(data, tmp_path)
    assert any(kind in each for each in found) or any(each.endswith("has another content") for each in found), found


def test_a_set_id_bit_and_a_list_for_new_entries_survive_what_comes_after(tmp_path: Path) -> None:
    listed = acl((1, 7, 0xFFFFFFFF), (4, 5, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
    data = (
        TOP
        + pax.member(b"delta/d/", b"5", b"", {XATTR + ACLS[1]: listed, b"mtime": b"5.000000005"}, mode=b"0000755\0", **OWNER)
        + pax.member(b"delta/d/x", data=b"x", mode=b"0004755\0", **OWNER)
        + pax.END
    )
    unpack(data, tmp_path)
    assert stat.S_IMODE((tmp_path / "d/x").stat().st_mode) == 0o4755
    assert os.listxattr(tmp_path / "d/x") == []
    assert (tmp_path / "d").stat().st_mtime_ns == 5_000_000_005
    assert compare(data, tmp_path) == []


# -- the head -----------------------------------------------------------------------------------------------------

HEAD = heads.ArchiveHead(
    "web1", "0.1.0", "2026-01-01T00:00:00Z", "frozen", {"init": "app", "labels": {"a": "b"}},
    {"ID": "debian", "VERSION_ID": "12"}, "0" * 64, "a" * 32,
    (Volume("data", 1 << 30, {"a": "b"}, 100_000, "2026-01-01T00:00:00Z"),),
)  # fmt: skip


def test_a_head_is_read_as_it_was_written() -> None:
    assert heads.parse(heads.render(HEAD).encode()) == HEAD
    bare = replace(HEAD, volumes=())
    assert heads.parse(heads.render(bare).encode()) == bare
    # What has no volumes can be read by a lxcfleet that knows no other format than the first.
    assert "format: 1\n" in heads.render(bare)
    first = heads.render(bare).replace("volumes: []", "volumes: [data, x]").encode()
    assert heads.parse(first).volumes == (Volume("data"), Volume("x"))
    for wrong in ("[data, data]", "[tmpfs]"):
        with pytest.raises(InvalidInput):
            heads.parse(heads.render(bare).replace("volumes: []", f"volumes: {wrong}").encode())
    with pytest.raises(InvalidInput, match="can't be used"):
        heads.parse(heads.render(HEAD).replace("1073741824", '"much"').encode())


def test_no_archive_is_written_whose_head_would_be_too_long_to_be_read() -> None:
    assert len(heads.render(replace(HEAD, spec={"environment": {"A": "x" * 200_000}}))) < heads.MOST_HEAD
    with pytest.raises(NoCapacity, match="web1"):
        heads.render(replace(HEAD, spec={"environment": {"A": "x" * heads.MOST_HEAD}}))


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("format: 2", "format: 3", Unsupported), ("format: 2", "format: true", Unsupported), ("format: 2\n", "", Unsupported),
        ("name: \"web1\"", "name: \"../x\"", InvalidInput), ("name: \"web1\"", "name: [x]", InvalidInput),
        ('"' + "a" * 32 + '"', '"../../etc/passwd"', InvalidInput), ('{"data": ', '{"../x": ', InvalidInput),
        ("spec: {", "spec: [{", InvalidInput), ("created:", "greeted:", InvalidInput),
    ],
)  # fmt: skip
def test_a_head_that_can_not_be_used_is_refused(old: str, new: str, kind: type[FleetError]) -> None:
    text = heads.render(HEAD)
    assert old in text
    with pytest.raises(kind) as caught:
        heads.parse(text.replace(old, new).encode())
    assert caught.value.why
    if "3" in new:
        assert "upgrade" in caught.value.hint


def test_records_of_the_base_are_those_that_the_head_names() -> None:
    content = b"/etc/passwd 3\nabc/etc/group 0\n"
    name = reconcile._digest(content)
    reconcile.check_snapshot(name, content)
    wrong: Mapping[str, bytes] = {
        name: content + b"x", "b" * 32: content, reconcile._digest(b"/etc/hosts 0\n"): b"/etc/hosts 0\n",
        reconcile._digest(b"/etc/passwd 9\nx"): b"/etc/passwd 9\nx",
        reconcile._digest(b"/etc/passwd -1\nx"): b"/etc/passwd -1\nx",
        reconcile._digest(b"/etc/passwd 0\n" * 99): b"/etc/passwd 0\n" * 99,
    }  # fmt: skip
    for told, given_content in wrong.items():
        with pytest.raises(InvalidInput):
            reconcile.check_snapshot(told, given_content)


def test_records_of_the_base_go_along_only_with_records_of_ones_own(tmp_path: Path) -> None:
    assert not reconcile.has_records(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text("x")
    (tmp_path / "etc/passwd").symlink_to("hosts")
    assert not reconcile.has_records(tmp_path)
    (tmp_path / "etc/group").touch()
    assert reconcile.has_records(tmp_path)
