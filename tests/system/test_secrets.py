"""Secrets, with real LXC: files in memory that only their container can read, exchanged in one step."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lxcfleet.data import secrets
from lxcfleet.host.kernel import home, tree
from lxcfleet.paths import Paths
from lxcfleet.spec.container.secrets import SecretSource, SourceKind, parse_use

from .harness import SLEEP, Fleet, until

CANARY = "cafe-canary-7f3a91"
CREDS = shutil.which("systemd-creds")



def value(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def fleet(fleet: Fleet) -> Fleet:
    etc = fleet.paths.etc
    value(etc / "pw", f"{CANARY}-1")
    value(etc / "credstore" / "plain", f"{CANARY}-plain")
    script = f"printf {CANARY}-; cat {etc}/number"
    value(etc / "number", "1")
    declared = [
        f"db-pw: {{file: {etc}/pw}}", "plain: {credential: plain}", f"cmd: {{command: [/bin/sh, {etc}/script]}}",
        f"gone: {{file: {etc}/gone}}", "sealed: {credential: sealed}",
    ]  # fmt: skip
    value(etc / "script", script)
    fleet.settings(f"{fleet.usual}secrets: {{{', '.join(declared)}}}\nrollout: {{canaries: 1, min_healthy_time: 0.2}}\n")
    fleet.stop_daemon()  # the next one reads the settings
    return fleet


def test_a_container_has_its_secrets_and_nobody_elses(fleet: Fleet) -> None:
    app, system, other = (fleet.name(name) for name in ("app", "system", "other"))
    etc = fleet.paths.etc
    sealed = CREDS is not None and sealing(etc / "credstore.encrypted" / "sealed")
    command = ("sh", "-c", "trap 'cat /run/secrets/pw >>/told' HUP; while :; do sleep 0.1; done")
    uses = ["db-pw:pw,uid=33,gid=4,mode=0440,on_change=signal:HUP", "cmd", *(["sealed"] if sealed else [])]
    fleet.ok("create", app, *(word for use in uses for word in ("--secret", use)), "--", *command)
    fleet.ok("create", system, "--secret", "db-pw,on_change=exec:sh -c 'echo told >>/told'", "--secret", "plain")
    fleet.ok("create", other, *SLEEP)

    shown = fleet.inside(app, "cd /run/secrets; for f in *; do cat $f; stat -L -c ' %n %u:%g %a' $f; done").splitlines()
    expected = [f"{CANARY}-1 cmd 0:0 400", f"{CANARY}-1 pw 33:4 440", f"{CANARY}-sealed sealed 0:0 400"]
    assert shown == (expected if sealed else expected[:2])
    options = fleet.inside(app, "grep ' /run/secrets ' /proc/self/mounts").split()[3].split(",")
    assert {"ro", "nosuid", "nodev", "noexec"} <= {*options}
    assert fleet.inside(app, "setpriv --reuid 33 --regid 33 --clear-groups cat /run/secrets/pw") == f"{CANARY}-1"
    attempts = (
        "echo x >/run/secrets/pw", "touch /run/secrets/new", "rm /run/secrets/pw", "ln -sfn x /run/secrets/..data",
        "mount -o remount,rw,bind /run/secrets", "chmod 777 /run/secrets", "umount /run/secrets",
        "setpriv --reuid 34 --regid 34 --clear-groups cat /run/secrets/pw", f"ls {fleet.paths.secrets}",
    )  # fmt: skip
    tried = "; ".join(f"({each}) 2>/dev/null && echo '{each.split()[0]}'" for each in attempts)
    assert fleet.inside(app, f"{tried}; true") == ""
    assert fleet.inside(other, "ls -A /run/secrets 2>/dev/null || true") == ""
    # No user of the host gets there either.
    as_nobody = ["setpriv", "--reuid=65534", "--clear-groups", "ls", str(fleet.paths.secrets)]
    assert subprocess.run(as_nobody, capture_output=True, check=False).returncode != 0

    # systemd has them as credentials.
    fleet.ok("wait", system, "--for", "healthy")
    unit = "systemd-run --wait --pipe -q -p LoadCredential=plain -p DynamicUser=yes sh -c 'cat $CREDENTIALS_DIRECTORY/plain'"
    assert fleet.inside(system, unit) == f"{CANARY}-plain"

    # A new value is there at once, in all of them, and programs are told.
    value(etc / "pw", f"{CANARY}-2")
    fleet.ok("secret", "refresh", "db-pw")
    assert fleet.inside(app, "cat /run/secrets/pw") == f"{CANARY}-2"
    assert fleet.inside(system, "cat /run/secrets/db-pw") == f"{CANARY}-2"
    until(lambda: fleet.inside(app, "cat /told || true") == f"{CANARY}-2", 10, "the program has the signal")
    until(lambda: fleet.inside(system, "cat /told || true") == "told", 10, "the command was run")

    # A source that fails keeps the former value.
    (etc / "pw").unlink()
    ran = fleet.run("secret", "refresh", "db-pw", "-f", "json")
    assert (ran.status, ran.results) == (1, {"db-pw": "failed"})
    assert fleet.inside(app, "cat /run/secrets/pw") == f"{CANARY}-2"

    # The next daemon goes on, and so does a start of the container.
    fleet.stop_daemon(signal.SIGKILL)
    fleet.ok("restart", app)
    assert fleet.inside(app, "cat /run/secrets/pw") == f"{CANARY}-2"
    value(etc / "pw", f"{CANARY}-3")
    fleet.ok("secret", "refresh", "db-pw")
    assert fleet.inside(system, "cat /run/secrets/db-pw") == f"{CANARY}-3"

    # Plain lxc-start has them, too.
    fleet.ok("stop", app)
    subprocess.run(["lxc-start", "-P", str(fleet.paths.lxc), "-n", app], check=True, timeout=60)
    until(lambda: fleet.state(app) == "running", 10, "the daemon notices the container")
    assert fleet.inside(app, "cat /run/secrets/pw") == f"{CANARY}-3"
    value(etc / "pw", f"{CANARY}-4")
    fleet.ok("secret", "refresh", "db-pw")
    assert fleet.inside(app, "cat /run/secrets/pw") == f"{CANARY}-4"
    fleet.clean()
    until(lambda: not fleet.paths.secrets.exists(), what="the directory of values is gone")


def sealing(path: Path) -> bool:
    """Seal a credential, as ``systemd-creds encrypt`` does; False: this host has no key for that."""
    path.parent.mkdir()
    argv = ["systemd-creds", "encrypt", "--with-key=host", "--name=sealed", "-", str(path)]
    done = subprocess.run(argv, input=f"{CANARY}-sealed".encode(), capture_output=True)
    if done.returncode == 0:
        path.chmod(0o600)
    return done.returncode == 0


def test_a_missing_secret_blocks_its_container_and_nobody_else(fleet: Fleet) -> None:
    web, other = fleet.name("web"), fleet.name("other")
    fleet.run("create", web, "--secret", "gone", *SLEEP)
    fleet.create(other)
    assert (fleet.state(web), fleet.state(other)) == ("blocked", "running")
    fleet.stop_daemon(signal.SIGKILL)
    fleet.start_daemon()
    until(lambda: fleet.state(web) == "blocked", 15, "the next daemon knows it")
    value(fleet.paths.etc / "gone", "x")
    fleet.ok("secret", "refresh", "gone")
    until(lambda: fleet.state(web) == "running", 10, "it starts by itself")
    fleet.ok("destroy", web, "--force")
    (fleet.paths.etc / "gone").unlink()
    fleet.ok("create", web, "--secret", "gone", "--no-start", *SLEEP)
    plain = subprocess.run(["lxc-start", "-P", str(fleet.paths.lxc), "-n", web], capture_output=True, timeout=60)
    assert plain.returncode != 0
    assert "secret gone: it can't be fetched" in fleet.paths.container(web).lxc_log.read_text()


def holders(fleet: Fleet) -> list[str]:
    """Where the canary is on this host, but for its source, the file system of secrets, and programs in containers."""
    found = []
    for top in (fleet.paths.lxc, fleet.paths.run, fleet.paths.state):
        for directory, names, files in os.walk(top):
            if Path(directory) == fleet.paths.run and "secrets" in names:
                names.remove("secrets")
            for file in (Path(directory) / name for name in files):
                with suppress(FileNotFoundError):  # the daemon writes some of them anew now and then
                    if file.is_file() and not file.is_symlink() and CANARY.encode() in file.read_bytes():
                        found.append(str(file))
    for process in Path("/proc").glob("[0-9]*"):
        for what in ("cmdline", "environ"):
            with suppress(OSError):
                if CANARY.encode() in (process / what).read_bytes() and int(process.name) != os.getpid():
                    found.append(f"{process / what}: {(process / 'cmdline').read_bytes()!r}")
    return found


def test_no_value_is_anywhere_but_in_memory_and_in_its_source(fleet: Fleet, tmp_path: Path) -> None:
    web, etc = fleet.name("web"), fleet.paths.etc
    command = "[sleep, infinity]"
    file = tmp_path / "fleet.yaml"
    file.write_text(
        f"lxcfleet: 1\nfleet: shop\nsecrets: {{db-pw: {{file: {etc}/pw}}, cmd: {{command: [/bin/sh, {etc}/script]}}}}\n"
        f"groups: {{{web}: {{count: 2, network: none, command: {command},"
        " secrets: [{secret: db-pw, mode: \"0444\", on_change: restart}, cmd]}}\n"
    )
    fleet.ok("apply", "-f", str(file))
    runs = {name: fleet.pid(name) for name in (f"{web}1", f"{web}2")}
    value(etc / "pw", f"{CANARY}-2")
    fleet.ok("secret", "refresh", "shop/db-pw")
    until(lambda: fleet.events("rollout") and "done: 2 restarted" in fleet.events("rollout")[-1]["message"], 30)
    until(lambda: all(fleet.inside(name, "cat /run/secrets/db-pw") == f"{CANARY}-2" for name in runs))

    # Whatever is killed while values change, what was not told is told afterwards.
    value(etc / "pw", f"{CANARY}-3")
    assert all(fleet.pid(name) != runs[name] for name in runs)
    runs = {name: fleet.pid(name) for name in runs}
    os.kill(fleet.servants()["launcher"], signal.SIGKILL)
    fleet.spawn("secret", "refresh", "shop/db-pw").wait(60)
    fleet.stop_daemon(signal.SIGKILL)
    fleet.start_daemon()
    fleet.ok("secret", "refresh", "shop/db-pw")
    until(lambda: all(fleet.record(name)["pid"] not in (None, runs[name]) for name in runs), 30, "all are restarted for it")
    until(lambda: (fleet.client().rollout() or {"status": "done"})["status"] == "done", 20)
    assert all(fleet.inside(name, "cat /run/secrets/db-pw") == f"{CANARY}-3" for name in runs)

    # After a reboot of the host its memory is empty, and values are fetched before containers start.
    fleet.ok("stop", "--all", "--until-boot")
    fleet.stop_daemon()
    umount = ["umount", str(fleet.paths.secrets)]
    until(lambda: subprocess.run(umount, capture_output=True).returncode == 0, what="nobody of the former daemon's uses it")
    record = json.loads(fleet.paths.running_record.read_text())
    fleet.paths.running_record.write_text(json.dumps({**record, "boot": "another"}))
    value(etc / "pw", f"{CANARY}-4")
    fleet.start_daemon()
    until(lambda: set(fleet.states().values()) == {"running"}, 20)
    assert all(fleet.inside(name, "cat /run/secrets/db-pw") == f"{CANARY}-4" for name in runs)

    (etc / "script").write_text(f"echo {CANARY} >&2; echo {CANARY}; exit 3")
    assert fleet.run("secret", "refresh", "--all").status != 0
    verbs = (
        ("list",), ("info", f"{web}1"), ("secret", "list"), ("fleet", "list"), ("doctor",), ("rollout", "status"),
        ("secret", "refresh", "shop/db-pw"), ("audit", "exposure", f"{web}1"),
    )  # fmt: skip
    ran = [fleet.run(*verb, "-f", "json") for verb in verbs] + [fleet.run("info", f"{web}1"), fleet.run("events")]
    assert all(each.out for each in ran)
    said = [each.out + each.err for each in ran]
    said += [fleet.ok("export", "--fleet", "shop"), fleet.run("diff", "-f", str(file)).out, fleet.ok("config", "show")]
    said += [fleet.ok("logs", f"{web}1"), fleet.log(), b"".join(fleet.client().metrics()).decode()]
    assert not [text for text in said if CANARY in text]
    assert holders(fleet) == []
    fleet.ok("fleet", "rm", "--orphan", "shop")


# -- without a daemon ---------------------------------------------------------------------------------------------


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    """Directories of their own, with the file system mounted, as a process with threads can't enter a mount namespace."""
    monkeypatch.setattr(home, "_kept", [])  # another test may have been a launcher
    made = Paths(tmp_path / "lxc", tmp_path / "run", tmp_path / "etc")
    made.container("web").directory.mkdir(parents=True)
    made.etc.mkdir()
    secrets._mount(made)
    yield made
    if os.path.ismount(made.secrets):
        subprocess.run(["umount", str(made.secrets)], check=True)


