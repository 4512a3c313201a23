"""The operator's rules: which ones are accepted, and how all mistakes are told at once."""

import os
from pathlib import Path

import pytest

from lxcfleet.base.mask.rules import fingerprint
from lxcfleet.errors import InvalidInput
from lxcfleet.paths import Paths
from lxcfleet.spec.files import mask_rules as rules
from lxcfleet.spec.files.mask_rules import RuleKind


def write(directory: Path, **files: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    return directory


def complaints(directory: Path) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        rules.load(directory)
    return caught.value.why.splitlines()


def test_no_directory_means_no_rules(tmp_path: Path) -> None:
    assert rules.load(tmp_path / "mask.d") == rules.Rules()


def test_all_keys(tmp_path: Path) -> None:
    directory = write(
        tmp_path / "mask.d",
        a="hide: [/opt/secret]\nshow: [/srv/www]\nempty: [/opt/state]\n",
        b="replace: {/etc/motd: hello}\nunits: [ssh.service]\n",
        c="",
    )
    loaded = rules.load(directory)
    assert {(rule.path, rule.kind) for rule in loaded.rules} == {
        ("/opt/secret", RuleKind.HIDE),
        ("/srv/www", RuleKind.SHOW),
        ("/opt/state", RuleKind.EMPTY),
    }
    assert all(rule.operator and rule.why.startswith("a.yaml: ") for rule in loaded.rules)
    assert loaded.replace == (("/etc/motd", "hello", "b.yaml: replace"),)
    assert loaded.units == ("ssh.service",)


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    directory = write(tmp_path / "mask.d")
    (directory / "README").write_text("hide: nonsense")
    (directory / ".swap.yaml").write_text("hide: nonsense")
    assert rules.load(directory) == rules.Rules()


def test_all_mistakes_are_told_with_file_and_key(tmp_path: Path) -> None:
    directory = write(
        tmp_path / "mask.d",
        a="hide: [relative, /a/../b, /, 7]\nhid: [/x]\n",
        b="replace: {/etc/motd: [no]}\nunits: [../evil.service, 'ssh']\nshow: /not-a-list\n",
        c="- a list\n",
        d="hide: [/x\n",
    )
    told = complaints(directory)
    expected = [
        ("a.yaml: hide[0]", "'relative'"),
        ("a.yaml: hide[1]", "'/a/../b'"),
        ("a.yaml: hide[2]", "'/'"),
        ("a.yaml: hide[3]", "expected text"),
        ("a.yaml: hid", "unknown key"),
        ("b.yaml: replace./etc/motd", "expected text"),
        ("b.yaml: units[0]", "'../evil.service'"),
        ("b.yaml: units[1]", "'ssh'"),
        ("b.yaml: show", "expected a list"),
        ("c.yaml", "expected a mapping"),
        ("d.yaml", "line 2"),
    ]
    for where, what in expected:
        assert any(where in line and what in line for line in told), (where, what, told)
    assert len(told) == len(expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hide: &a [/x]\nshow: *a\n", "aliases"),
        ("<<: {hide: [/x]}\n", "merge keys"),
        ("hide: [/x]\nhide: [/y]\n", "twice"),
        ("hide: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
        ("hide: [/x]\n---\nhide: [/y]\n", "but found another document"),
        ("hide: ['/x\x00']\n", "special characters"),
        pytest.param("[" * 5000, "", id="nested deeply"),
    ],
)
def test_traps_of_yaml(tmp_path: Path, text: str, reason: str) -> None:
    told = complaints(write(tmp_path / "mask.d", a=text))
    assert len(told) == 1
    assert "a.yaml" in told[0]
    assert reason in told[0]


def test_two_rules_about_one_path(tmp_path: Path) -> None:
    told = complaints(write(tmp_path / "mask.d", a="hide: [/x, /y]\n", b="show: [/x]\nreplace: {/y: text}\n"))
    assert ["b.yaml: show[0]" in told[0], "b.yaml: replace./y" in told[1], len(told)] == [True, True, 2]


def test_the_same_rule_twice_is_fine(tmp_path: Path) -> None:
    loaded = rules.load(write(tmp_path / "mask.d", a="hide: [/x]\n", b="hide: [/x]\n"))
    assert [rule.path for rule in loaded.rules] == ["/x"]


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    directory = write(tmp_path / "mask.d")
    os.mkfifo(directory / "a.yaml")
    assert "not a regular file" in complaints(directory)[0]


def test_a_huge_file(tmp_path: Path) -> None:
    told = complaints(write(tmp_path / "mask.d", a="#" * (rules.MAX_FILE + 1)))
    assert "larger than" in told[0]


def test_not_utf8(tmp_path: Path) -> None:
    directory = write(tmp_path / "mask.d")
    (directory / "a.yaml").write_bytes(b"hide: [/\xff]\n")
    assert "a.yaml" in complaints(directory)[0]


def test_fingerprint_follows_the_paths(tmp_path: Path) -> None:
    assert fingerprint(Paths()) == fingerprint(Paths())
    assert fingerprint(Paths()) != fingerprint(Paths(lxc=tmp_path))
