"""Staleness: one file compared with that of a fresh mount."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.base import present
from lxcfleet.base.present import Found, Present, Shelf
from lxcfleet.base.stack import Layer
from lxcfleet.host.packages import database
from lxcfleet.host.process import maps
from lxcfleet.host.process.cgroup import Payload
from lxcfleet.host.process.maps import Identity
from lxcfleet.launcher.client import Died
from lxcfleet.patch.shadow.files import ShadowFindings
from lxcfleet.patch.stale import scan as scanning
from lxcfleet.patch.stale.finder import Finder
from lxcfleet.patch.stale.interpreted import unknown
from lxcfleet.patch.stale.judge import OldFile, Process, StaleScan, Why, judge_mapped, merge, same, written_since
from lxcfleet.patch.stale.scan import Target, scan
from lxcfleet.patch.stale.scripts import STDIN, script_of
from lxcfleet.patch.stale.served import Notes
from lxcfleet.patch.stale.views import MountView
from lxcfleet.paths import Paths

from .layers_in import directories, layer_in, put, stack_in

LAYERS = tuple(layer_in(Path("/layers"), name) for name in ("delta", "mask", "base"))
DELTA, MASK, BASE = LAYERS
LIBRARY = "/usr/lib/x86_64-linux-gnu/libssl.so.3"


def found(layer: Layer, path: Path | None, *, copied: bool = False) -> Found:
    return Found(layer, None if path is None else path.lstat(), copied)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("code")
    return path


def test_the_same_file_is_fresh(file: Path) -> None:
    assert judge_mapped(Identity.of(file.stat()), found(BASE, file), deleted=False) is None


@pytest.mark.parametrize("layer", LAYERS)
def test_another_file_at_the_path_is_stale(file: Path, layer: Layer) -> None:
    mapped = Identity.of(file.stat())
    new = file.with_name("new")
    new.write_text("code")
    os.utime(new, ns=(mapped.modified, mapped.modified))
    new.rename(file)
    assert judge_mapped(mapped, found(layer, file), deleted=False) is Why.REPLACED


def test_nothing_at_the_path_is_stale(file: Path) -> None:
    mapped = Identity.of(file.stat())
    assert judge_mapped(mapped, found(BASE, None), deleted=False) is Why.REMOVED
    assert judge_mapped(mapped, Found(DELTA, None, hidden=True), deleted=True) is Why.REMOVED


def test_a_file_that_a_container_made_and_removed_is_its_own(file: Path) -> None:
    # libffi maps such files; a restart would only make new ones.
    for layer in LAYERS:
        assert judge_mapped(Identity.of(file.stat()), found(layer, None), deleted=True) is None


IDENTITIES = st.builds(
    Identity, st.integers(1, 2**32 - 1), st.integers(0, 2**40), st.integers(0, 2**62), st.integers(0, 2**62)
)


@given(IDENTITIES, st.integers(0, 2**16))
def test_xino_and_copy_up_change_the_number_only(now: Identity, layer: int) -> None:
    through = now._replace(inode=now.inode | layer << 33)
    assert same(through, now, copied=False)
    assert same(now._replace(inode=now.inode + 1), now, copied=True)


@given(IDENTITIES, IDENTITIES, st.booleans())
def test_files_that_differ_in_time_or_size_are_two(one: Identity, other: Identity, copied: bool) -> None:
    assert same(one, other, copied=copied) <= (one[1:] == other[1:])


def test_equal_numbers_in_two_file_systems_are_two_files() -> None:
    old = Identity(131, 4096, 10, 20)
    assert not same(old, Identity(131, 4096, 10, 21), copied=False)


@pytest.mark.parametrize(
    ("started", "born", "changed", "links", "stale"),
    [
        (100.0, 50.0, 50.0, 1, False),
        (100.0, 150.0, 150.0, 1, True),
        (100.0, 90.0, 110.0, 1, True),  # written before the process began, renamed to its place after
        (100_000.0, 50.0, 100_001.0, 1, False),  # somebody made a hard link, and removed it
        (300.0, 50.0, 301.0, 2, False),  # a generation was frozen some minutes after the patch
        (100.0, 90.0, 110.0, 2, True),
        (100.0, None, 50.0, 1, False),
        (100.0, None, 150.0, 1, True),
    ],
)
def test_a_script_goes_by_time(started: float, born: float | None, changed: float, links: int, stale: bool) -> None:
    assert written_since(started, born, changed, links) is stale


@pytest.mark.parametrize(
    ("program", "arguments", "comm", "script"),
    [
        ("/usr/bin/dash", ["/bin/sh", "/usr/bin/job", "-x"], "job", "/usr/bin/job"),
        ("/usr/bin/python3.11", ["/usr/bin/python3", "-u", "/usr/sbin/iotop"], "iotop", "/usr/sbin/iotop"),
        ("/usr/bin/awk", ["/usr/bin/awk", "-f", "/usr/bin/a-very-long-name"], "a-very-long-nam", "/usr/bin/a-very-long-name"),
        ("/usr/bin/python3.11", ["python3", "-W", "error", "-u", "serve.py"], "python3", "serve.py"),
        ("/usr/bin/python3.11", ["python3", "-m", "http.server"], "python3", "./http/server"),
        ("/usr/bin/bash", ["bash", "-lc", "sleep 1"], "bash", None),
        ("/usr/bin/bash", ["bash", "-e", "/usr/bin/job"], "bash", "/usr/bin/job"),
        ("/usr/bin/perl", ["perl", "-e", "sleep"], "perl", None),
        ("/usr/bin/bash", ["-bash"], "bash", STDIN),
        ("/usr/bin/sleep", ["sleep", "/usr/bin/job"], "sleep", None),
        ("/usr/bin/tail", ["tail", "/usr/bin/job"], "tail", None),
        ("/usr/bin/python3.11", [], "python3", STDIN),
        ("/usr/bin/node", ["node", "--inspect", "/srv/app.js"], "node", "/srv/app.js"),
    ],
)
def test_the_script_of_a_process(program: str, arguments: list[str], comm: str, script: str | None) -> None:
    assert script_of(program, arguments, comm) == script


def test_findings_of_one_file_are_one() -> None:
    one, two = Process(1, "a"), Process(2, "b")
    replaced, removed = ("/b", Why.REPLACED, "base"), ("/a", Why.REMOVED, "delta")
    files = merge([(*replaced, one), (*removed, two), (*replaced, two)])
    assert files == (OldFile(*removed, (two,)), OldFile(*replaced, (one, two)))
    result = StaleScan("web", 2, 5, files, "no")
    assert StaleScan.from_json(result.to_json()) == result
    assert result.stale
    assert not result.clean


# what a fresh mount has at a path


@pytest.fixture
def layers(tmp_path: Path) -> dict[str, Path]:
    return directories(tmp_path)


@pytest.fixture
def seen(layers: dict[str, Path]) -> Iterator[Callable[[], Present]]:
    """Opens the layers of a container; called once the layers are as the test wants them."""
    shelf, stack = Shelf(), contextlib.ExitStack()
    with stack:
        stack.callback(shelf.close)
        yield lambda: stack.enter_context(shelf.present(stack_in(layers)))


def test_the_topmost_layer_provides(layers: dict[str, Path], seen: Callable[[], Present]) -> None:
    put(layers["base"], "/usr/lib/a"), put(layers["base"], "/usr/lib/b"), put(layers["base"], "/usr/lib/c")
    put(layers["mask"], "/usr/lib/b"), put(layers["mask"], "/usr/lib/c")
    put(layers["delta"], "/usr/lib/c")
    present = seen()
    assert [present.find(f"/usr/lib/{name}").layer.name for name in "abcd"] == ["base", "mask", "delta", "base"]
    assert present.find("/usr/lib/d").status is None
    assert present.find("/usr/lib/a/below").status is None


def test_a_file_in_place_of_a_directory_hides_what_is_below(
    layers: dict[str, Path], seen: Callable[[], Present]
) -> None:
    put(layers["base"], "/usr/lib/a")
    put(layers["delta"], "/usr")
    assert seen().find("/usr/lib/a") == Found(layer_in(layers["delta"].parent, "delta"), None, hidden=True)


def test_directories_may_be_deeper_than_our_stack(layers: dict[str, Path], seen: Callable[[], Present]) -> None:
    """A container with such directories must not keep the others from being looked at."""
    path = "/d" * 600
    for layer, name in (("delta", "one"), ("base", "two")):
        for depth in range(2, len(path) + 2, 2):
            os.mkdir(f"{layers[layer]}{path[:depth]}")
        put(layers[layer], f"{path}/{name}")
    assert seen().find(f"{path}/one").layer.name == "delta"
    assert seen().find(f"{path}/two").status is not None


def test_links_are_followed_through_the_layers(layers: dict[str, Path], seen: Callable[[], Present]) -> None:
    put(layers["base"], "/usr/share/job/run")
    (layers["base"] / "bin").symlink_to("usr/bin")
    (layers["base"] / "usr/bin").mkdir()
    (layers["mask"] / "usr/bin").mkdir(parents=True)
    (layers["mask"] / "usr/bin/job").symlink_to("../share/./job/now")
    (layers["delta"] / "usr/share/job").mkdir(parents=True)
    (layers["delta"] / "usr/share/job/now").symlink_to("/usr/share/job/run")
    (layers["delta"] / "loop").symlink_to("loop")
    assert seen().resolve("/bin/job") == "/usr/share/job/run"
    assert seen().resolve("/loop/x") == "/loop/x"


def test_no_link_of_a_container_leads_out_of_its_delta(
    layers: dict[str, Path], tmp_path: Path, seen: Callable[[], Present]
) -> None:
    put(tmp_path, "secret/lib")
    (layers["delta"] / "usr").symlink_to(tmp_path / "secret")
    assert seen().find("/usr/lib").status is None


def test_the_place_in_the_layers() -> None:
    overlay, part, tmpfs = "00:40", "00:41", "00:42"
    rows = [
        (overlay, "/", "/", "overlay"),
        (part, "/", "/usr", "overlay"),
        (tmpfs, "/", "/run", "tmpfs"),
        (overlay, "/opt/app", "/run/jail/app", "overlay"),
        (part, "/lib", "/run/jail/lib", "overlay"),
        ("08:01", "/srv/tool", "/usr/local/bin/tool", "ext4"),
        (overlay, "/opt/app/one", "/srv/one", "overlay"),
    ]
    view = MountView.of([maps.ProcessMount(*row, "lxcfleet") for row in rows], {overlay}, {"08:01"})
    assert view.devices == {overlay, part}
    assert {path: view.place(path) for path in ("/opt/a", "/usr/bin/a", "/runs/a", "/run/a", "/usr/local/bin/tool")} == {
        "/opt/a": "/opt/a", "/usr/bin/a": "/usr/bin/a", "/runs/a": "/runs/a", "/run/a": None, "/usr/local/bin/tool": None,
    }  # fmt: skip
    assert view.place("/run/jail/app/one") == "/opt/app/one"
    assert view.place("/run/jail/lib/libc.so.6") == "/usr/lib/libc.so.6"
    assert view.place("/srv/one") == "/opt/app/one"
    # A sandbox has a root of its own, with directories of the container's; a process in it may have shut itself in further.
    sandbox = [
        maps.ProcessMount(tmpfs, "/", "/", "tmpfs", "none"),
        maps.ProcessMount(part, "/", "/usr", "overlay", "lxcfleet"),
        maps.ProcessMount(overlay, "/opt", "/run/opt", "overlay", "lxcfleet"),
        maps.ProcessMount("00:50", "/", "/srv", "overlay", "lxcfleet"),
    ]
    inner = view.within(sandbox, "/")
    assert {path: inner.place(path) for path in ("/lib/a", "/usr/lib/a", "/run/opt/a", "/run/a", "/srv/a")} == {
        "/lib/a": None, "/usr/lib/a": "/usr/lib/a", "/run/opt/a": "/opt/a", "/run/a": None, "/srv/a": None,
    }  # fmt: skip
    jailed = view.within([maps.ProcessMount(part, "/", "/usr", "overlay", "lxcfleet")], "/var/jail")
    assert [jailed.place(path) for path in ("/var/jail/usr/a", "/usr/a")] == ["/usr/a", "/usr/a"]


# processes and packages


def test_our_own_mappings() -> None:
    mapped = maps.executable(os.getpid())
    program, deleted = maps.program(os.getpid())
    mine = [file for _, file in mapped if file.path == program]
    assert mine
    assert not deleted
    assert maps.device_name(os.stat(program).st_dev) == mine[0].device
    assert all(file.path.startswith("/") for _, file in mapped)


LONG = """
import ctypes, struct, sys, time
size = 1 << 22
libc = ctypes.CDLL(None)
libc.mmap.restype = libc.sbrk.restype = ctypes.c_void_p
start = libc.mmap(None, ctypes.c_size_t(size), 3, 0x4022, -1, ctypes.c_long(0))
ctypes.memset(start, 120, size - 1)
words = open("/proc/self/stat").read().rpartition(")")[2].split()
field = lambda number: int(words[number - 3])
own = [field(26), field(27), field(45), field(46), field(47), libc.sbrk(0), field(28), start, start + size]
data = ctypes.create_string_buffer(struct.pack("=12Q2I", *own, field(50), field(51), 0, 0, 0xFFFFFFFF))
print(libc.prctl(35, 14, ctypes.c_void_p(ctypes.addressof(data)), ctypes.c_ulong(104), 0), flush=True)
time.sleep(60)
"""
"""PR_SET_MM, PR_SET_MM_MAP: takes no privilege."""


@pytest.mark.reaches("processes", reason="what /proc tells of a real process")
def test_a_command_line_without_end() -> None:
    with subprocess.Popen([sys.executable, "-c", LONG], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"0\n":
                pytest.skip("the kernel lets no process say so (CONFIG_CHECKPOINT_RESTORE)")
            assert sum(map(len, maps.arguments(process.pid))) <= 65536
        finally:
            process.kill()


@pytest.mark.reaches("processes", reason="what /proc tells of a real process")
@pytest.mark.parametrize("depth", [0, 7, 8, 9, 300])
def test_the_top_is_found_from_however_far_below(tmp_path: Path, depth: int) -> None:
    if os.geteuid():
        pytest.skip("only root may change its root")
    child = os.fork()
    if child == 0:
        os.chdir(tmp_path)
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        os.chroot(".")
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        os.waitpid(child, os.WUNTRACED)
        assert maps.top_device(child) == maps.top_device(os.getpid()) == os.stat("/").st_dev
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.reaches("processes", reason="what /proc tells of a real process")
def test_a_process_that_is_gone() -> None:
    child = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitpid(child, 0)
    for read in (maps.executable, maps.program, maps.arguments, maps.root_device, maps.top_device, maps.mounts):
        with pytest.raises(ProcessLookupError):
            read(child)
    assert maps.mapped_file(child, "1000-2000") is None


@pytest.mark.reaches("processes", reason="what /proc tells of a real process")
def test_a_zombie_maps_nothing() -> None:
    child = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        assert maps.executable(child) == []
        assert maps.living_thread(child) is None
    finally:
        os.waitpid(child, 0)


@pytest.mark.reaches("processes", reason="what /proc tells of a real process")
def test_a_container_that_is_gone_is_not_stale(layers: dict[str, Path]) -> None:
    child = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitpid(child, 0)
    target = Target("web", child, str(layers["base"] / "none"), stack_in(layers))
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target
    assert list(scan([target])) == [StaleScan("web", 0, 0)]


@pytest.mark.parametrize("gone", ["delta", "mask"])
def test_a_container_with_a_layer_that_is_gone_is_not_clean(layers: dict[str, Path], gone: str) -> None:
    layers[gone].rmdir()
    (result,) = scan([Target("web", os.getpid(), "/none", stack_in(layers))])
    assert not result.clean
    assert "No such file" in result.problem


def test_a_container_whose_processes_are_not_found_is_not_clean(layers: dict[str, Path], tmp_path: Path) -> None:
    """Somebody moved them to another cgroup."""
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/cgroup.procs").touch()
    for cgroup in (tmp_path / "cgroup", tmp_path / "gone"):
        (result,) = scan([Target("web", os.getpid(), str(cgroup), stack_in(layers))])
        assert not result.clean
        assert result.problem == f"process 1 ({os.getpid()}) is not in {cgroup}"


def test_a_container_that_takes_too_long_is_not_clean(
    layers: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The containers after it are looked at."""
    monkeypatch.setattr(scanning, "_SECONDS", 0.0)
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n{os.getppid()}\n")
    target = Target("web", os.getpid(), str(tmp_path), stack_in(layers))
    results = list(scan([target, target]))
    assert [result.problem for result in results] == ["it takes more than 0 s (1 processes so far)"] * 2


