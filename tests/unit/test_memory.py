"""Processes that the kernel killed for memory: what its log and the counters of cgroups say, and what is told of it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from lxcfleet.containers import lxc_config
from lxcfleet.containers.container import Container
from lxcfleet.containers.ends import memory
from lxcfleet.containers.ends.memory import MemoryKills, words
from lxcfleet.containers.events import KilledForMemory
from lxcfleet.containers.exits import Exit, _parse_exit
from lxcfleet.host.kernel import inotify
from lxcfleet.host.process import kernel_log, proc
from lxcfleet.host.process.cgroup import Payload
from lxcfleet.host.process.kernel_log import Kill, killed
from lxcfleet.host.process.memory_events import MemoryEvents
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import Init, Victim

HEAD = "6,1085,16701834585,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=lxc.payload.x,mems_allowed=0,"


def message(rest: str, head: str = HEAD) -> bytes:
    return f"{head}{rest}\n SUBSYSTEM=x\n".encode()


V1 = "oom_memcg=/lxc.payload.web,task_memcg=/lxc.payload.web,task=java,pid=2,uid=0"
UNIT = (
    "oom_memcg=/lxcfleet.slice/lxc.payload.web,task_memcg=/lxcfleet.slice/lxc.payload.web/system.slice/db.service,"
    "task=postgres,pid=2,uid=0"
)
NESTED = UNIT.replace("oom_memcg=/lxcfleet.slice/lxc.payload.web,", "oom_memcg=/lxcfleet.slice/lxc.payload.web/system.slice,")
SLICE = UNIT.replace("oom_memcg=/lxcfleet.slice/lxc.payload.web,", "oom_memcg=/lxcfleet.slice,")
HOST = UNIT.replace("oom_memcg=/lxcfleet.slice/lxc.payload.web,", "global_oom,")


@pytest.mark.parametrize(
    ("text", "kill"),
    [
        (V1, Kill("web", "java")),
        (UNIT, Kill("web", "postgres", "system.slice/db.service")),
        (NESTED, Kill("web", "postgres", "system.slice/db.service", "system.slice")),
        (SLICE, Kill("web", "postgres", "system.slice/db.service", None)),
        (HOST, Kill("web", "postgres", "system.slice/db.service", None)),
        (V1.replace("task=java", "task=a,pid=1,uid=0,\\x1b"), Kill("web", "a,pid=1,uid=0,\\x1b")),
    ],
)
def test_the_kernel_s_log_names_whom_it_killed_and_whose_limit_was_reached(text: str, kill: Kill) -> None:
    assert killed(message(text)) == kill
    assert killed(message(text, HEAD.replace("cpuset=lxc.payload.x", "cpuset=/"))) == kill


def test_what_is_no_kill_of_a_container_s_process_is_left_out() -> None:
    assert killed(message(V1, HEAD.replace("6,", "14,", 1))) is None  # a program wrote it
    assert killed(b"6,1,1,-;eth0: link up\n") is None
    assert killed(message(V1.replace("lxc.payload.web", "system.slice"))) is None


@pytest.mark.parametrize(
    "text",
    [
        "oom_memcg=/lxc.payload.evil/x,task_memcg=/lxc.payload.web,task_memcg=/lxc.payload.evil/x,task_memcg=/lxc.payload.web,"
        "task=a,pid=1,uid=0",
        "oom_memcg=/lxc.payload.evil,task_memcg=/lxc.payload.evil,task=,task_memcg=/lx,pid=1,uid=0",
    ],
)
def test_a_container_that_names_its_cgroups_like_the_kernel_s_own_words_blames_no_other(text: str) -> None:
    kill = killed(message(text))
    assert kill is not None
    assert kill.container == "evil"
    forged = HEAD.replace("cpuset=lxc.payload.x", "cpuset=x,mems_allowed=0,global_oom,task_memcg=")
    assert killed(message(text, forged)) == kill


@pytest.mark.parametrize(
    ("limit", "kill", "more", "text"),
    [
        (512 << 20, Kill("web", "java"), 0, "killed for memory: limit 512M, process java"),
        (512 << 20, Kill("web", "java"), 3, "killed for memory: limit 512M, process java, and 3 more"),
        (512 << 20, None, 0, "killed for memory: limit 512M"),
        (0, None, 1, "killed for memory, and 1 more"),
        (1 << 30, Kill("web", "java", "system.slice/a"), 0, "killed for memory: limit 1G, process java in system.slice/a"),
        (1 << 30, Kill("web", "java", "s/a", "s/a"), 0, "killed for memory: limit of s/a, process java"),
        (1 << 30, Kill("web", "java", "", None), 0, "killed for memory: the host had none left, process java"),
        (0, Kill("web", "", "", "x" * 4000), 0, f"killed for memory: limit of …{'x' * 120}"),
    ],
)
def test_a_kill_in_words(limit: int, kill: Kill | None, more: int, text: str) -> None:
    assert words(limit, kill, more) == text


def test_the_daemon_s_unit_lets_it_read_the_kernel_s_log() -> None:
    unit = Path(kernel_log.__file__).parents[3] / "systemd" / "lxcfleet.service.in"
    assert "DeviceAllow=/dev/kmsg r\n" in unit.read_text()


# -- what is heard ----------------------------------------------------------------------------------------------


class World:
    """Containers whose counters and kernel log are lists and files here."""

    def __init__(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, v1: bool = False, spec: Spec | None = None
    ) -> None:
        self.path, self.v1 = tmp_path / "lxc.payload.web", v1
        self.path.mkdir()
        self.count(0)
        self.logged: list[Kill] = []
        self.signals: list[int] = []
        self.told: list[str] = []
        self.container = Container("web", spec or Spec("web", Init.APP, ("x",), memory=32 << 20))
        payload = Payload({"memory" if v1 else "": str(self.path)})
        self.container.running = cast(Any, SimpleNamespace(pid=1, monitor=2, payload=payload, since=2e10))
        self.bus = Bus()
        self.bus.subscribe("test", KilledForMemory, lambda event: self.told.append(event.how))
        monkeypatch.setattr(kernel_log.KernelLog, "begin", lambda _: None)
        monkeypatch.setattr(kernel_log.KernelLog, "kills", lambda _: [self.logged.pop(0) for _ in [*self.logged]])
        monkeypatch.setattr(proc, "send_signal", lambda _p, _m, number: self.signals.append(number))
        monkeypatch.setattr(memory, "GATHER_SECONDS", 0.0)
        self.kills = MemoryKills(cast(Any, {"web": self.container}), self.bus)

    def count(self, number: int) -> None:
        for name in ("memory.events", "memory.oom_control"):
            (self.path / name).write_text(f"low 0\noom_kill {number}\n")

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)


def test_on_cgroup_v2_each_growth_of_the_counter_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        world = World(tmp_path, monkeypatch)
        world.kills.began(world.container)
        world.logged.append(Kill("web", "java"))
        world.count(1)  # inotify tells
        await world.until(lambda: bool(world.told))
        assert world.told == ["killed for memory: limit 32M, process java"]
        world.count(1)  # another event of its memory: nobody was killed
        await asyncio.sleep(0.05)
        world.count(4)  # the log leaves some out: the kernel writes no more than ten in five seconds
        await world.until(lambda: world.container.memory_kills == 4)
        assert len(world.told) == 1  # the next event about it has to wait
        assert world.kills.ran_out("web") == "killed for memory: limit 32M, and 2 more"
        assert world.told[1:] == ["killed for memory: limit 32M, and 2 more"]
        assert not world.signals  # the kernel ends it as a whole
        world.container.running = None
        world.kills.ended("web")
        assert world.kills.ran_out("web") == ""
        world.kills.close()

    asyncio.run(run())


class Counting:
    """A cgroup whose counter has grown when it is looked at; the kernel's log has the kill by then."""

    directories: ClassVar[dict[str, Path]] = {}

    def __init__(self, logged: list[Kill]) -> None:
        self._logged, self._looked = logged, False

    @property
    def out_of_memory_kills(self) -> int:
        if not self._looked:
            self._looked = True
            self._logged.append(Kill("web", "java"))
        return 1


