"""Secrets: how sources and uses are written, what is refused, and which sources are read."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.containers.lxc_config import Platform, render
from lxcfleet.containers.secrets.keeper import Secrets
from lxcfleet.containers.secrets.new_values import SecretChanges, waves
from lxcfleet.data import secrets
from lxcfleet.errors import Busy, FleetError, HostError, InvalidInput, NotFound, WrongState
from lxcfleet.host.facts import swap
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.secrets import (
    LARGEST,
    SOURCES,
    OnChange,
    SecretSource,
    SecretsType,
    SecretUse,
    SourceKind,
    Then,
    key_of,
    parse_use,
    sources_from_json,
)
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import parse
from lxcfleet.spec.policies.rollout import RolloutSettings, Share
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.terms import Init

TYPE = SecretsType()
EXEC = OnChange(Then.EXEC, command=("/bin/reload", "a, b"))


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("db-pw", SecretUse("db-pw", "db-pw")),
        ("db-pw:db.pass", SecretUse("db.pass", "db-pw")),
        ("db-pw,uid=33,gid=4,mode=0440", SecretUse("db-pw", "db-pw", 33, 4, 0o440)),
        ("db-pw:x,on_change=restart", SecretUse("x", "db-pw", on_change=OnChange(Then.RESTART))),
        ("db-pw,on_change=signal:HUP", SecretUse("db-pw", "db-pw", on_change=OnChange(Then.SIGNAL, "HUP"))),
    ],
)
def test_a_use_is_read_as_it_is_written(text: str, use: SecretUse) -> None:
    assert parse_use(text) == use
    assert parse_use(str(use)) == use
    assert parse_use(use.to_json()) == use


def test_several_uses_are_told_apart_by_their_commas() -> None:
    uses = TYPE.parse("db-pw:x,uid=33,mode=0440,api, tls.key".replace("tls.key", "tls:tls.key"))
    assert uses == (SecretUse("x", "db-pw", 33, 0, 0o440), SecretUse("api", "api"), SecretUse("tls.key", "tls"))
    assert TYPE.parse(TYPE.tell(uses)) == uses


def test_a_command_of_any_words_is_written_as_a_mapping() -> None:
    use = SecretUse("x", "db-pw", on_change=EXEC)
    (written,) = TYPE.render((use,))
    assert written["on_change"] == {"exec": ["/bin/reload", "a, b"]}
    assert TYPE.read(Fields({"secrets": [written]}, ""), "secrets") == (use,)
    assert parse_use("db-pw,on_change=exec:/bin/reload now").on_change.command == ("/bin/reload", "now")


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("", "names no secret"),
        ("db-pw:", "names no secret"),
        ("Db", "can't be a secret's name"),
        ("a/b", "can't be a secret's name"),
        ("../x", "can't be a secret's name"),
        ("db-pw:a/b", "can't be the name of a secret's file"),
        ("db-pw:..data", "can't be the name of a secret's file"),
        ("db-pw:.hidden", "can't be the name of a secret's file"),
        ("db-pw,uid=root", "is no number"),
        ("db-pw,uid=65536", "is no number"),
        ("db-pw,mode=1777", "none from 0000 to 0777"),
        ("db-pw,mode=0800", "none from 0000 to 0777"),
        ("db-pw,uid=1,uid=2", "said twice"),
        ("db-pw,colour=red", "no option of a secret"),
        ("db-pw,on_change=signal:KILL", "none of the signals"),
        ("db-pw,on_change=exec:", "exec takes a command"),
        ("db-pw,on_change=exec:'x", "no command"),
        ("db-pw,on_change=later", "none of restart"),
        ({"secret": "db-pw", "mode": 0o440}, "mode is a text in quotes"),
        ({"secret": "db-pw", "mode": "4755"}, "none from 0000 to 0777"),
        ({"secret": "db-pw", "uid": "33"}, "a whole number"),
        ({"secret": "db-pw", "path": "/x"}, "unknown key"),
        ({"secret": "db-pw", "on_change": {"signal": "HUP", "exec": ["x"]}}, "one of restart"),
        ({"target": "x"}, "can't be a secret's name"),
    ],
)
def test_a_bad_use_is_refused(item: Any, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        parse_use(item)
    complaints: list[str] = []
    TYPE.read(Fields({"secrets": [item]}, "web.yaml", complaints), "secrets")
    assert why in " ".join(complaints)


def test_one_file_has_one_secret_and_a_container_not_too_many() -> None:
    with pytest.raises(InvalidInput, match="given twice"):
        TYPE.parse("a:x,b:x")
    with pytest.raises(InvalidInput, match="too many"):
        TYPE.parse(",".join(f"s{number}" for number in range(65)))


def test_a_signal_is_for_a_program_and_not_for_systemd() -> None:
    uses = (parse_use("db-pw,on_change=signal:HUP"),)
    combinations.check(Spec("web", Init.APP, ("x",), secrets=uses))
    with pytest.raises(InvalidInput, match="would go to systemd"):
        combinations.check(Spec("web", Init.SYSTEM, secrets=uses))


SETTINGS = b"""
secrets:
  db-pw: {credential: shop-db}
  tls: {file: /etc/ssl/private/shop.key, refresh: 1h}
  api: {command: [/usr/bin/pass, show, api], refresh: 90, timeout: 2}
