"""Moves: which side has the authority, and what comes next, from every interrupted step."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lxcfleet.api.moves import CheckArrivalRequest
from lxcfleet.cli.ui import ssh
from lxcfleet.cli.ui.ssh import Way
from lxcfleet.containers import moving
from lxcfleet.daemon.uses import findings
from lxcfleet.daemon.uses import moves as sending
from lxcfleet.errors import FleetError, InvalidInput, NoCapacity, WrongState
from lxcfleet.paths import Paths
from lxcfleet.spec import moves
from lxcfleet.spec.moves import Journal, MoveStep, Next

MOVE = "0123456789abcdef"


def journal(step: MoveStep, *, away: bool, move: str = MOVE) -> Journal:
    return Journal(move, away, step, "root@other" if away else "alpha/01234567", "2026-01-01T00:00:00Z", ran=True)


@dataclass(frozen=True)
class World:
    """Both sides' disks, and where the container runs."""

    here: Journal | None = None
    there: Journal | None = None
    exists_here: bool = True
    exists_there: bool = False
    runs_here: bool = True
    runs_there: bool = False

    @property
    def authority_here(self) -> bool:
        return self.exists_here and moves.has_authority(self.here)

    @property
    def authority_there(self) -> bool:
        return self.exists_there and moves.has_authority(self.there)


def may(world: World) -> World:
    """What the daemons do by themselves: each starts what belongs to it, and never what does not."""
    here, there = world.exists_here and moves.may_start(world.here), world.exists_there and moves.may_start(world.there)
    return replace(world, runs_here=world.runs_here or here, runs_there=world.runs_there or there)


def daemon_starts(world: World) -> World:
    """The sending side's daemon was killed, or its client: what was not handed over is taken back."""
    if world.here is not None and world.here.step is MoveStep.SENDING:
        return may(replace(world, here=None))
    return may(world)


def grant(world: World) -> Iterator[World]:
    if world.there is None or world.there.step not in (MoveStep.RECEIVED, MoveStep.GRANTED):
        return
    world = replace(world, there=journal(MoveStep.GRANTED, away=False))
    yield world
    world = may(world)
    yield world
    yield replace(world, there=journal(MoveStep.HEALTHY, away=False))


def revoke(world: World) -> Iterator[World]:
    if world.there is None or world.there.step is MoveStep.HEALTHY:
        return
    if world.there.step is MoveStep.RECEIVED:
        yield replace(world, there=None, exists_there=False)
        return
    world = replace(world, runs_there=False)
    yield world
    yield replace(world, there=journal(MoveStep.REVOKED, away=False))


def begin(world: World) -> Iterator[World]:
    """A move anew: each step that is seen on a disk, or in what runs."""
    if world.exists_there:
        yield from revoke(world)
        return
    world = replace(world, here=journal(MoveStep.SENDING, away=True))
    yield world
    world = replace(world, runs_here=False)
    yield world
    world = replace(world, there=journal(MoveStep.RECEIVED, away=False), exists_there=True)
    yield world
    yield replace(world, here=journal(MoveStep.HANDED, away=True))


def take(world: World, following: Next) -> Iterator[World]:
    """What a client does for each word of the plan, step by step."""
    match following:
        case Next.ANEW | Next.CLEAR:
            yield from begin(world)
        case Next.HAND:
            yield replace(world, here=journal(MoveStep.HANDED, away=True))
        case Next.GRANT:
            yield from grant(world)
        case Next.NOTE:
            yield replace(world, here=journal(MoveStep.HEALTHY, away=True))
        case Next.END:
            yield replace(world, here=None, exists_here=False)
        case Next.REVOKE:
            yield from revoke(world)
        case Next.BACK:
            yield replace(world, here=None)
            yield may(replace(world, here=None))
        case Next.DONE:
            if world.there is not None and moves.has_authority(world.there):
                yield replace(world, there=None)


def following(world: World) -> set[World]:
    """All that may come next: a step of a client, forwards or backwards, or a daemon that starts anew."""
    found = {daemon_starts(world)}
    if world.exists_here:
        found |= {*take(world, moves.onward(world.here, world.there, MOVE))}
        found |= {*take(world, moves.backward(world.here, world.there, MOVE))} if world.here is not None else set()
    return found


def all_worlds() -> set[World]:
    seen, left = {World()}, deque([World()])
    while left:
        for each in following(left.popleft()):
            if each not in seen:
                seen.add(each)
                left.append(each)
    return seen


def test_never_do_both_sides_run_it_and_never_is_the_last_copy_gone() -> None:
    worlds = all_worlds()
    assert len(worlds) > 12
    for world in worlds:
        assert not (world.runs_here and world.runs_there), world
        assert not (world.authority_here and world.authority_there), world
        assert world.exists_here or (world.exists_there and world.authority_there), world
        assert world.authority_there or not world.runs_there, world
        if world.exists_here and not world.authority_here and not world.authority_there:
            # Handed over, and not taken yet; or given back, and not taken back yet.
            assert world.here is not None, world
            assert world.here.step is MoveStep.HANDED, world


@pytest.mark.parametrize("way", ["onward", "backward"])
def test_from_every_interrupted_step_one_command_leaves_exactly_one_that_runs(way: str) -> None:
    for start in all_worlds():
        world = daemon_starts(start)
        for _ in range(12):
            if not world.exists_here or world.here is None:
                break
            word = getattr(moves, way)(world.here, world.there, MOVE)
            if word in (Next.LOST, Next.STAYS):
                word = Next.BACK if word is Next.LOST else moves.onward(world.here, world.there, MOVE)
            *_, world = [world, *take(world, word)]
        world = may(world)
        assert [world.runs_here, world.runs_there].count(True) == 1, (start, world)