def test_a_kill_at_the_moment_of_the_look_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        world = World(tmp_path, monkeypatch)
        monkeypatch.setattr(world.kills, "_name", lambda _: "web")
        world.container.running = cast(Any, SimpleNamespace(payload=Counting(world.logged), since=2e10))
        world.kills._look("web")
        world.kills.read()
        assert world.kills.ran_out("web") == "killed for memory: limit 32M, process java"
        assert world.container.memory_kills == 1
        world.kills.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("oom", "init", "limit", "ends"),
    [
        (None, Init.APP, "", True), (Victim.PROCESS, Init.APP, "", False), (None, Init.SYSTEM, "", False),
        (Victim.CONTAINER, Init.SYSTEM, "", True), (None, Init.APP, None, False),
    ],
)  # fmt: skip
def test_on_cgroup_v1_lxcfleetd_ends_an_app_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, oom: Victim | None, init: Init, limit: str | None, ends: bool
) -> None:
    async def run() -> None:
        spec = Spec("web", init, (), memory=32 << 20, oom=oom)
        world = World(tmp_path, monkeypatch, v1=True, spec=spec)
        monkeypatch.setattr(MemoryEvents, "watch", lambda *_: None)
        world.logged.append(Kill("web", "java", "", limit))
        world.kills.began(world.container)
        world.kills.read()
        assert world.signals == ([signal.SIGKILL] if ends else [])
        assert world.container.memory_kills == 1
        world.count(1)
        assert world.kills.ran_out("web").endswith("process java")  # the counter tells of the same kill
        assert world.container.memory_kills == 1
        world.kills.close()

    asyncio.run(run())