def killed(work: Callable[[], object], where: object, step: str, number: int, *, after: bool) -> bool:
    """Do ``work`` in a child that is killed before or after the given call of a step; gives whether it came so far."""
    real = getattr(where, step)
    pid = os.fork()
    if pid == 0:
        left = [number]

        def die(*arguments: object, **options: object) -> object:
            left[0] -= 1
            if left[0] < 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = real(*arguments, **options)
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        setattr(where, step, die)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("after", [False, True])
def test_a_container_has_all_former_values_or_all_new_ones_wherever_it_is_killed(paths: Paths, after: bool) -> None:
    files = {name: value(paths.etc / name, "0") for name in ("a", "b")}
    items = [secrets.Item(name, parse_use(f"{name},uid=7")) for name in files]
    top = paths.secrets / "web"

    def refresh() -> None:
        for name, file in files.items():
            secrets.fetch(paths, name, SecretSource(SourceKind.FILE, str(file)), anew=True)
        with secrets.opened(paths):
            secrets.deliver(paths, "web", 100000, items)

    refresh()
    steps: list[tuple[object, str]] = [
        (os, "rename"), (os, "chown"), (os, "symlink"), (os, "fchown"), (os, "fchmod"), (os, "mkdir"), (tree, "remove"),
        (os, "open"),
    ]  # fmt: skip
    reached, number = set(), 0
    for where, step in steps:
        for count in range(4):
            number += 1
            for file in files.values():
                file.write_text(str(number))
            if killed(refresh, where, step, count, after=after):
                reached.add(step)
            found = {(top / name).read_text() for name in files}
            assert len(found) == 1, (step, count, found)
            assert (top / "a").stat().st_uid == 100007
            refresh()
            assert {(top / name).read_text() for name in files} == {str(number)}
            assert len(os.listdir(top)) == 4  # ..data, the set, and two names
    assert reached >= {"rename", "chown", "fchown", "fchmod", "mkdir", "remove", "open"}


def test_values_are_in_a_file_system_of_their_own_which_goes_when_the_last_one_does(paths: Paths) -> None:
    source = SecretSource(SourceKind.FILE, str(value(paths.etc / "a", "x")))
    assert secrets.fetch(paths, "a", source, anew=False)[1]
    value(paths.etc / "a", "y")
    assert not secrets.fetch(paths, "a", source, anew=False)[1]  # it is there, and nobody asked for a new one
    assert secrets.fetch(paths, "a", source, anew=True)[1]
    mount = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(paths.secrets) in line)
    assert {"nosuid", "nodev", "noexec"} <= {*mount.split()[5].split(",")}
    assert paths.secrets.stat().st_mode & 0o777 == 0o700
    with secrets.opened(paths):
        for name in ("web", "db"):
            secrets.deliver(paths, name, None, [secrets.Item("a", parse_use("a"))])
    secrets.tidy(paths, lambda name: name == "db", last=True)
    assert os.path.ismount(paths.secrets)
    secrets.tidy(paths, lambda _: True, last=True)
    assert not paths.secrets.exists()
