"""The language that a container's own files ask for."""

import os
from pathlib import Path

import pytest

from lxcfleet.host.lxc.language import variables


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
