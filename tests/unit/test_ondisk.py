"""Files that are kept: whatever stands in their place is an error, and nothing is waited for."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lxcfleet
from lxcfleet.spec.reading import ondisk

ROOT = Path(lxcfleet.__file__).parent

MESSAGES = {
    "api/client.py", "daemon/attach.py", "daemon/http/routes.py", "daemon/uses/moves.py",
    "cli/ui/attach.py", "cli/ui/foreground.py", "cli/ui/mover.py", "cli/ui/ssh.py", "cli/verbs/archive.py",
    "cli/verbs/receive.py",
    "host/facts/features.py", "host/lxc/attach.py", "host/lxc/foreground.py", "host/net/nft.py",
    "host/process/confidential.py", "host/process/inside.py", "launcher/client.py",
    "launcher/children/archives.py", "launcher/children/commands.py",
    "launcher/children/preparing.py", "launcher/children/run.py", "logs/keeper.py", "logs/servant.py",
    "patch/rollout/change_sets.py", "spec/reading/ondisk.py",
}  # fmt: skip
"""Modules that read JSON which is no file's: what processes say to each other, and what was written just now."""

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**200), 10**200) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)


@given(VALUES)
def test_a_record_is_read_as_json_has_it(value: Any) -> None:
    assert ondisk.parse(json.dumps(value)) == value


NONE = {
    "empty": b"", "cut": b"{", "no text": b"\xff\xfe", "lists": b"[" * 10_000 + b"]" * 10_000, "mappings": b'{"a":' * 10_000,
    "nan": b"NaN", "infinity": b"[Infinity]", "large": b"1e999", "small": b"-1e999", "digits": b"9" * 301,
}  # fmt: skip


@pytest.mark.parametrize("text", NONE.values(), ids=NONE)
def test_what_is_no_record_is_a_value_error(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(text)
    with pytest.raises(ValueError):  # noqa: PT011  json has words of its own for each
        ondisk.record(file)


def test_what_is_no_plain_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    pipe, link, missing = tmp_path / "pipe", tmp_path / "link", tmp_path / "missing"
    os.mkfifo(pipe)
    link.symlink_to(missing)
    for place, number in ((pipe, errno.EINVAL), (tmp_path, errno.EISDIR), (link, errno.ENOENT), (missing, errno.ENOENT)):
        with pytest.raises(OSError, match=str(place)) as raised:
            ondisk.record(place)
        assert raised.value.errno == number


def test_no_more_is_read_than_such_a_file_has(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as stream:
        stream.truncate(100 << 20)
    with pytest.raises(OSError, match="Larger than") as raised:
        ondisk.content(file, ondisk.SMALL)
    assert raised.value.errno == errno.EFBIG
    file.write_bytes(b"x" * ondisk.SMALL)
    assert ondisk.content(file, ondisk.SMALL) == b"x" * ondisk.SMALL


def test_json_of_files_is_read_in_one_place() -> None:
    found = {str(file.relative_to(ROOT)) for file in ROOT.rglob("*.py") if "json.load" in file.read_text(encoding="utf-8")}
    assert found <= MESSAGES
