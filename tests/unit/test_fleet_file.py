"""The reader of fleet files: what it accepts, what it refuses and in which words, and how long hostile files take."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.logs import Logs
from lxcfleet.spec.files import env_file, fleet_file, fleet_groups, fleet_layers, fleet_sources
from lxcfleet.spec.files import settings as all_settings
from lxcfleet.spec.files.fleet_file import FleetFile
from lxcfleet.spec.files.fleet_sources import Sources
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.policies.rollout import Share
from lxcfleet.spec.reading import marked_yaml

MOST_SECONDS = 5.0
"""Of the processor, many times what it takes; what grows with a square takes minutes."""
HEAD = "lxcfleet: 1\nfleet: shop\n"


def read(text: str, settings: Config | None = None, **files: str) -> FleetFile:
    return fleet_file.parse(Sources(text, "f", files), settings or Config())


def complaints(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        read(text)
    return caught.value.why.splitlines()


def test_a_group_stands_for_its_members() -> None:
    file = read(HEAD + "groups:\n  web: {count: 2, memory: 1G, members: {web2: {memory: 2G}}}\n  db: {}\n")
    web, db = file.groups["web"], file.groups["db"]
    assert (web.names(web.count), db.names(db.count)) == (("web1", "web2"), ("db",))
    assert (web.of("web1")["memory"], web.of("web2")["memory"], db.said) == (1 << 30, 2 << 30, {})


def test_a_profile_may_serve_both_kinds_of_containers() -> None:
    text = HEAD + "profiles: {p: {stop_signal: INT, memory: 1G}}\n"
    text += "groups: {a: {profiles: [p]}, b: {profiles: [p], command: [x]}}"
    groups = read(text).groups
    assert set(groups["a"].said) == {"memory"}
    assert set(groups["b"].said) == {"memory", "stop_signal", "command"}


def test_profiles_come_from_the_settings_and_their_directory_too(tmp_path: Path) -> None:
    (tmp_path / "profiles.d").mkdir()
    (tmp_path / "profiles.d/small.yaml").write_text("memory: 64M\npids: 9\n")
    (tmp_path / "lxcfleet.yaml").write_text("profiles:\n  big: {memory: 4G}\n")
    settings = all_settings.load(tmp_path / "lxcfleet.yaml")
    group = read(HEAD + "groups: {web: {profiles: [small, big]}}", settings).groups["web"]
    assert group.said == {"memory": 4 << 30, "pids": 9}
    places = {key: place.rpartition("/")[2] for key, _, place in fleet_groups.said_of(group)}
    assert places == {"memory": "lxcfleet.yaml:2", "pids": "small.yaml:2"}
    (tmp_path / "profiles.d/big.yaml").write_text("memory: lots\n")
    with pytest.raises(InvalidInput) as caught:
        all_settings.load(tmp_path / "lxcfleet.yaml")
    assert [line.rpartition("/")[2] for line in caught.value.why.splitlines()] == [
        "big.yaml:1: memory: 'lots' is not a size", "lxcfleet.yaml, too",
    ]  # fmt: skip


def test_env_files_are_below_environment_in_the_same_layer() -> None:
    text = HEAD + "profiles: {p: {env_files: [a], environment: {X: p}}}\n"
    text += "groups: {web: {command: [x], profiles: [p], env_files: [b], environment: {Y: own}}}"
    group = read(text, a="X=1\nZ=1\n", b="X=2\nY=2\n").groups["web"]
    assert group.said["environment"] == {"X": "2", "Y": "own", "Z": "1"}
    assert fleet_sources.env_files(text, "f") == {"a": "f:3", "b": "f:4"}


def test_lines_of_env_files() -> None:
    wrong: list[str] = []
    text = "# c\n\nA=1\n B = x\nC='a b'\nD=\"q\nnothing\n=x\nE=\n"
    found = [*env_file.read(text, "e", wrong.append)]
    assert found == [("A", "1", 3), ("C", "a b", 5), ("D", '"q', 6), ("E", "", 9)]
    assert [each.partition(": ")[0] for each in wrong] == ["e:4", "e:7", "e:8"]


def test_what_a_label_may_be_is_told_where_one_is_none() -> None:
    (told,) = complaints("lxcfleet: 1\nfleet: shop\ngroups:\n  web: {command: [a], labels: {c: ü x}}\n")
    assert told.startswith("f:4: groups: web: labels.c: 'c=ü x' can't be a label: a key has 1 to 63 letters")


def test_the_mistyped_kind_of_a_secrets_source_is_told_with_the_one_that_was_meant() -> None:
    text = "lxcfleet: 1\nfleet: shop\nsecrets:\n  s: {comand: [x], refresh: 1h}\n"
    assert complaints(text) == [
        "f:4: secrets: s: comand: unknown key: did you mean command?",
        "f:4: secrets: s: takes exactly one of credential, file and command",
    ]


def test_all_complaints_at_once_in_the_order_of_lines() -> None:
    text = """\