def test_a_daemon_that_starts_tells_nothing_of_former_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        world = World(tmp_path, monkeypatch)
        world.count(7)
        world.container.running = cast(Any, SimpleNamespace(**{**vars(world.container.running), "since": 1.0}))
        world.kills.began(world.container)
        assert (world.kills.ran_out("web"), world.container.memory_kills) == ("", 0)
        world.count(8)
        assert world.kills.ran_out("web") == "killed for memory: limit 32M"
        world.kills.close()

    asyncio.run(run())


def test_a_kill_long_ago_is_not_why_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        world = World(tmp_path, monkeypatch)
        world.kills.began(world.container)
        world.count(1)
        assert world.kills.ran_out("web")
        monkeypatch.setattr(memory, "COUNTS_SECONDS", -1.0)
        assert world.kills.ran_out("web") == ""
        world.kills.close()

    asyncio.run(run())


def test_a_cgroup_with_a_number_belongs_to_the_container_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    assert world.kills._name("web") == "web"
    assert world.kills._name("web-1") is None  # its cgroup has no number
    assert world.kills._name("other") is None


# -- what is kept, and what is asked of the kernel ----------------------------------------------------------------


def test_what_an_earlier_version_kept_is_read() -> None:
    said: dict[str, Any] = {"at": 1.0, "status": 9, "out_of_memory": True, "asked": False, "seconds": None, "lines": []}
    old = _parse_exit(said)
    assert (old.out_of_memory, old.words) == (True, "killed for memory (killed by SIGKILL)")
    new = Exit(1.0, 137 << 8, out_of_memory=True, memory="killed for memory: limit 32M, process java")
    assert new.words == "killed for memory: limit 32M, process java (exit status 137)"


def test_the_kernel_ends_an_app_with_a_limit_as_a_whole_on_cgroup_v2() -> None:
    platform = lxc_config.Platform(True, frozenset({"memory", "cpu"}), False, False, "br", "", Path("/hook"))
    app, system = Spec("a", Init.APP, ("x",), memory=1 << 30), Spec("a", Init.SYSTEM, (), memory=1 << 30)

    def group(spec: Spec) -> list[str]:
        return [line for line in lxc_config._limits(spec, platform) if "oom.group" in line]

    assert group(app) == ["lxc.cgroup2.memory.oom.group = 1"]
    assert group(replace(system, oom=Victim.CONTAINER)) == ["lxc.cgroup2.memory.oom.group = 1"]
    assert not any(map(group, (system, replace(app, memory=0), replace(app, oom=Victim.PROCESS))))
    values = {each.file: each.value for each in lxc_config.cgroup_limits(replace(app, oom=Victim.PROCESS), platform)}
    assert values["memory.oom.group"] == "0"  # for a change of one that runs
    bare = replace(platform, controllers=frozenset({"cpu"}))
    assert not any("oom" in line for line in lxc_config._limits(app, bare))


