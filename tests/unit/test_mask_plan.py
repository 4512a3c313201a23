"""The content of the mask: the plan over small trees, and the files that a clone sees under it."""

import os
import stat
from pathlib import Path

import pytest

from lxcfleet.base.mask import compiler, neutral, rules
from lxcfleet.base.mask.sweep import Private, sweep
from lxcfleet.base.tree import Tree, parents
from lxcfleet.host.kernel.entries import Directory, File, Owner, Whiteout
from lxcfleet.host.kernel.mounts import unescape
from lxcfleet.paths import Paths
from lxcfleet.spec.files.mask_rules import RuleKind, Rules

from .mask_tree import SYSTEM, hides, opaque, own, plan, put, small_host


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return small_host(tmp_path / "host")


# -- the built-in rules -----------------------------------------------------------------------------


def test_the_hosts_own_directories_are_empty_with_the_hosts_mode(base: Path) -> None:
    put(base, "home/alice/diary")
    (base / "tmp").chmod(0o1777)
    entries = plan(base)
    assert opaque(entries["/home"])
    assert entries["/tmp"] == Directory(
        Owner(0o1777, os.getuid(), os.getgid()), opaque=True, why="the host's own"
    )
    assert hides(base, entries, "/home/alice/diary")
    assert not hides(base, entries, "/home")


def test_directories_outside_the_fhs_are_gone(base: Path) -> None:
    put(base, "data/customers")
    entries = plan(base)
    assert isinstance(entries["/data"], Whiteout)
    assert hides(base, entries, "/data/customers")
    assert not hides(base, entries, "/usr/bin/sh")
    assert "/usr/bin" not in entries


def test_links_at_the_top_stay_links(base: Path) -> None:
    entries = plan(base)
    assert "/bin" not in entries
    assert "/var/run" not in entries
    assert not hides(base, entries, "/bin/sh")
    assert not hides(base, entries, "/lib/../bin/sh")


def test_var_lib_shows_the_allow_list_and_keeps_packages_directories(base: Path) -> None:
    put(base, "var/lib/nginx/body/secret")
    put(base, "var/lib/nginx/extra/secret")
    put(base, "var/lib/other/state")
    put(
        base,
        "var/lib/dpkg/info/nginx.list",
        "/.\n/var\n/var/lib\n/var/lib/nginx\n/var/lib/nginx/body\n/var/lib/gone\n",
    )
    (base / "var/lib/nginx/body").chmod(0o750)
    entries = plan(base)
    assert opaque(entries["/var/lib/nginx"])
    assert entries["/var/lib/nginx/body"] == Directory(
        Owner(0o750, os.getuid(), os.getgid()), why="a package's directory"
    )
    assert isinstance(entries["/var/lib/other"], Whiteout)
    assert not opaque(entries["/var/lib"])
    shown = {
        p: hides(base, entries, f"/var/lib/{p}") for p in ("dpkg/status", "nginx/body", "nginx/body/secret")
    }
    assert shown == {"dpkg/status": False, "nginx/body": False, "nginx/body/secret": True}
    assert "/var/lib/gone" not in entries
    assert hides(base, entries, "/var/lib/nginx/extra")


def test_packages_directories_inside_the_allow_list_are_left_alone(base: Path) -> None:
    put(base, "var/lib/dpkg/info/dpkg.list", "/.\n/var/lib/dpkg\n/var/lib/dpkg/info\n")
    entries = plan(base)
    assert "/var/lib/dpkg" not in entries
    assert "/var/lib/dpkg/info" not in entries


def test_lxcfleets_own_state_is_hidden_wherever_it_is(base: Path) -> None:
    put(base, "opt/clones/c1/delta/etc/passwd")
    entries, _ = compiler.plan(Paths(lxc=Path("/opt/clones")), Rules(), Tree(base))
    assert isinstance(entries["/opt/clones"], Whiteout)


def test_ssh_host_keys_and_their_public_halves(base: Path) -> None:
    for name in ("ssh_host_rsa_key", "ssh_host_rsa_key.pub", "sshd_config"):
        put(base, f"etc/ssh/{name}")
    entries = plan(base)
    hidden = {name for name in os.listdir(base / "etc/ssh") if hides(base, entries, f"/etc/ssh/{name}")}
    assert hidden == {"ssh_host_rsa_key", "ssh_host_rsa_key.pub"}


def test_a_rule_for_a_path_that_the_host_gets_later(base: Path) -> None:
    entries = plan(base)
    assert isinstance(entries["/etc/hostname"], Whiteout), "the host may get one while clones run"
    assert "/etc/NetworkManager/system-connections" not in entries, "a whiteout needs a directory to be in"