lxcfleet: 1
flet: shop
secrets: {x: {}}
profiles:
  base: {memory: lots, env_files: [nope.env]}
groups:
  web1: {count: 4, command: [x]}
  web:
    count: -1
    profiles: [base, none]
    depends_on: {db: well}
    memroy: 1
    environment: {A: on}
    health: {interval: 3}
    members: {api1: {}, web1: {pids: x, rollout: {priority: 1}, logs: [], stop: {timeout: 5}}}
  x: {count: 12}
  x1: {disk: 1G, privileged: true}
  -a: {}
  y: []
"""
    assert [each[:90] for each in complaints(text)] == [
        "f:1: fleet: is missing: the name of the fleet that owns all of this file",
        "f:2: flet: unknown key: did you mean fleet?",
        "f:3: secrets: x: takes exactly one of credential, file and command",
        "f:5: profiles: base: env_files: nope.env: it was not sent",
        "f:5: profiles: base: memory: 'lots' is not a size",
        "f:7: groups: web1: count: the name of a group with a count can't end in a digit: its membe",
        "f:9: groups: web: count: -1 is not between 0 and 4096",
        "f:10: groups: web: profiles: there is no profile 'none'; profiles that are known: base",
        "f:11: groups: web: depends_on.db: 'well' is none of started, healthy, completed",
        "f:12: groups: web: memroy: unknown key: did you mean memory?",
        "f:13: groups: web: environment.A: expected text (quote numbers and words such as yes and n",
        "f:14: groups: web: health: takes exactly one of exec, tcp, http and ignore_units",
        "f:15: groups: web: members: api1: is no member of the group web",
        "f:15: groups: web: members: web1: pids: expected a whole number, found text",
        "f:15: groups: web: members: web1: stop: there is no such key: write `stop_signal` and `sto",
        "f:15: groups: web: members: web1: logs: expected a mapping, found a list",
        "f:15: groups: web: members: web1: rollout is for the group as a whole",
        "f:17: groups: x1: disk: a privileged container's disk space can't be limited: its root is ",
        "f:17: groups: x1: x1 is in the group x, too (f:16)",
        "f:18: groups: -a: '-a' can't be a container's name: a name has 1 to 63 lower-case letters,",
        "f:19: groups: y: expected a mapping, found a list",
    ]


def test_every_key_that_a_file_may_have_is_carried_out_or_refused_with_what_to_write() -> None:
    text = (Path(__file__).parent / "every_key.yaml").read_text()
    file = fleet_file.parse(Sources(text, "f", {"common.env": "MODE=test\nTZ=UTC\n", "web.env": "MODE=x\n"}), Config())
    web = file.groups["web"]
    keys = re.findall(r"(?m)^    ([a-z_]+):", text)
    assert {*keys} - {*web.said} == {"count", "profiles", "env_files", "members", "rollout"}
    assert (web.said["generation"], web.said["logs"]) == (41, Logs(True, 500, 5000))
    assert (web.rollout.canaries, web.rollout.bake) == (Share(2), 600.0)
    assert web.said["environment"] == {"MODE": "prod", "TZ": "UTC"}
    others = "    base: live\n    stop: {signal: TERM, timeout: 10}\n    autoscale: {min: 2, max: 40}\n"
    with pytest.raises(InvalidInput) as caught:
        fleet_file.parse(Sources(text + others, "f", {"common.env": "", "web.env": ""}), Config())
    told = [line.split(": ", 4) for line in caught.value.why.splitlines()]
    assert [(place, key) for place, _, _, key, _ in told] == [("f:54", "base"), ("f:55", "stop"), ("f:56", "autoscale")]
    assert [words for *_, words in told] == [f"there is no such key: {fleet_layers.OTHERWISE[key]}" for *_, key, _ in told]


def test_members_of_two_groups_may_not_be_the_same_unless_hosts_tell_them_apart() -> None:
    both = HEAD + "groups:\n  x: {count: 2, hosts: [a]}\n  x1: {hosts: [%s]}\n"
    assert "x1 is in the group x, too" in complaints(both % "a")[0]
    assert {*read(both % "b").on("b").groups} == {"x1"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "f:1: lxcfleet: is missing"),
        ("lxcfleet: 2\nfleet: x\nwhatever: 1", "f:1: lxcfleet: the file has another version of the format"),
        ("- 1", "f:1: expected a mapping"),
        ("a: 1\n---\nb: 2", "f:2: a second document begins"),
        ("a: [1\n", "f:2: did not find expected"),
        ("a: 0755", "f:1: 0755 is the number 493 in YAML"),
        ("a: 22:22", "f:1: 22:22 is the number 1342 in YAML"),
        ("a: 2026-01-01", "f:1: 2026-01-01 is a time in YAML"),
        ("a: &x 1\nb: *x", "f:1: anchors (&name) are not allowed"),
        ("a: 1\nb: *x", "f:2: aliases (*name) are not allowed"),
        ("a: !!python/object:os.system x", "f:1: tags (tag:yaml.org,2002:python/object:os.system) are not allowed"),
        ("<<: {a: 1}", "f:1: merge keys (<<) are not allowed"),
        ("on: 1", "f:1: 'on' is not read as a text"),
        ("a: 1\na: 2", "f:2: 'a' stands there twice, first at f:1"),
        ("a: \x00", "f: unacceptable character"),
        (f"a: {'9' * 5000}", "f:1: 9999"),
        ("groups: 3", "f:1: groups: expected a mapping"),
        ("fleet: Shop", "f:1: fleet: 'Shop' can't be"),
        ("groups: {a: {members: 3}}", "f:1: groups: a: members: expected a mapping"),
        ("groups: {a: {rollout: {canary: null}}}", "f:1: groups: a: rollout: canary: unknown key: did you mean canaries?"),
        ("groups: {a: {health: {typo: null, tcp: 80}}}", "f:1: groups: a: health: typo: unknown key"),
        ("profiles: {a: {logs: {rat: null}}}", "f:1: profiles: a: logs: rat: unknown key"),
        ("groups: {a: {network: none, publish: ['80:80']}}", "f:1: groups: a: publish: a container with"),
    ],
)  # fmt: skip
def test_a_trap_is_told_with_its_line(text: str, complaint: str) -> None:
    assert [each for each in complaints(text) if each.startswith(complaint)], complaints(text)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 500_000, b"{" * 500_000, b"{a: " * 125_000, b"- " * 250_000, b"? " * 250_000, b"a: [" + b"1," * 250_000,
        b"a: '" + b"\\x" * 250_000, b"!a " * 160_000, b"&a " * 160_000, b"a: " + b"9" * 500_000,
        b"a: " + b"1:" * 250_000 + b"1", b"a: " + b"1_" * 250_000,
        b"x:\n " * 125_000, b"\n" * 500_000, b"#" * 500_000, b"a:" * 250_000,
        b"".join(b"k%d: {a: 1}\n" % n for n in range(30_000)), b"[" + b"[],"[:3] * 160_000,
    ],
    ids=lambda text: str(text[:8]),
)  # fmt: skip
def test_a_hostile_file_is_answered_at_once(text: bytes) -> None:
    began = time.process_time()
    assert complaints(text.decode())
    assert time.process_time() - began < MOST_SECONDS


def test_a_file_of_many_groups_with_many_mistakes_is_answered_at_once() -> None:
    groups = "".join(f"  g{n}x: {{count: 4, memroy: 1, labels: {{a: 1}}, profiles: [none]}}\n" for n in range(2000))
    began = time.process_time()
    found = complaints(HEAD + "groups:\n" + groups)
    assert (len(found), found[-1]) == (fleet_layers.MOST + 1, "and more")
    assert time.process_time() - began < MOST_SECONDS


def test_more_containers_than_a_fleet_may_have_are_refused() -> None:
    groups = "".join(f"  g{n}x: {{count: 4000}}\n" for n in range(2000))
    assert complaints(HEAD + "groups:\n" + groups) == ["f:3: groups: these are 8000000 containers, and a fleet may have 4096"]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (f"memory: '{'1' * 200_000}'", "f:4: groups: a: memory: '1111"),
        (f"stop_timeout: '{'1h' * 100_000}'", "f:4: groups: a: stop_timeout: '1h1h"),
        (f"hosts: ['{'*a' * 100_000}']", "f:4: groups: a: hosts: the glob *a*a"),
        (f"'{'k' * 1000}': 1", "f:4: groups: a: kkkk"),
    ],
    ids=["memory", "stop_timeout", "hosts", "key"],
)
def test_a_complaint_is_short_whatever_it_quotes(key: str, why: str) -> None:
    begin = time.process_time()
    (found,) = complaints(HEAD + "groups:\n  a: {command: [x], " + key + "}\n")
    assert found.startswith(why)
    assert len(found) < 1000
    assert time.process_time() - begin < MOST_SECONDS


def test_a_complaint_is_one_line_and_tells_what_is_wrong() -> None:
    text = HEAD + 'groups:\n  a: {command: ["x\\0"], environment: {"A\\nf:1: forged": x, B: "\\0"}, "\\u2028k\\r": 1}\n'
    assert complaints(text) == [
        "f:4: groups: a: command[0]: holds a NUL character",
        "f:4: groups: a: environment.A\\nf:1: forged: 'A\\nf:1: forged' can't be the name of an environment variable",
        "f:4: groups: a: environment.B: the value of an environment variable can't hold a NUL character",
        "f:4: groups: a: \\u2028k\\r: unknown key",
    ]


def test_a_larger_file_is_not_read() -> None:
    with pytest.raises(InvalidInput, match="too large"):
        marked_yaml.load(b"a" * (marked_yaml.MAX_BYTES + 1), "f", pytest.fail)


@pytest.mark.parametrize("text", [
    "groups:\n  web:\n    command: [x]\n    count: 3000\n    environment: {many}\n    members:\n{members}",
    "profiles: {{p: {{environment: {many}}}}}\ngroups:\n{groups}",
], ids=["members", "profiles"])  # fmt: skip
def test_what_is_said_once_and_meant_for_thousands_is_refused_before_it_is_merged(text: str) -> None:
    """Merged whole, each of these took a minute."""
    many = "{" + ", ".join(f"V{number}: x" for number in range(5000)) + "}"
    members = "".join(f"      web{number}: {{pids: 5}}\n" for number in range(1, 3000))
    groups = "".join(f"  g{number}x: {{command: [x], profiles: [p]}}\n" for number in range(2000))
    with pytest.raises(InvalidInput) as caught:
        read(HEAD + text.format(many=many, members=members, groups=groups))
    assert f"have more than {fleet_layers.MAX_MERGED} values in all" in caught.value.why


def test_env_files_without_end_are_refused() -> None:
    text = HEAD + "groups:\n" + "".join(f"  g{n}x: {{command: [x], env_files: [a]}}\n" for n in range(40))
    with pytest.raises(InvalidInput, match="") as caught:
        read(text, a="A=1\n" * 10_000)
    assert "values in all" in caught.value.why


def test_the_containers_of_a_file_have_no_more_values_than_any_fleet_needs() -> None:
    many = "{" + ", ".join(f"V{number}: x" for number in range(300)) + "}"
    with pytest.raises(InvalidInput) as caught:
        read(HEAD + f"groups:\n  web: {{command: [x], count: 4096, environment: {many}}}")
    assert f"and may have {fleet_file.MAX_HELD}" in caught.value.why


def test_of_many_unknown_keys_the_first_are_told() -> None:
    with pytest.raises(InvalidInput) as caught:
        read(HEAD + "groups:\n  web:\n    comand: [x]\n" + "".join(f"    k{number}: 1\n" for number in range(14_000)))
    lines = caught.value.why.splitlines()
    assert "did you mean command?" in lines[0]
    assert len(lines) <= fleet_layers.MOST + 1


def test_circles_of_dependencies_are_all_told_with_their_lines() -> None:
    text = HEAD + """groups:
  web: {count: 3, depends_on: {db: healthy}}
  db:
    count: 2
    depends_on: {job: completed}
  job: {depends_on: {web2: started}}
  self:
    depends_on:
      self: started
  a: {memory: lots, members: {a: {depends_on: {b: started}}}}
  b: {depends_on: {a: healthy}}
  well: {depends_on: {web: started, elsewhere: healthy}}
"""
    told = complaints(text)
    assert "a circle: db waits for db1 waits for job waits for web2 waits for db" in "\n".join(told)
    assert [line.split(": a circle")[0] for line in told if "a circle" in line] == [
        "f:7: groups: db: depends_on.job", "f:11: groups: self: depends_on.self", "f:12: groups: a: depends_on.b",
    ]  # fmt: skip
    assert any("lots" in line for line in told)


def test_circles_of_a_hostile_file_take_no_time() -> None:
    many = "{" + ", ".join(f"x{number}: started" for number in range(9000)) + "}"
    text = HEAD + f"groups:\n  web: {{count: 4000, depends_on: {many}}}\n"
    text += "".join(f"  g{number}x: {{depends_on: {{g{number}x: started}}}}\n" for number in range(90))
    before = time.process_time()
    told = complaints(text)
    assert time.process_time() - before < MOST_SECONDS
    assert any("depends_on has more than 64 names" in line for line in told)
    assert sum("a circle" in line for line in told) == fleet_groups.MOST_CIRCLES