def test_events_of_inotify_are_taken_apart() -> None:
    event = inotify._EVENT.pack(3, 2, 0, 16) + b"name".ljust(16, b"\0") + inotify._EVENT.pack(4, 0x8000, 0, 0)
    assert inotify.parse(event) == [(3, 2), (4, 0x8000)]
    assert inotify.parse(event[:-1]) == [(3, 2)]


def test_one_instance_of_inotify_watches_many_files(tmp_path: Path) -> None:
    async def run() -> None:
        gc.collect()  # what tests before this one left is not closed during it
        before = len(os.listdir("/proc/self/fd"))
        heard: list[str] = []
        events = MemoryEvents(heard.append)
        for name in ("a", "b", "c"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "memory.events").touch()
            events.watch(name, Payload({"": str(tmp_path / name)}))
        assert len(os.listdir("/proc/self/fd")) == before + 1
        events.forget("b")
        for name in ("a", "b", "c"):
            (tmp_path / name / "memory.events").write_text("x")
        async with asyncio.timeout(60):
            while len(heard) < 2:
                await asyncio.sleep(0.01)
        assert sorted(set(heard)) == ["a", "c"]
        with pytest.raises(FileNotFoundError):
            events.watch("d", Payload({"": str(tmp_path / "gone")}))
        events.close()
        assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(run())


PIECES = (
    b"6,1,9,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/\n", b"14,2,9,-;somebody else: a line\n",
    b"4,3,9,c;,mems_allowed=0\n", b"6,4,9,-;veth1: left promiscuous mode\n",
    b"4,5,9,c;,oom_memcg=/lxc.payload.web,task_memcg=/lxc.payload.web\n", b"12,6,9,c;,task=forged,pid=1,uid=0\n",
    b"4,7,9,c;,task=java,pid=9298,uid=0\n", b"3,8,9,-;Memory cgroup out of memory: Killed process 9298 (java)\n",
)
"""As the kernel wrote it while another processor logged much (seen on 6.18)."""


@pytest.mark.parametrize(
    ("messages", "kills"),
    [
        (PIECES, [Kill("web", "java")]),
        ([*PIECES[:5], PIECES[7], PIECES[6]], [Kill("web", "")]),  # the kernel's buffer has lost a piece
        ([*PIECES[:5], message(V1.replace("web", "other")), PIECES[6]], [Kill("web", ""), Kill("other", "java")]),
        (PIECES[:2], []),
        ([*PIECES[1:], message(V1)], [Kill("web", "java")]),
    ],
)
def test_a_message_that_the_kernel_wrote_in_pieces_is_put_together(messages: Sequence[bytes], kills: list[Kill]) -> None:
    """The name of the process was missing where another processor had logged something in between."""
    kernel = kernel_log.KernelLog()
    theirs, ours = socket.socketpair(type=socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    kernel._descriptor = ours.detach()
    found = []
    for each in messages:
        theirs.send(each)
        found += kernel.kills()
    kernel.close()
    theirs.close()
    assert found == kills


def test_a_host_that_logs_much_wakes_the_daemon_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log is looked at at once when it was quiet, and after a pause as long as more comes."""

    async def run() -> None:
        found: list[list[Kill]] = []
        timers: list[tuple[float, Callable[[], None]]] = []

        def call_later(seconds: float, work: Callable[[], None]) -> SimpleNamespace:
            timers.append((seconds, work))
            return SimpleNamespace(cancel=lambda: None)

        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
        kernel = kernel_log.KernelLog()
        kernel._descriptor, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        kernel.watch(lambda: found.append(kernel.kills()))
        for _ in range(2):
            os.write(writing, message("oom_memcg=/lxc.payload.a,task_memcg=/lxc.payload.a,task=cat,pid=1,uid=0"))
            await turns()
        assert [len(kills) for kills in found] == [1], "the second message waits"
        [(seconds, listen_again)] = timers
        assert seconds == kernel_log.PAUSE_SECONDS
        listen_again()
        await turns()
        assert [len(kills) for kills in found] == [1, 1]
        kernel.close()
        os.close(writing)

    asyncio.run(run())


async def turns() -> None:
    """Let the loop look for what can be read, and deal with it."""
    for _ in range(3):
        await asyncio.sleep(0)