"""


def test_sources_are_read_and_written() -> None:
    found = parse(SETTINGS, "x").secrets
    assert found["db-pw"] == SecretSource(SourceKind.CREDENTIAL, "shop-db")
    assert (found["tls"].refresh, found["api"].refresh, found["api"].timeout) == (3600, 90, 2)
    assert str(found["api"]) == "command /usr/bin/pass"  # arguments may tell too much
    assert sources_from_json(SOURCES.render(found)) == found
    assert key_of("shop", "db-pw") == "shop/db-pw"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{}", "exactly one of credential, file and command"),
        ("{file: /x, credential: y}", "exactly one of credential, file and command"),
        ("{file: x}", "no absolute path"),
        ("{file: /etc/../x}", "no absolute path"),
        ("{credential: a/b}", "without slashes"),
        ("{credential: ..}", "without slashes"),
        ("{command: []}", "whole path of its program"),
        ("{command: [pass, show]}", "whole path of its program"),
        ("{command: /usr/bin/pass}", "expected a list"),
        ("{file: /x, refresh: 1s}", "refresh: 1s is not between 10 and"),
        ("{file: /x, refresh: soon}", "no length of time"),
        ("{file: /x, timeout: 3600}", "not between"),
        ("{value: hunter2}", "exactly one of credential, file and command"),
        ("{file: /x, value: y}", "unknown key"),
    ],
)
def test_a_bad_source_is_refused(source: str, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(f"secrets: {{db-pw: {source}}}".encode(), "lxcfleet.yaml")
    assert why in caught.value.why
    assert "hunter2" not in str(caught.value)


def test_systemd_inside_gets_them_as_credentials(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path, tmp_path)
    platform = Platform(True, frozenset(), False, False, "br", "", Path("/hook"))
    line = "lxc.environment = CREDENTIALS_DIRECTORY=/run/secrets"
    assert line in render(Spec("c1", secrets=(parse_use("x"),), first_id=65536), paths, platform, 64)
    assert line not in render(Spec("c1", first_id=65536), paths, platform, 64)


# -- sources ----------------------------------------------------------------------------------------------------------


def of_file(path: Path) -> SecretSource:
    return SecretSource(SourceKind.FILE, str(path))


def of_command(*words: str, timeout: float = 10.0) -> SecretSource:
    return SecretSource(SourceKind.COMMAND, command=words, timeout=timeout)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "lxc", tmp_path / "run", tmp_path / "etc")


def private(path: Path, text: bytes = b"hunter2") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    path.chmod(0o600)
    return path


@pytest.mark.reaches("processes", reason="a child reads the file")
def test_a_file_is_read_as_it_is(paths: Paths, tmp_path: Path) -> None:
    assert secrets.obtain(paths, of_file(private(tmp_path / "pw", b"a\0b\n"))) == b"a\0b\n"
    assert secrets.obtain(paths, of_file(private(tmp_path / "pw", b""))) == b""


@pytest.mark.reaches("processes", reason="a child reads the file")
def test_what_is_no_private_regular_file_is_refused(paths: Paths, tmp_path: Path) -> None:
    file = private(tmp_path / "pw")
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "dir").mkdir()
    (tmp_path / "through").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    large = private(tmp_path / "large", b"x" * (LARGEST + 1))
    for path, why in (
        (tmp_path / "link", "a link"),
        (tmp_path / "through" / "pw", "a link"),
        (tmp_path / "dir", "a directory"),
        (tmp_path / "fifo", "a named pipe"),
        (Path("/dev/null"), "a device"),
        (tmp_path / "nope", "there is no file"),
        (large, f"more than {LARGEST}"),
    ):
        with pytest.raises((WrongState, NotFound)) as caught:
            secrets.obtain(paths, of_file(path))
        assert why in str(caught.value), path
    file.chmod(0o644)
    with pytest.raises(WrongState) as caught_readable:
        secrets.obtain(paths, of_file(file))
    assert "all users of the host can read it" in str(caught_readable.value)


@pytest.mark.reaches("processes", reason="a child reads the file")
def test_a_file_whose_content_does_not_come_is_not_waited_for(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    source = replace(of_file(private(paths.run / "pw")), timeout=0.2)
    monkeypatch.setattr(secrets, "_content", lambda path: threading.Event().wait(60) and b"")
    with pytest.raises(HostError) as caught:
        secrets.obtain(paths, source)
    assert str(caught.value) == f"{paths.run}/pw can't be read\nthat did not end within 0.2 s"


@pytest.mark.reaches("processes", reason="a child reads the file")
def test_a_plain_credential_is_a_file_of_the_store(paths: Paths) -> None:
    _, plain = secrets.credentials(paths)
    source = SecretSource(SourceKind.CREDENTIAL, "shop-db")
    with pytest.raises(NotFound, match="no credential shop-db"):
        secrets.obtain(paths, source)
    private(plain / "shop-db")
    assert secrets.obtain(paths, source) == b"hunter2"


@pytest.mark.reaches("processes", reason="a program gives a value")
def test_a_command_gives_its_output_or_nothing_of_it(paths: Paths) -> None:
    assert secrets.obtain(paths, of_command("/bin/sh", "-c", "printf hunter2; exit 0")) == b"hunter2"
    for script, why, seconds in (
        ("echo hunter2; echo hunter2 >&2; exit 1", "ended with status 1", 10.0),
        ("kill -9 $$", "ended by signal 9", 10.0),
        ("echo hunter2; exec sleep 60", "did not end within 0.2 s", 0.2),
        ("exec >&-; exec sleep 60", "did not end within 0.2 s", 0.2),
        ("exec yes hunter2", f"wrote more than {LARGEST} bytes", 10.0),
    ):
        with pytest.raises(HostError) as caught:
            secrets.obtain(paths, of_command("/bin/sh", "-c", script, timeout=seconds))
        assert why in str(caught.value), script
        assert "hunter2" not in str(caught.value)
    with pytest.raises(HostError, match="can't be run"):
        secrets.obtain(paths, of_command("/bin/nope"))


@pytest.mark.reaches("processes", reason="a program gives a value")
def test_what_a_command_leaves_behind_does_not_hold_it_up_and_is_ended(paths: Paths, tmp_path: Path) -> None:
    script = f"sleep 300 & echo $! >{tmp_path}/left; printf hunter2"
    assert secrets.obtain(paths, of_command("/bin/sh", "-c", script)) == b"hunter2"
    left = int((tmp_path / "left").read_text())
    state = Path(f"/proc/{left}/stat")
    for _ in range(500):
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX":
            return
        os.sched_yield()
        asyncio.run(asyncio.sleep(0.01))
    pytest.fail("it runs still")


def test_digests_tell_nothing_without_their_key(paths: Paths, tmp_path: Path) -> None:
    other = Paths(tmp_path / "other", tmp_path / "run", tmp_path / "etc")
    one = secrets.digest(paths, "db-pw", b"hunter2")
    assert secrets.digest(paths, "db-pw", b"hunter2") == one
    assert len({one, secrets.digest(paths, "db-pw", b"x"), secrets.digest(paths, "shop/db-pw", b"hunter2")}) == 3
    assert secrets.digest(other, "db-pw", b"hunter2") != one
    assert stat.S_IMODE(paths.hmac_key.stat().st_mode) == 0o600


def test_a_fleets_own_secret_hides_the_hosts_of_that_name(paths: Paths) -> None:
    host = {"db-pw": of_file(Path("/host")), "tls": of_file(Path("/tls"))}
    paths.fleets.mkdir(parents=True)
    (paths.fleets / "shop.json").write_text('{"secrets": {"db-pw": {"file": "/shop"}}}')
    (paths.fleets / "broken.json").write_text("[")
    assert secrets.declared(paths, "shop", host) == {
        "db-pw": ("shop/db-pw", of_file(Path("/shop"))), "tls": ("tls", of_file(Path("/tls"))),
    }  # fmt: skip
    for fleet in (None, "broken", "other"):
        assert secrets.declared(paths, fleet, host)["db-pw"][0] == "db-pw"


# -- which of many are fetched, and who is told -----------------------------------------------------------------------


class Asked:
    """A launcher that fetches values which the test sets, and counts."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.count = 0

    async def ask(self, _: str, item: Any) -> Any:
        self.count += 1
        await asyncio.sleep(0)
        value = self.values.get(item["key"])
        error = None if value is not None else HostError("no vault").body()
        return {"error": error, "digest": value or "", "changed": True}

    async def ask_large(self, _: str, items: Any) -> Any:
        return [
            {"name": i["name"], "error": None, "digests": {parse_use(u).target: self.values[k] for k, u in i["secrets"]}}
            for i in items
        ]


