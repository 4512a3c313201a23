"""The cause of a halt: packages that changed, the way back, and the operator's command."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from lxcfleet.base.merge import records
from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.host.process import shell
from lxcfleet.patch.rollout import causes, halting, packages, state
from lxcfleet.patch.rollout.state import Halt, Rollout, RolloutKind, Status
from lxcfleet.paths import Paths
from lxcfleet.spec.policies import rollout as policies
from lxcfleet.spec.policies.rollout import RolloutSettings

STATUS = b"""Package: greet
Status: install ok installed
Architecture: all
Version: 1

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 7
"""


def test_versions_are_those_of_installed_packages() -> None:
    assert records.versions(STATUS) == {"greet:all": "1"}


def test_changes_name_architectures_only_where_they_tell_packages_apart() -> None:
    before = {"greet:all": "1", "libc6:amd64": "2", "libc6:i386": "2", "same:all": "1"}
    now = {"greet:all": "2", "libc6:amd64": "3", "libc6:i386": "3", "same:all": "1", "new:all": "1"}
    assert causes.changes(before, now) == {
        "greet": ["1", "2"], "libc6:amd64": ["2", "3"], "libc6:i386": ["2", "3"], "new": ["", "1"],
    }  # fmt: skip


def test_the_way_back_is_a_command_line() -> None:
    assert causes.cure({"greet": ["1", "2"]}) == ["apt install greet=1 && apt-mark hold greet"]
    assert causes.cure({"a": ["1", ""], "b": ["", "1"]}) == ["apt install a=1 && apt-mark hold a"]
    assert causes.cure({"b": ["", "1"]}) == ["apt remove b"]
    assert causes.cure({}) == []
    assert causes.cure({f"p{n}": ["1", "2"] for n in range(100)})[0].count("=") == causes.MOST


def test_the_packages_at_a_start_are_kept_until_the_next_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(lxc=tmp_path / "lxc", run=tmp_path, etc=tmp_path)
    status = tmp_path / "status"
    monkeypatch.setattr(packages, "STATUS", str(status))
    monkeypatch.setattr("lxcfleet.base.merge.reconcile.last_base", lambda _, name: {"a": "one", "b": ""}[name])
    monkeypatch.setattr("lxcfleet.base.merge.reconcile.file_at_last_start", lambda *_: STATUS)
    assert packages.remember(paths, ["a", "b"], fresh=True) == {"a": "one"}
    monkeypatch.setattr("lxcfleet.base.merge.reconcile.file_at_last_start", lambda *_: None)
    assert packages.remember(paths, ["a"], fresh=False) == {"a": "one"}
    assert packages.remember(paths, ["a"], fresh=True) == {"a": "one"}, "an earlier rollout has read that base"
    status.write_bytes(STATUS.replace(b"Version: 1", b"Version: 2"))
    assert packages.changed(paths, "one") == {"greet": ["1", "2"]}
    assert packages.changed(paths, "another") is None
    packages.remember(paths, [], fresh=True)
    assert packages.changed(paths, "one") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"one": 3}'])
def test_notes_that_are_damaged_are_no_notes(text: str) -> None:
    assert causes.recall(text, "one") is None
    assert causes.recall(causes.text_of({**causes.read(text), "two": {"a": "1"}}), "two") == {"a": "1"}


def test_each_base_is_read_once_for_all_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(lxc=tmp_path / "lxc", run=tmp_path, etc=tmp_path)
    read: list[str] = []

    def status_of(_: Paths, name: str, __: str) -> bytes:
        read.append(name)
        return STATUS

    monkeypatch.setattr("lxcfleet.base.merge.reconcile.last_base", lambda _, name: name[0])
    monkeypatch.setattr("lxcfleet.base.merge.reconcile.file_at_last_start", status_of)
    packages.remember(paths, ["a1", "a2", "b1", "a3"], fresh=True)
    assert read == ["a1", "b1"]
    packages.remember(paths, ["a1", "a2"], fresh=True)
    assert read == ["a1", "b1"]
    assert packages.changed(paths, "b") is None, "the rollout that needed that base has been over"
    texts: list[str] = []
    real = causes.read

    def counted(text: str) -> dict[str, dict[str, str]]:
        texts.append(text)
        return real(text)

    monkeypatch.setattr(causes, "read", counted)
    packages.remember(paths, ["a1", "a2", "a3"], fresh=False)
    assert len(texts) == 1, "not once for each container"


def test_a_halt_is_read_as_it_was_written() -> None:
    halt = Halt("c1", "status 500", "log", {"greet": ["1", "2"]}, 37)
    rollout = Rollout("r1", RolloutKind.PATCH, RolloutSettings(), "now", status=Status.HALTED, halted=halt)
    assert state.from_json(state.to_json(rollout)) == rollout
    data = json.loads(state.to_json(rollout))
    data["halted"] = {key: data["halted"][key] for key in ("container", "why", "log")}
    assert state.from_json(json.dumps(data)).halted == Halt("c1", "status 500", "log"), "the former version's"


def test_an_event_has_cause_and_versions() -> None:
    halt = Halt("c1", "sick", packages={"greet": ["1", "2"], "b": ["", "1"], "c": ["1", ""]})
    assert causes.in_words(halt) == "; packages that changed since it was well: greet 1 -> 2, b new -> 1, c 1 -> removed"
    assert causes.in_words(Halt("c1", "sick")) == ""


# the operator's command


@pytest.mark.reaches("processes", reason="the operator's command is a process")
def test_the_command_gets_the_facts_and_no_more_of_its_output_is_kept_than_is_wanted(tmp_path: Path) -> None:
    rollout = Rollout("r1", RolloutKind.PATCH, RolloutSettings(), "now")
    changed = {"greet": ["1", "2"], "new": ["", "1"]}
    facts = causes.environment(rollout, Halt("c1", "sick\0", "l" * 99999, changed, 37, "exit status 37"))
    out = tmp_path / "out"
    command = f"env >{out}; yes | head -c 100000"
    status, printed = shell.run(command, {**halting.ENVIRONMENT, **facts}, seconds=60, most=100)
    assert (status, len(printed)) == (0, 100)
    said = out.read_text()
    for line in (
        "LXCFLEET_CONTAINER=c1", "LXCFLEET_WHY=sick", "LXCFLEET_EXIT_STATUS=37", "LXCFLEET_ENDED=exit status 37",
        "LXCFLEET_PACKAGES=greet 1 2",
        "LXCFLEET_COMMANDS=apt install greet=1 && apt-mark hold greet", "LXCFLEET_ROLLOUT=r1",
    ):  # fmt: skip
        assert f"{line}\n" in said
    assert len(said) < 20000


@pytest.mark.reaches("processes", reason="the operator's command is a process")
def test_a_command_that_does_not_end_is_ended_with_all_that_it_began(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(HostError, match="did not end within"):
        shell.run(f"sleep 1000 & echo $! >{pid}; wait", halting.ENVIRONMENT, seconds=3.0, most=100)
    for _ in range(6000):  # the kernel takes a moment
        try:
            os.kill(int(pid.read_text()), 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    else:
        pytest.fail("a process of it runs on")


@pytest.mark.reaches("processes", reason="the operator's command is a process")
def test_a_command_that_leaves_something_behind_is_not_waited_for() -> None:
    status, printed = shell.run("sleep 1000 & echo said; exit 3", halting.ENVIRONMENT, seconds=60, most=100)
    assert (status, printed) == (3, "said\n")


@pytest.mark.reaches("processes", reason="the operator's command is a process")
def test_a_failure_of_the_command_is_told() -> None:
    said: list[str] = []
    asyncio.run(halting.run("echo no mail; exit 7", {}, said.append))
    asyncio.run(halting.run("true", {}, said.append))
    assert said == ["on_halt failed: exit status 7: no mail"]


def test_a_request_can_not_name_a_command() -> None:
    with pytest.raises(InvalidInput):
        policies.overridden(RolloutSettings(), {"on_halt": "reboot"})
