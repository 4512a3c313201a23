"""liblxc's log of a start."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxcfleet.host.lxc import liblxc

REFUSED = (
    'lxc x 20260101134932.384 ERROR    utils - ../src/lxc/utils.c:safe_mount:1220 - Not a directory - Failed to mount "proc"',
    'lxc x 20260101134932.384 ERROR    start - ../src/lxc/start.c:do_start:1272 - Failed to setup container "x"',
)
ENDED = (
    "lxc x 20260101134932.400 WARN     start - ../src/lxc/start.c:lxc_free_handler:1000 - whatever",
    "lxc x 20260101134932.401 ERROR    af_unix - ../src/lxc/af_unix.c:lxc_abstract_unix_recv_fds_iov:218 - Reset by "
    "peer - Failed to receive response",
    'lxc x 20260101134932.401 ERROR    commands - ../src/lxc/commands.c:lxc_cmd_rsp_recv_fds:128 - Failed to start " start"',
)


@pytest.mark.parametrize(("lines", "expected"), [(REFUSED, True), (ENDED, False), ((), False), (ENDED + REFUSED, True)])
def test_whether_a_start_was_given_up(tmp_path: Path, lines: tuple[str, ...], expected: bool) -> None:
    log = tmp_path / "log"
    before = "\n".join((*REFUSED, ""))  # lines of an earlier start
    log.write_text(before + "\n".join(lines))
    assert liblxc.gave_up(str(log), len(before)) is expected


def test_the_reason_is_the_first_complaint(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(REFUSED))
    assert liblxc.stop_reason(str(log), 0) == 'Not a directory - Failed to mount "proc"'


def test_without_a_log(tmp_path: Path) -> None:
    assert (liblxc.gave_up(str(tmp_path / "none"), 0), liblxc.stop_reason(str(tmp_path / "none"), 0)) == (False, "")