def made(paths: Paths, launcher: Asked, *containers: Container) -> Secrets:
    settings = {"db-pw": of_command("/bin/vault"), "tls": of_file(Path("/tls"))}
    return Secrets(paths, containers, launcher, Bus(), settings, dict)  # type: ignore[arg-type]


def web(number: int, *uses: str) -> Container:
    container = Container(f"web{number}", Spec(f"web{number}", secrets=tuple(map(parse_use, uses)), created="x"))
    container.running = SimpleNamespace(identity="1@1")  # type: ignore[assignment]
    return container


def test_of_many_that_start_at_once_one_asks_and_a_failure_holds_for_all(paths: Paths) -> None:
    async def start(launcher: Asked) -> list[Any]:
        some = made(paths, launcher)
        specs = [Spec(f"web{number}", secrets=(parse_use("db-pw"),)) for number in range(20)]
        return [*await asyncio.gather(*(some.ready(spec.name, spec) for spec in specs), return_exceptions=True)]

    down = Asked()
    found = asyncio.run(start(down))
    assert {str(each) for each in found} == {"secret db-pw: it can't be fetched\nno vault"}
    assert down.count == 1
    up = Asked()
    up.values["db-pw"] = "1"
    assert asyncio.run(start(up)) == [[["db-pw", "db-pw"]]] * 20
    assert up.count == 1


