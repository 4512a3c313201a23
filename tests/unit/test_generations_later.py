"""Generations over time: many patches in a row, and what of the host's files is known of each generation later."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.base.generations import build, store
from lxcfleet.base.generations.verify import verify
from lxcfleet.errors import HostError
from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths

from .test_generations import freeze, host, parts_of, paths, replace, sheets_there

__all__ = ["host", "paths"]
"""The fixtures."""


def test_thirty_patches_in_an_hour_take_no_more_than_the_generations_that_are_kept(paths: Paths, host: Path) -> None:
    """Three are kept, as by default, and one that a container stands on."""
    used, most = 5, 0
    for number in range(1, 31):
        replace(host / "usr/lib/tool/a", str(number))
        assert freeze(paths, host).number == number
        for old in store.numbers(paths)[:-3]:
            if old != used:
                store.remove(paths, old)
        most = max(most, len(os.listdir(paths.sheets)))
    assert store.numbers(paths) == [used, 28, 29, 30]
    assert most <= 12, "sheets of generations that are gone stay only below those that need them"
    for number in store.numbers(paths):
        view = store.view(paths, store.load(paths, number))
        assert Path(view.outside("/usr/lib/tool/a")).read_text() == str(number)
        assert verify(paths, number).good
    for number in store.numbers(paths):
        store.remove(paths, number)
    assert os.listdir(paths.sheets) == []
    assert (host / "usr/lib/tool/b").stat().st_nlink == 1


@pytest.mark.parametrize("points", [(), ("/usr", "/opt")], ids=["whole", "split"])
@pytest.mark.parametrize("after", [False, True])
def test_a_record_that_can_not_be_written_leaves_no_sheet_behind(
    paths: Paths, host: Path, monkeypatch: pytest.MonkeyPatch, points: tuple[str, ...], after: bool
) -> None:
    """The disk was full once all of the sheet was there: it would stay, and take its room, until the daemon starts anew."""
    monkeypatch.setattr(build, "present", lambda paths, root: parts_of(paths, root, points))
    freeze(paths, host)
    known = sheets_there(paths, host)
    replace(host / "usr/lib/tool/a", "patched")
    real = tree.write

    def write(file: Path, text: str, **options: Any) -> None:
        if file == paths.generation_record(2):
            if after:
                real(file, text, **options)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        real(file, text, **options)

    with monkeypatch.context() as patched:
        patched.setattr(tree, "write", write)
        with pytest.raises(HostError, match="No space left on device"):
            freeze(paths, host)
    assert (store.numbers(paths), sheets_there(paths, host)) == ([1], known)
    assert verify(paths, 1).good
    assert freeze(paths, host).number == 3, "no number is given twice"


def test_attributes_that_the_host_has_changed_are_found(paths: Paths, host: Path) -> None:
    """In place of access lists and capabilities, which only root can give: these are extended attributes as well."""
    a, b = host / "usr/lib/tool/a", host / "usr/lib/tool/b"
    os.setxattr(a, "user.one", b"1")
    cwd = Path.cwd()
    freeze(paths, host)
    assert verify(paths, 1).good
    os.setxattr(b, "user.two", b"2")
    assert verify(paths, 1).altered == ["/usr/lib/tool/b"]
    os.removexattr(a, "user.one")
    report = verify(paths, 1)
    assert (report.altered, report.written) == (["/usr/lib/tool/a", "/usr/lib/tool/b"], [])
    assert Path.cwd() == cwd


def test_a_list_without_attributes_is_of_use(paths: Paths, host: Path) -> None:
    """Those of an earlier version did not have them."""
    freeze(paths, host)
    file = store.manifest_file(paths, "s1")
    content = zlib.decompress(file.read_bytes()[:-32])
    line, _, rest = content.partition(b"\n")
    head = json.loads(line)
    del head["file_attributes"]
    content = zlib.compress(json.dumps(head).encode() + b"\n" + rest)
    file.write_bytes(content + hashlib.sha256(content).digest())
    os.setxattr(host / "usr/lib/tool/a", "user.one", b"1")
    assert verify(paths, 1).good
    (host / "usr/lib/tool/a").chmod(0o600)
    assert verify(paths, 1).altered == ["/usr/lib/tool/a"]