def test_what_is_destroyed_there_is_not_lost() -> None:
    """The other side's operator destroys it, or has another one of that name by then."""
    for step in (MoveStep.HANDED, MoveStep.HEALTHY):
        here = journal(step, away=True)
        for there in (None, journal(MoveStep.GRANTED, away=False, move="f" * 16), journal(MoveStep.KEPT, away=True)):
            assert moves.onward(here, there, MOVE) is Next.LOST
            assert moves.backward(here, there, MOVE) is Next.BACK
    kept = journal(MoveStep.KEPT, away=True)
    assert (moves.onward(kept, None, MOVE), moves.backward(kept, None, MOVE)) == (Next.DONE, Next.STAYS)
    assert not moves.may_be_destroyed(journal(MoveStep.HANDED, away=True))
    assert moves.may_be_destroyed(kept)


def test_journals_on_disk(tmp_path: Path) -> None:
    paths = Paths(lxc=tmp_path, run=tmp_path / "run", etc=tmp_path / "etc")
    assert moving.load(paths, "web") is None
    paths.container("web").directory.mkdir()
    for step in MoveStep:
        for away in (True, False):
            known = journal(step, away=away)
            paths.container("web").move.write_text(known.render())
            found = moving.load(paths, "web")
            if found == known:
                assert moves.why_not(known)
            else:
                assert found is not None
                assert not moves.may_start(found), "what no side is"
    for text in ("", "{", "[]", "null", '{"id": "x"}', journal(MoveStep.HANDED, away=True).render().replace("true", "1")):
        paths.container("web").move.write_text(text)
        found = moving.load(paths, "web")
        assert found is not None
        assert not moves.has_authority(found)
        with pytest.raises(WrongState, match="can't start"):
            moving.refuse_start(paths, "web")
        with pytest.raises(WrongState, match="not destroyed"):
            moving.refuse_destroy(paths, "web")
    moving.note(paths, "web", journal(MoveStep.GRANTED, away=False))
    moving.refuse_start(paths, "web")
    moving.note(paths, "web", None)
    assert moving.load(paths, "web") is None
    told = findings.of_moves({
        "a": journal(MoveStep.HANDED, away=True), "b": journal(MoveStep.HEALTHY, away=True),
        "c": journal(MoveStep.REVOKED, away=False),
        "d": journal(MoveStep.KEPT, away=True),
    })  # fmt: skip
    assert [each.level for each in told] == ["fail", "warning", "warning"]


def test_a_host_without_room_refuses(tmp_path: Path) -> None:
    paths = Paths(lxc=tmp_path, run=tmp_path / "run", etc=tmp_path / "etc")
    found = os.statvfs(tmp_path)
    free = found.f_bavail * found.f_frsize
    sending._refuse_full(paths, CheckArrivalRequest("web", 1, "1", "alpha", free // 2))
    with pytest.raises(NoCapacity, match="no room for web") as caught:
        sending._refuse_full(paths, CheckArrivalRequest("web", 1, "1", "alpha", free * 2))
    assert str(tmp_path) in caught.value.hint


@pytest.mark.parametrize("host", ["other", "root@other.example.org", "root@10.0.0.2", "fd00::2", "root@fe80::1", "a_b@h-1"])
def test_hosts(host: str) -> None:
    words = Way(host, 2222, "/etc/x").arguments(["lxcfleet", "receive", "status", "a b'; reboot"])
    assert words[-3:] == ["--", host, "lxcfleet receive status 'a b'\"'\"'; reboot'"]
    assert words[words.index("-p") + 1] == "2222"


@pytest.mark.parametrize("host", ["", "-oProxyCommand=x", "root@-x", "-x@y", "a b", "a;b", "a$(x)", "a\nb", "@x", "x" * 256, "ssh://x"])
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(InvalidInput):
        Way(host).arguments(["lxcfleet"])


ODD_ANSWERS = {
    "no end": "while :; do printf '%065536d' 0; done", "deep": "head -c 200000 /dev/zero | tr '\\0' '['",
    "no result": "echo '{}'", "another result": """echo '{"result": [1]}'""", "no error": """echo '{"error": [1]}'""",
    "half an error": """echo '{"error": {"code": 7}}'""", "messages without end": "while :; do printf '%065536d' 0 >&2; done",
}  # fmt: skip


@pytest.mark.reaches("processes", reason="what ssh says comes from a process")
@pytest.mark.parametrize("script", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_another_host_that_talks_nonsense_is_refused(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waited for ever for an answer without end, and others ended it with a traceback."""
    (tmp_path / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(FleetError, match=r"makes no sense|lxcfleet on other failed"):
        ssh.ask(Way("other"), ["lxcfleet", "receive", "status", "web"])


def test_a_cut_line_takes_nothing_back_and_what_is_healthy_there_stays() -> None:
    """It was told to start it there, and that failed, or nothing was heard of it."""
    steps = (MoveStep.RECEIVED, MoveStep.GRANTED, MoveStep.HEALTHY, MoveStep.REVOKED)
    found = {cut: [moves.after_failure(journal(step, away=False), MOVE, cut=cut) for step in steps] for cut in (True, False)}
    assert found[True] == [Next.GRANT, Next.GRANT, Next.NOTE, Next.REVOKE]
    assert found[False] == [Next.REVOKE, Next.REVOKE, Next.NOTE, Next.REVOKE]
    for there in (None, journal(MoveStep.GRANTED, away=False, move="f" * 16), journal(MoveStep.KEPT, away=True)):
        assert {moves.after_failure(there, MOVE, cut=cut) for cut in (True, False)} == {Next.LOST}