@pytest.mark.reaches("processes", reason="what /proc tells of a real process")
@pytest.mark.skipif(os.geteuid() != 0, reason="map_files takes CAP_SYS_ADMIN")
def test_a_dhcp_client_that_runs_old_code_makes_its_container_stale(layers: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    program = Path(shutil.copy("/bin/sleep", tmp_path / "udhcpc"))
    client = os.posix_spawn(program, ["udhcpc", "1000"], os.environ)
    try:
        target = Target("web", os.getpid(), str(tmp_path), stack_in(layers), client=client)
        assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target
        # (This process maps files that the layers of the test do not have.)
        assert [file for result in scan([target]) for file in result.files if file.why is Why.CLIENT] == []
        program.unlink()
        (file,) = (file for result in scan([target]) for file in result.files if file.why is Why.CLIENT)
        assert (file.path, file.why, [process.pid for process in file.processes]) == (str(program), Why.CLIENT, [client])
    finally:
        os.kill(client, signal.SIGKILL)
        os.waitpid(client, 0)


def test_a_process_that_maps_more_than_is_read_makes_its_container_not_known(
    layers: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60,000 mappings with long paths took 2 GB."""
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    monkeypatch.setattr(maps, "_MOST", 100)
    (result,) = scan([Target("web", os.getpid(), str(tmp_path), stack_in(layers))])
    assert not result.clean
    assert result.problem == f"/proc/{os.getpid()}/maps: has more than 0 MiB, and is not read"


def test_a_container_whose_root_can_not_be_entered_is_not_known(
    layers: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")

    def refused(pid: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"/proc/{pid}/root")

    monkeypatch.setattr(maps, "top_device", refused)
    (result,) = scan([Target("web", os.getpid(), str(tmp_path), stack_in(layers))])
    assert (result.clean, result.stale) == (False, False)
    assert result.problem == f"/proc/{os.getpid()}/root: Permission denied"


def test_more_old_files_than_an_answer_has_room_for_are_told(
    layers: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "_MOST_FOUND", 300)
    target = Target("web", 1, "/none", stack_in(layers))
    looked = scanning._Container(target, None, cast(Any, None), Notes(), unknown)
    old = [(f"/usr/lib/{number:0>50}", Why.REPLACED, "base") for number in range(4)]
    assert looked._fitting(old[:2]) == old[:2]
    assert looked._fitting(old[2:3]) == []
    assert looked.problem == "it runs more old files than are listed (2)"


def test_what_a_container_asks_for_is_not_remembered_without_end() -> None:
    assert present.worth_remembering("/usr/lib/x", {})
    assert not present.worth_remembering("/" + "x" * 600, {})
    assert not present.worth_remembering("/x", range(present._MOST_REMEMBERED))


def test_a_container_that_is_the_end_of_the_process_that_looks_is_told_and_the_others_are_looked_at() -> None:
    class Fragile:
        async def ask_large(self, operation: str, item: Any) -> list[Any]:
            names = [each["name"] for each in item["targets"]] if operation == "stale" else [name for name, _ in item]
            if "bad" in names:
                raise Died("it died")
            if operation == "stale":
                return [StaleScan(name, 1, 1).to_json() for name in names]
            return [ShadowFindings(name).to_json() for name in names]

    finder = Finder(Paths(), cast(Any, Fragile()), cast(Any, None), lambda: True)
    targets: list[Any] = [{"name": name} for name in ("a", "bad", "b")]
    found = asyncio.run(finder._ask({"wanted": None, "targets": targets}))
    assert [(each.name, each.clean) for each in found] == [("a", True), ("bad", False), ("b", True)]
    deltas = asyncio.run(finder._ask_shadows([("a", None), ("bad", None), ("b", None)]))
    assert [(each.name, bool(each.problem)) for each in deltas] == [("a", False), ("bad", True), ("b", False)]


def test_a_container_without_a_cgroup_is_not_clean() -> None:
    running = SimpleNamespace(pid=1, payload=Payload({}))
    finder = Finder(Paths(), cast(Any, None), cast(Any, None), lambda: True)
    found = asyncio.run(finder.scan([cast(Any, SimpleNamespace(name="web", running=running, spec=None, wanted=None))]))
    assert found == {"web": StaleScan("web", 0, 0, problem="its cgroup was not found")}


SEARCH = """\
coreutils: /bin/ls
libc6:amd64, libc6:i386: /lib/libc.so.6
diversion by dash from: /bin/sh
diversion by dash to: /bin/sh.distrib
dash: /bin/sh
diversion by postgresql-common from: /usr/bin/pg_config
diversion by postgresql-common to: /usr/bin/pg_config.libpq-dev
libpq-dev, postgresql-common: /usr/bin/pg_config
local diversion from: /usr/bin/x
local diversion to: /usr/bin/x.distrib
x: /usr/bin/x
odd: /usr/share/a: b
"""


def test_the_output_of_dpkg_is_parsed() -> None:
    assert dict((path, package) for package, path in database.parse_search(SEARCH.splitlines())) == {
        "/bin/ls": "coreutils",
        "/lib/libc.so.6": "libc6:amd64",
        "/bin/sh": "dash",
        "/usr/bin/pg_config": "postgresql-common",
        "/usr/bin/x": "x",
        "/usr/share/a: b": "odd",
    }


def test_both_names_of_a_merged_directory() -> None:
    assert database.names_of(LIBRARY) == (LIBRARY, LIBRARY[4:])
    assert database.names_of(LIBRARY[4:]) == (LIBRARY[4:], LIBRARY)
    assert database.names_of("/usr/share/doc") == ("/usr/share/doc",)


RELATIONS = """\
liblxc1t64:amd64\tii \tliblxc1 (= 1:6.0.4-4)\tliblxc0 (<< 1:1.0), liblxc1 (<< 1:6)
postfix\tii \tdefault-mta, mail-transport-agent\tmail-transport-agent, sendmail
exim4\trc \tmail-transport-agent\tmail-transport-agent
mailer\tii \tmail-transport-agent\t
other\tii \t\tliblxc1 (<< 1), gone-data:any
"""


def test_the_packages_that_took_over_from_others() -> None:
    names = ("liblxc1", "default-mta", "mail-transport-agent", "gone-data", "no")
    assert database.parse_relations(names, RELATIONS.splitlines()) == {
        "liblxc1": ["liblxc1t64:amd64"], "default-mta": ["postfix"], "mail-transport-agent": ["postfix"],
        "gone-data": ["other"],
    }  # fmt: skip