def test_one_whose_secret_nobody_declares_is_told_so(paths: Paths) -> None:
    with pytest.raises(FleetError, match="there is no secret nope"):
        asyncio.run(made(paths, Asked()).ready("web", Spec("web", secrets=(parse_use("nope"),))))


def test_what_a_program_does_not_know_is_owed_to_it_until_it_is_told(paths: Paths) -> None:
    launcher, container = Asked(), web(1, "db-pw,on_change=signal:HUP", "tls")
    paths.container("web1").directory.mkdir(parents=True)
    some = made(paths, launcher, container)
    launcher.values = {"db-pw": "1", "tls": "1"}
    secrets.note_known(paths, "web1", {"db-pw": "1", "tls": "1"})

    async def renew() -> list[str]:
        assert not any(isinstance(each, FleetError) for each in (await some.renew(["db-pw", "tls"])).values())
        return [use.target for use in some.owed(container)]

    assert asyncio.run(renew()) == []
    launcher.values = {"db-pw": "2", "tls": "2"}
    assert asyncio.run(renew()) == ["db-pw"]
    again = made(paths, launcher, container)  # a daemon that was killed before it told anybody
    asyncio.run(again.go_on())
    (owed,) = again.owed(container)
    again.note_told(container, [owed], again.digests(container))
    assert again.owed(container) == []
    launcher.values["db-pw"] = "3"
    some.starts("web1")  # it is started anew, with whatever value there is then
    assert some.owed(container) == []


def test_a_value_that_changes_while_a_command_tells_of_the_former_one_is_told_of_later(paths: Paths) -> None:
    """Before, the program counted as told of the new one, which its command had not seen."""

    class Changing(Asked):
        async def ask(self, _: str, item: Any) -> Any:
            if "command" not in item:
                return await super().ask(_, item)
            self.values["db-pw"] = "3"
            await some.renew(["db-pw"])
            return {"name": "web1", "error": None, "status": 0, "output": ""}

    launcher, container = Changing(), web(1, "db-pw,on_change=exec:/bin/reload")
    paths.container("web1").directory.mkdir(parents=True)
    some = made(paths, launcher, container)
    secrets.note_known(paths, "web1", {"db-pw": "1"})
    nobody: Any = None
    registry: Any = {"web1": container}
    ways: Any = launcher
    changes = SecretChanges(some, registry, nobody, ways, Bus(), Tasks(), RolloutSettings, nobody)

    async def tell() -> None:
        launcher.values["db-pw"] = "2"
        await some.renew(["db-pw"])
        assert await changes._tell_one("web1", some.owed(container)) == ""

    asyncio.run(tell())
    assert secrets.known(paths, "web1") == {"db-pw": "2"}
    assert [use.target for use in some.owed(container)] == ["db-pw"]


