"""Archives of containers, unpacked on the host: nothing is made outside of the directory, and hostile ones cost little."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from lxcfleet.cli.ui import unpack
from lxcfleet.cli.ui.unpack import Unpacking


def entry(name: str, content: bytes | None = None, **more: object) -> tuple[tarfile.TarInfo, bytes | None]:
    found = tarfile.TarInfo(name)
    found.mode, found.uid, found.gid, found.mtime = 0o640, os.geteuid(), os.getegid(), 1_000_000_000
    if content is not None:
        found.size = len(content)
    for key, value in more.items():
        setattr(found, key, value)
    return found, content


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, None]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode)[0], None


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, None]:
    return entry(name, type=kind, linkname=target)[0], None


def archive(*entries: tuple[tarfile.TarInfo, bytes | None]) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as made:
        for each, content in entries:
            made.addfile(each, None if content is None else io.BytesIO(content))
    file.seek(0)
    return file


def unpacked(top: Path, *entries: tuple[tarfile.TarInfo, bytes | None]) -> list[str]:
    """Unpack; gives the names of what was left out."""
    unpacking = Unpacking(top)
    unpacking.run(archive(*entries))
    return [line.partition(": ")[0] for line in unpacking.left_out]


def test_files_directories_and_links_are_unpacked_with_mode_and_time(tmp_path: Path) -> None:
    top = tmp_path / "top"
    left = unpacked(
        top, directory("./d", 0o500), entry("./d/f", b"text"), link("./d/l", "f"), link("./hard", "./d/f", tarfile.LNKTYPE),
        entry("deep/er/g", b"g", mode=0o4755),
    )  # fmt: skip
    assert left == []
    assert (top / "d/l").read_bytes() == b"text"
    assert os.path.samefile(top / "hard", top / "d/f")
    assert stat.S_IMODE((top / "d").stat().st_mode) == 0o500
    assert (top / "d/f").stat().st_mtime == 1_000_000_000
    assert stat.S_IMODE((top / "deep/er/g").stat().st_mode) == 0o755, "set-id bits are never kept"
    (top / "d").chmod(0o700)


@pytest.mark.parametrize(
    "hostile",
    [
        entry("/etc/passwd", b"x"),
        entry("../outside", b"x"),
        entry("a/../../outside", b"x"),
        link("l", "/etc"),
        link("l", ".."),
        link("a/l", "../.."),
        link("l", "a/../.."),
        link("l", ""),
        link("l", "../outside", tarfile.LNKTYPE),
        link("l", "/etc/passwd", tarfile.LNKTYPE),
        entry("p", type=tarfile.FIFOTYPE),
        entry("c", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("b", type=tarfile.BLKTYPE, devmajor=8),
        entry("x/" * 300 + "f", b"x"),
        entry("n" * 300, b"x"),
    ],
)
def test_what_could_lead_out_or_is_no_file_is_left_out_and_told(
    tmp_path: Path, hostile: tuple[tarfile.TarInfo, bytes | None]
) -> None:
    top = tmp_path / "top"
    left = unpacked(top, hostile, entry("after", b"x"))
    assert left == [hostile[0].name[:200]]
    assert (top / "after").read_bytes() == b"x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["top"]
    assert not any(path.is_symlink() for path in top.rglob("*"))


def test_no_link_is_followed_neither_of_the_archive_nor_one_that_is_there(tmp_path: Path) -> None:
    outside, top = tmp_path / "outside", tmp_path / "top"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    top.mkdir()
    (top / "there").symlink_to(outside)
    (top / "file").symlink_to(outside / "kept")
    left = unpacked(
        top, directory("d"), link("l", "d"), entry("l/f", b"x"), entry("there/f", b"x"), entry("file", b"new"),
        directory("l"),
    )  # fmt: skip
    assert left == ["l/f", "there/f", "l"]
    assert (outside / "kept").read_text() == "kept"
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert (top / "file").read_bytes() == b"new"
    assert not (top / "file").is_symlink()


def test_another_name_of_a_link_leads_nowhere(tmp_path: Path) -> None:
    """A link that stays inside where it is, and would lead out from elsewhere."""
    left = unpacked(tmp_path / "top", directory("a"), link("a/l", ".."), link("l", "a/l", tarfile.LNKTYPE))
    assert left == ["l"]


def test_an_archive_that_is_cut_off_is_told(tmp_path: Path) -> None:
    whole = archive(entry("f", b"x" * 100_000)).getvalue()
    for end in (0, 100, 600, 50_000):
        with pytest.raises(tarfile.TarError):
            Unpacking(tmp_path / "top").run(io.BytesIO(whole[:end]))


def header(kind: bytes, size: bytes = b"00000000010") -> bytes:
    """A header as tar writes it, with a right checksum."""
    block = bytearray(entry("x")[0].tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = size.ljust(12, b"\0")
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "hostile",
    [
        header(tarfile.GNUTYPE_LONGNAME, b"77777777777"),  # 8 GiB of name
        header(tarfile.XHDTYPE, b"77777777777"),
        header(tarfile.XGLTYPE) + bytes(512),
        header(tarfile.GNUTYPE_SPARSE),
        header(tarfile.REGTYPE, b"\xff" * 12),  # a size below zero
        (header(tarfile.GNUTYPE_LONGNAME) + b"n".ljust(512, b"\0")) * 5000,  # a name of a name of a name …
        b"\x01" * 4096,
    ],
    ids=["long name", "long attributes", "for all", "holes", "below zero", "chain", "nonsense"],
)
def test_headers_that_make_no_sense_cost_neither_memory_nor_time(tmp_path: Path, hostile: bytes) -> None:
    with pytest.raises(tarfile.TarError):
        Unpacking(tmp_path / "top").run(io.BytesIO(hostile + bytes(1024)))


def test_numbers_that_make_no_sense_are_told(tmp_path: Path) -> None:
    pax = b"13 mtime=inf\n"
    file = header(tarfile.XHDTYPE, b"%011o" % len(pax)) + pax.ljust(512, b"\0") + header(tarfile.REGTYPE, b"0") + bytes(1024)
    unpacking = Unpacking(tmp_path / "top")
    unpacking.run(io.BytesIO(file))
    assert len(unpacking.left_out) == 1


def test_more_entries_than_are_unpacked_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "MOST_FILES", 2)
    unpacking = Unpacking(tmp_path / "top")
    unpacking.run(archive(*(entry(name, b"x") for name in "abc")))
    assert unpacking.left_out == ["the rest: the archive has more than 2 entries"]
    assert sorted(path.name for path in (tmp_path / "top").iterdir()) == ["a", "b"]
