"""The directories that programs expect in an app container's /run."""

from __future__ import annotations

from pathlib import Path

from lxcfleet.base.runtime import RuntimeDirectory, directories
from lxcfleet.base.tree import Tree


def base(directory: Path, **files: str) -> Path:
    (directory / "etc").mkdir()
    (directory / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\npostgres:x:107:112::/var/lib/x:/bin/sh\nbroken\n")
    (directory / "etc/group").write_text("root:x:0:\npostgres:x:112:\nbig:x:70000:\n")
    (directory / "usr/lib/tmpfiles.d").mkdir(parents=True)
    for name, text in files.items():
        (directory / f"usr/lib/tmpfiles.d/{name}.conf").write_text(text)
    return directory


LOCK = RuntimeDirectory("/lock", 0o1777)


def test_directories_are_those_that_packages_ask_for(tmp_path: Path) -> None:
    text = "# a\nd /run/postgresql 2775 postgres postgres - -\nD /var/run/a/b\nd! /run/c ~0700 107 :112\nd /run/c 0755\n"
    assert directories(Tree(base(tmp_path, postgresql=text))) == [
        RuntimeDirectory("/a/b"), RuntimeDirectory("/c", 0o700, 107, 112), LOCK,
        RuntimeDirectory("/postgresql", 0o2775, 107, 112),
    ]  # fmt: skip


def test_all_other_lines_are_left_out(tmp_path: Path) -> None:
    text = (
        "f /run/file 0644\nL /run/link - - - - /etc\nd /run/%m 0755\nd /run/../etc 0777\nd /run 0777\nd /etc/x 0755\n"
        "d /run/x 0755 nobody-knows root\nd /run/y 0755 root big\nd /run/z rwx\nd\n\n d /run/w\nd /run/q/./r\nd /run/\u00e4\n"
    )
    assert directories(Tree(base(tmp_path, other=text, systemd="d /run/user", legacy="d /run/lock/subsys"))) == [LOCK]


def test_a_base_without_such_files_is_fine(tmp_path: Path) -> None:
    assert directories(Tree(tmp_path)) == [LOCK]


def test_what_was_found_holds_until_a_file_of_it_changes(tmp_path: Path) -> None:
    """Each start of many would read all these files again, which took a third of its preparation."""
    top = base(tmp_path, one="d /run/one\n", two="d /run/two 0755 new new\n")
    first = directories(Tree(top))
    assert directories(Tree(top)) is first
    rules = top / "usr/lib/tmpfiles.d"
    changes: list[tuple[Path, str]] = [
        (top / "etc/passwd", "new:x:5:5::/:/bin/sh\n"), (top / "etc/group", "new:x:5:\n"),
        (rules / "one.conf", "d /run/three\n"), (rules / "four.conf", "d /run/four\n"),
    ]  # fmt: skip
    for file, text in changes:
        before = directories(Tree(top))
        file.write_text(text)
        assert directories(Tree(top)) is not before
    (rules / "four.conf").unlink()
    assert directories(Tree(top)) == [LOCK, RuntimeDirectory("/three"), RuntimeDirectory("/two", 0o755, 5, 5)]