def test_no_whiteout_below_an_opaque_directory(base: Path) -> None:
    put(base, "opt/deep/x")
    entries = plan(
        base, own(RuleKind.HIDE, "/tmp/x"), own(RuleKind.EMPTY, "/opt/deep"), own(RuleKind.HIDE, "/opt/deep/x")
    )
    covered = [p for p in entries if any(opaque(entries.get(above)) for above in parents(p))]
    assert not [p for p in covered if isinstance(entries[p], Whiteout)]
    assert hides(base, entries, "/opt/deep/x")


def test_directories_on_the_way_repeat_the_hosts_mode(base: Path) -> None:
    put(base, "etc/odd/inner/secret", mode=0o600)
    (base / "etc/odd").chmod(0o2775)
    entries = plan(base)
    assert entries["/etc/odd"] == Directory(Owner(0o2775, os.getuid(), os.getgid()))


# -- links ------------------------------------------------------------------------------------------


def test_a_rule_through_a_link_does_not_replace_the_link(base: Path) -> None:
    put(base, "usr/lib/secret")
    entries = plan(base, own(RuleKind.HIDE, "/lib/secret"))
    assert "/lib" not in entries
    assert isinstance(entries["/usr/lib/secret"], Whiteout)
    assert hides(base, entries, "/lib/secret")


def test_an_emptied_link_to_a_directory_becomes_a_directory(base: Path) -> None:
    put(base, "data/home/alice/x")
    (base / "home").rmdir()
    (base / "home").symlink_to("/data/home")
    entries = plan(base)
    assert opaque(entries["/home"])
    assert hides(base, entries, "/home/alice")