def test_one_task_alone_tries_restarts_again_that_another_rollout_is_in_the_way_of(paths: Paths) -> None:
    launcher, container = Asked(), web(1, "db-pw,on_change=restart")
    paths.container("web1").directory.mkdir(parents=True)
    some = made(paths, launcher, container)
    secrets.note_known(paths, "web1", {"db-pw": "1"})
    launcher.values["db-pw"] = "2"
    begun: list[str] = []

    class Registry(list[Container]):
        def __getitem__(self, name: Any) -> Any:
            return next(each for each in self if each.name == name)

    class Counting(Tasks):
        def do(self, name: str, work: Any, *, subject: str = "") -> Any:
            begun.append(name)
            return super().do(name, work, subject=subject)

    async def busy(_: Sequence[str]) -> None:
        raise Busy("another rollout is under way")

    async def trial() -> None:
        nobody: Any = None
        registry: Any = Registry([container])
        tasks = Counting()
        changes = SecretChanges(some, registry, nobody, nobody, Bus(), tasks, RolloutSettings, busy)
        await some.renew(["db-pw"])
        for _ in range(5):
            await changes._work()
        tasks.close()

    asyncio.run(trial())
    assert begun == ["secret-restarts"]


def test_a_value_that_changes_while_a_container_starts_is_given_to_it_later(paths: Paths) -> None:
    launcher, container = Asked(), web(1, "db-pw")
    launcher.values["db-pw"] = "1"
    some = made(paths, launcher, container)

    async def start() -> bool:
        assert container.spec is not None
        await some.ready("web1", container.spec)
        some.starts("web1")
        before = some.is_late(container)
        launcher.values["db-pw"] = "2"
        container.running = None
        await some.renew(["db-pw"])
        container.running = SimpleNamespace(identity="1@1")  # type: ignore[assignment]
        return not before and some.is_late(container)

    assert asyncio.run(start())


def test_waves_are_as_large_as_rollouts_ones() -> None:
    names = [f"web{number}" for number in range(1, 10)]
    policy = RolloutSettings(max_unavailable=Share(4), canaries=Share(1))
    assert [len(wave) for wave in waves(names, policy)] == [1, 4, 4]
    assert [name for wave in waves(names, policy) for name in wave] == names
    assert [len(wave) for wave in waves(names, RolloutSettings(Share(1), Share(0)))] == [1] * 9


def test_swap_counts_as_encrypted_if_all_that_it_lies_on_is(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    table = tmp_path / "swaps"
    head = "Filename Type Size Used Priority\n"
    table.write_text(f"{head}{tmp_path}/plain file 1 0 -2\n/dev/zram0 partition 1 0 100\n{tmp_path}/gone file 1 0 -3\n")
    number = (tmp_path / "plain").stat().st_dev
    device = tmp_path / "sys" / f"{os.major(number)}:{os.minor(number)}"
    assert swap.unencrypted(table, tmp_path / "sys") == [f"{tmp_path}/plain", f"{tmp_path}/gone"]
    (device / "dm").mkdir(parents=True)
    (device / "dm/uuid").write_text("LVM-x\n")
    below = device / "slaves" / "dm-0"
    (below / "dm").mkdir(parents=True)
    (below / "dm/uuid").write_text("CRYPT-LUKS2-x\n")
    assert swap.unencrypted(table, tmp_path / "sys") == [f"{tmp_path}/gone"]
    (below / "dm/uuid").write_text("LVM-y\n")
    assert swap.unencrypted(table, tmp_path / "sys") == [f"{tmp_path}/plain", f"{tmp_path}/gone"]
    assert swap.unencrypted(tmp_path / "nope") == []


def test_of_many_that_are_destroyed_at_once_the_last_takes_the_file_system_away(paths: Paths) -> None:
    class Tidying(Asked):
        async def ask(self, _: str, item: Any) -> Any:
            self.count += 1
            await asyncio.sleep(0.05 / self.count)  # what is asked for later may be done earlier
            for name in item["gone"]:
                (paths.secrets / name).rmdir()
            if item["last"] and not list(paths.secrets.iterdir()):
                paths.secrets.rmdir()
            return {"error": None}

    containers = [web(number, "db-pw") for number in range(8)]
    for each in containers:
        (paths.secrets / each.name).mkdir(parents=True)
    some = made(paths, Tidying(), *containers)

    async def destroy() -> None:
        await asyncio.gather(*(some.forget(each.name) for each in containers))

    asyncio.run(destroy())
    assert not paths.secrets.exists()
