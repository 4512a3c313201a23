"""The playbook that empties a host, with a stand-in for `lxcfleet`: what it asks for, and what follows from a failure."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from .programs import Programs, Ran

STAND_IN = """\
#!{python} -I
import json, sys
words = sys.argv[1:]
with open({log!r}, "a") as file:
    file.write(json.dumps(words) + "\\n")
answers = {{"--list": {moves!r}, "list": [{{"name": name}} for name in ("app", "db", "old")], "drain": {{"changed": True}}}}
print(json.dumps(next((answers[word] for word in answers if word in words), {{"changed": True}})))
sys.exit({status} if words[0] == "move" and "--timeout" in words else 0)
"""
MOVES = [
    {"name": "old", "away": True, "step": "kept"}, {"name": "db", "away": True, "step": "handed"},
    {"name": "came", "away": False, "step": "granted"},
]  # fmt: skip
"""One whose files stayed here, one whose move was broken off, and one that came here."""


def evacuate(directory: Path, collections: Path, *options: str, status: int = 0) -> tuple[Ran, list[list[str]]]:
    """Run it; gives what came of it, and each command line of lxcfleet."""
    if shutil.which("ansible-playbook") is None:
        pytest.skip("needs ansible-core")
    log, programs = directory / "log", Programs(directory, collections)
    (directory / "bin").mkdir(exist_ok=True)
    program = directory / "bin/lxcfleet"
    program.write_text(STAND_IN.format(python=sys.executable, log=str(log), moves=MOVES, status=status))
    program.chmod(0o755)
    programs.path.insert(0, program.parent)
    hosts = ("-i", "localhost,", "-c", "local", "-e", "evacuate_hosts=localhost", "-e", "evacuate_to=root@new")
    ran = programs.run("ansible-playbook", *hosts, *options, "lxcfleet.fleet.evacuate")
    return ran, [json.loads(line) for line in log.read_text().splitlines()]


def test_what_was_broken_off_goes_on_and_then_all_move_in_one_call(tmp_path: Path, collections: Path) -> None:
    ran, asked = evacuate(tmp_path, collections, "-e", "evacuate_keep=true")
    assert ran.status == 0, ran
    assert asked == [
        ["move", "--list", "-f", "json"],
        ["move", "db", "--continue", "-f", "json"],
        ["list", "-f", "json"],
        ["move", "app", "db", "root@new", "-f", "json", "--timeout", "120", "--keep"],
        ["drain", "--why", "moved to root@new", "-f", "json"],
    ]


def test_a_host_of_which_something_could_not_be_moved_is_not_drained(tmp_path: Path, collections: Path) -> None:
    ran, asked = evacuate(tmp_path, collections, status=3)
    assert (ran.status, ran.stats["localhost"]["failures"]) == (2, 1), ran
    assert [words[0] for words in asked] == ["move", "move", "list", "move"]