def test_a_linked_resolv_conf_becomes_a_file(base: Path) -> None:
    (base / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    entry = plan(base)["/etc/resolv.conf"]
    assert isinstance(entry, File)
    assert b"nameserver" not in entry.content


def test_hidden_follows_links_to_hidden_paths(base: Path) -> None:
    put(base, "data/tool")
    (base / "usr/bin/tool").symlink_to("/data/tool")
    (base / "usr/bin/loop").symlink_to("loop")
    (base / "usr/bin/up").symlink_to("../../usr/bin/../bin/sh")
    entries = plan(base)
    asked = ["tool", "loop", "up", "none", "sh", "sh/below"]
    assert [hides(base, entries, f"/bin/{name}") for name in asked] == [True, True, False, True, False, True]


def test_hidden_does_not_leave_the_tree(base: Path) -> None:
    (base / "usr/bin/passwd").symlink_to("/etc/passwd")
    assert hides(base, plan(base), "/usr/bin/passwd"), "this host's /etc/passwd is not the base's"


# -- the sweep --------------------------------------------------------------------------------------


def test_files_that_others_cannot_read_are_hidden(base: Path) -> None:
    put(base, "etc/key", mode=0o640)
    put(base, "etc/private/inside")
    (base / "etc/private").chmod(0o711)
    put(base, "etc/public", mode=0o604)
    os.mkfifo(base / "opt/pipe", 0o666)
    (base / "opt/pipe").chmod(0o666)
    entries = plan(base)
    assert isinstance(entries["/etc/key"], Whiteout)
    assert entries["/etc/private"] == Directory(
        Owner(0o711, os.getuid(), os.getgid()), opaque=True, why="not for other users (0711)"
    )
    assert isinstance(entries["/opt/pipe"], Whiteout)
    assert "/etc/public" not in entries
    assert hides(base, entries, "/etc/private/inside")


@pytest.mark.parametrize("name", ["a\nb", "\udcff\udcfe", "tab\t", "quote'\"", "*", "[x]", "é"])
def test_names_of_all_kinds(base: Path, name: str) -> None:
    put(base, f"opt/{name}", mode=0o600)
    put(base, f"opt/dir{name}/x", mode=0o600)
    entries = plan(base)
    assert isinstance(entries[f"/opt/{name}"], Whiteout)
    assert isinstance(entries[f"/opt/dir{name}/x"], Whiteout)
    assert "\n" not in compiler.describe({f"/opt/{name}": Whiteout()})


def test_links_and_hidden_parts_are_not_followed(base: Path, tmp_path: Path) -> None:
    put(tmp_path, "outside/secret", mode=0o600)
    (base / "opt/out").symlink_to(tmp_path / "outside")
    put(base, "home/alice/secret", mode=0o600)
    tree = Tree(base)
    found = sweep(tree, {"/home": Directory(Owner(0o755), opaque=True)})
    assert found == []


def test_mount_points_are_not_looked_into(base: Path) -> None:
    put(base, "opt/disk/x")
    put(base, "opt/bound")
    entries = plan(base, mounts=frozenset({"/opt/disk", "/opt/bound", "/"}))
    assert opaque(entries["/opt/disk"])
    assert isinstance(entries["/opt/bound"], Whiteout)


def test_parts_are_looked_into_and_marked(base: Path) -> None:
    put(base, "opt/public")
    put(base, "opt/secret", mode=0o600)
    put(base, "usr/local/bin/tool")
    put(base, "opt/disk/x")
    parts = {"/opt": "1.2.3", "/usr/local": "1.2.4"}
    entries = plan(base, mounts=frozenset({"/", "/opt", "/usr/local", "/opt/disk"}), parts=parts)
    assert isinstance(entries["/opt/secret"], Whiteout)
    assert opaque(entries["/opt/disk"])
    assert "/opt/public" not in entries
    assert {path: e.part for path, e in entries.items() if isinstance(e, Directory) and e.part} == parts
    assert not opaque(entries["/usr"])
    assert list(entries) == sorted(entries)
    owner = Owner(0o755, os.getuid(), os.getgid())
    assert entries["/usr/local"] == Directory(owner, part="1.2.4")


def test_a_part_of_which_clones_see_nothing_has_no_mark(base: Path) -> None:
    for directory in ("opt", "usr/local", "var/lib"):
        put(base, f"{directory}/x")
    (base / "usr/local").chmod(0o750)
    rules_ = own(RuleKind.HIDE, "/opt"), own(RuleKind.EMPTY, "/var")
    parts = {"/opt": "1", "/usr/local": "2", "/var": "3", "/var/lib": "4", "/usr/share": "not there"}
    entries = plan(base, *rules_, mounts=frozenset(parts), parts=parts)
    assert [path for path, e in entries.items() if isinstance(e, Directory) and e.part] == ["/var", "/var/lib"]
    assert opaque(plan(base, own(RuleKind.EMPTY, "/opt"), parts={"/opt": "1"})["/opt"])
    with_part, without = (plan(base, own(RuleKind.EMPTY, "/opt"), parts=parts) for parts in ({"/opt": "1"}, {}))
    assert with_part["/opt"] == without["/opt"]


def test_var_on_a_disk_of_its_own_is_marked(base: Path) -> None:
    """Its rule says ``empty``, but some of it is shown."""
    put(base, "var/lib/private", mode=0o600)
    entries = plan(base, mounts=frozenset({"/var"}), parts={"/var": "1.2.3"})
    var = entries["/var"]
    assert isinstance(var, Directory)
    assert (var.part, var.opaque) == ("1.2.3", False)
    assert hides(base, entries, "/var/lib/private")
    assert not hides(base, entries, "/var/lib/dpkg/status")


def test_an_unreadable_directory_counts_as_private(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: str, flags: int) -> int:
        if path.endswith("/opt"):
            raise OSError(5, "Input/output error", path)
        return real(path, flags)

    monkeypatch.setattr(os, "open", refuse)
    assert sweep(Tree(base), {}) == [Private("/opt", True, "unreadable: Input/output error")]


def test_mountinfo_escapes() -> None:
    assert unescape(rb"/mnt/a\040b\011c\012d\134e") == b"/mnt/a b\tc\nd\\e"


# -- the operator's rules -----------------------------------------------------------------------------


def test_show_within_an_empty_directory(base: Path) -> None:
    put(base, "srv/www/index.html")
    put(base, "srv/www/config.php", mode=0o640)
    put(base, "srv/other/file")
    entries = plan(base, own(RuleKind.SHOW, "/srv/www"))
    seen = {
        p: not hides(base, entries, f"/srv/{p}") for p in ("www/index.html", "www/config.php", "other", "")
    }
    assert seen == {"www/index.html": True, "www/config.php": False, "other": False, "": True}


def test_show_exempts_a_private_path_and_not_its_neighbours(base: Path) -> None:
    put(base, "etc/ssl/private/web.key", mode=0o640)
    put(base, "etc/ssl/private/other.key", mode=0o640)
    (base / "etc/ssl/private").chmod(0o710)
    entries = plan(base, own(RuleKind.SHOW, "/etc/ssl/private/web.key"))
    assert not hides(base, entries, "/etc/ssl/private/web.key")
    assert hides(base, entries, "/etc/ssl/private/other.key")
    described = compiler.describe(entries)
    assert "web.key" not in described


def test_show_brings_the_hosts_file_back(base: Path) -> None:
    put(base, "etc/hosts", "10.0.0.1 gateway")
    entries = plan(base, own(RuleKind.SHOW, "/etc/hosts"))
    assert "/etc/hosts" not in entries


def test_hide_takes_a_built_in_file_away(base: Path) -> None:
    put(base, f"{SYSTEM}/dbus.socket")
    assert not hides(base, plan(base), f"/{SYSTEM}/dbus.socket")
    assert hides(base, plan(base, own(RuleKind.HIDE, f"/{SYSTEM}/dbus.socket")), f"/{SYSTEM}/dbus.socket")


def test_hide_takes_packages_directories_away(base: Path) -> None:
    put(base, "var/log/nginx/access.log")
    put(base, "var/lib/dpkg/info/nginx.list", "/.\n/var/log\n/var/log/nginx\n")
    assert not hides(base, plan(base), "/var/log/nginx")
    assert isinstance(plan(base, own(RuleKind.HIDE, "/var/log"))["/var/log"], Whiteout)


def test_empty_and_replace(base: Path) -> None:
    put(base, "etc/motd", "the host's", mode=0o600)
    put(base, "etc/issue", "the host's")
    entries = plan(base, own(RuleKind.EMPTY, "/etc/issue"), replace=(("/etc/motd", "ours\n", "a.yaml: replace"),))
    motd, issue = entries["/etc/motd"], entries["/etc/issue"]
    assert isinstance(motd, File)
    assert (motd.content, motd.owner.mode, motd.why) == (b"ours\n", 0o600, "a.yaml: replace")
    assert isinstance(issue, File)
    assert issue.content == b""


def test_dpkg_is_told_that_nobody_removed_the_settings_that_are_hidden(base: Path) -> None:
    path = "/etc/dpkg/dpkg.cfg.d/lxcfleet"
    assert path not in plan(base), "a host without dpkg"
    put(base, "etc/dpkg/dpkg.cfg.d/local", "no-debsig\n")
    entry = plan(base)[path]
    assert isinstance(entry, File)
    assert b"force-confmiss\n" in entry.content


def test_replace_makes_the_directories_it_needs(base: Path) -> None:
    entries = plan(base, replace=(("/etc/new/deep/file", "x", "a.yaml"),))
    assert entries["/etc/new/deep"] == Directory(Owner(0o755))


def test_every_entry_has_its_directory(base: Path) -> None:
    put(base, f"{SYSTEM}/dbus.service")
    entries = plan(base, own(RuleKind.SHOW, "/srv/a/b"), own(RuleKind.HIDE, "/opt/x"))
    for path in entries:
        assert all(isinstance(entries[above], Directory) for above in parents(path)), path


# -- accounts -----------------------------------------------------------------------------------------


def test_shadow_has_the_same_accounts_all_locked() -> None:
    content = b"root:$y$j9T$salt$hash:19000:0:99999:7:::\nbin:*:19000::::::\nnew:!:::::::\n"
    locked = neutral.lock_accounts(content, 9)
    assert locked == b"root:*:::::::\nbin:*:::::::\nnew:*:::::::\n"
    assert all(line.count(b":") == 8 for line in locked.splitlines())


def test_gshadow_keeps_members_only() -> None:
    assert (
        neutral.lock_accounts(b"sudo:$6$x:admin:alice,bob\nadm:*::\n", 4) == b"sudo:*::alice,bob\nadm:*::\n"
    )


@pytest.mark.parametrize("line", [b"", b"+::::::", b"-bad", b"#comment:x", b"nofields", b":$6$hash:1"])
def test_damaged_lines_are_left_out(line: bytes) -> None:
    assert neutral.lock_accounts(line + b"\nroot:$6$hash:1:::::\n", 9) == b"root:*:::::::\n"


def test_names_that_are_not_utf8_stay() -> None:
    assert neutral.lock_accounts(b"m\xfcller:$6$x:1:::::", 9) == b"m\xfcller:*:::::::\n"


def test_shadow_in_the_plan(base: Path) -> None:
    put(base, "etc/shadow", "root:$6$secret:1::::::\n", mode=0o640)
    put(base, "etc/shadow-", "root:$6$older:1::::::\n", mode=0o600)
    entries = plan(base)
    for path, mode in {"/etc/shadow": 0o640, "/etc/shadow-": 0o600}.items():
        entry = entries[path]
        assert isinstance(entry, File)
        assert (entry.content, entry.owner.mode) == (b"root:*:::::::\n", mode)
    assert "/etc/gshadow" not in entries


# -- the whole ---------------------------------------------------------------------------------------------


def test_description_gives_the_reason(base: Path) -> None:
    put(base, "etc/key", mode=0o600)
    described = compiler.describe(plan(base, own(RuleKind.HIDE, "/opt/x"))).splitlines()
    assert "'/etc/key': whiteout  (not for other users (0600))" in described
    assert "'/opt/x': whiteout  (a.yaml)" in described


def test_built_in_paths_are_well_formed() -> None:
    for rule in rules.built_in(Paths()):
        assert rule.path == "/" or os.path.normpath(rule.path) == rule.path, rule
    assert stat.S_IMODE(0o1777) == 0o1777
