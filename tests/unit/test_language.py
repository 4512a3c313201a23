"""The language that a container's own files ask for."""

import os
from pathlib import Path

import pytest

from lxcfleet.host.lxc.language import USUAL, inside, variables
from lxcfleet.host.lxc.language import put as put_into


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_without_a_file_it_is_the_usual_one(tmp_path: Path) -> None:
    assert variables(tmp_path) == {"LANG": "C.UTF-8"}


def test_locale_conf_comes_before_debians_file(tmp_path: Path) -> None:
    put(tmp_path, "etc/default/locale", 'LANG="de_DE.UTF-8"\nLC_TIME=en_GB.UTF-8\n')
    assert variables(tmp_path) == {"LANG": "de_DE.UTF-8", "LC_TIME": "en_GB.UTF-8"}
    put(tmp_path, "etc/locale.conf", "# nothing\n")
    assert variables(tmp_path)["LANG"] == "de_DE.UTF-8"
    put(tmp_path, "etc/locale.conf", "LANG=fr_FR.UTF-8\n")
    assert variables(tmp_path) == {"LANG": "fr_FR.UTF-8"}


@pytest.mark.parametrize(
    "text", ["LANG=", "LANG=$(id)", "PATH=/x", "LANG=../../x", "LANG='a\"", f"LANG={'x' * 99}", "\0\xff", "x" * 9999]
)
def test_what_is_no_language_is_passed_over(tmp_path: Path, text: str) -> None:
    put(tmp_path, "etc/locale.conf", text)
    assert variables(tmp_path) == {"LANG": "C.UTF-8"}


def test_nothing_keeps_a_command_waiting(tmp_path: Path) -> None:
    (tmp_path / "etc/default").mkdir(parents=True)
    os.mkfifo(tmp_path / "etc/locale.conf")
    (tmp_path / "etc/default/locale").symlink_to("locale")
    assert variables(tmp_path) == {"LANG": "C.UTF-8"}


def test_no_link_leads_out_of_the_container(tmp_path: Path) -> None:
    put(tmp_path, "outside", "LANG=de_DE.UTF-8\n")
    root = tmp_path / "root"
    (root / "etc/default").mkdir(parents=True)
    (root / "etc/locale.conf").symlink_to(tmp_path / "outside")
    (root / "etc/default/locale").symlink_to("../../../outside")
    assert inside(root) == USUAL
    os.mkfifo(root / "etc/fifo")
    (root / "etc/locale.conf").unlink()
    (root / "etc/locale.conf").symlink_to("/etc/fifo")
    assert inside(root) == USUAL
    (root / "etc/default/locale").unlink()
    (root / "etc/default/locale").symlink_to("/etc/mine")  # as Debian 13 has it, inside its own root
    put(root, "etc/mine", "LANG=fr_FR.UTF-8\nLC_TIME=C\n")
    assert inside(root) == {"LANG": "fr_FR.UTF-8", "LC_TIME": "C"}


def test_it_takes_the_place_of_the_usual_one_in_the_configuration() -> None:
    command = 'lxc.init.cmd = /usr/bin/env -i -S"--"\\_"LANG=C.UTF-8"\\_"X=LANG=C.UTF-8"'
    config = f"a = b\nlxc.environment = LANG=C.UTF-8\n{command}\n"
    changed = put_into(config, {"LANG": "de_DE.UTF-8", "LC_TIME": "C"})
    assert changed.splitlines() == [
        "a = b", "lxc.environment = LANG=de_DE.UTF-8", "lxc.environment = LC_TIME=C",
        'lxc.init.cmd = /usr/bin/env -i -S"--"\\_"LANG=de_DE.UTF-8"\\_"LC_TIME=C"\\_"X=LANG=C.UTF-8"',
    ]  # fmt: skip
    assert put_into(config, USUAL) == config
