"""The directories of programs' state: which ones a clone has, over small trees whose owners are made up."""

import os
from pathlib import Path

import pytest

from lxcfleet.base.mask import build, compiler, state
from lxcfleet.base.tree import Tree
from lxcfleet.host.kernel.entries import Directory, Entry, Owner, Symlink
from lxcfleet.paths import Paths
from lxcfleet.spec.files.mask_rules import RuleKind, Rules

from .mask_tree import hides, opaque, own, put, small_host

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
list:x:38:38:a home that is not there:/var/list:/usr/sbin/nologin
postgres:x:101:104::/var/lib/postgresql:/bin/bash
mysql:x:102:105::/nonexistent:/bin/false
postfix:x:103:106::/var/spool/postfix:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/var/lib/nobody:/usr/sbin/nologin
alice:x:1000:1000::/var/lib/alice:/bin/bash
damaged:x:::/var/lib/damaged
"""
GROUP = "root:x:0:\nmail:x:8:\ncrontab:x:107:\npostdrop:x:108:\nusers:x:1100:\n"


class OwnedTree(Tree):
    """A tree in which everything belongs to root, but for what ``give`` gave away."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root
        self._owners: dict[str, tuple[int, int]] = {}

    def give(self, path: str, uid: int, gid: int = 0, mode: int = 0o755) -> None:
        """Make the directory ``path`` if need be, and let it have this owner and mode."""
        directory = self.root / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(mode)
        self._owners[path] = (uid, gid)

    def lstat(self, path: str) -> os.stat_result | None:
        status = super().lstat(path)
        if status is None:
            return None
        fields = list(status)
        fields[4:6] = self._owners.get(path, (0, 0))
        return os.stat_result(fields)


@pytest.fixture
def tree(tmp_path: Path) -> OwnedTree:
    root = small_host(tmp_path / "host")
    put(root, "etc/passwd", PASSWD)
    put(root, "etc/group", GROUP)
    for name in ("cache", "spool", "mail", "lib"):
        (root / "var" / name).mkdir(exist_ok=True)
        (root / "var" / name).chmod(0o755)
    return OwnedTree(root)


def plan(tree: Tree, rules: Rules | None = None, mounts: frozenset[str] = frozenset()) -> dict[str, Entry]:
    return compiler.plan(Paths(run=Path("/run/lxcfleet-of-nobody")), rules or Rules(), tree, mounts)[0]


def programs(tree: Tree, rules: Rules | None = None, mounts: frozenset[str] = frozenset()) -> set[str]:
    """The directories of state that clones have."""
    why = {"a package's directory", "tmpfiles.d", "an account's home", "a program's directory"}
    return {path for path, entry in plan(tree, rules, mounts).items() if isinstance(entry, Directory) and entry.why in why}


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_data_base_that_no_package_lists_is_there_and_empty(tree: OwnedTree, mode: int) -> None:
    """The package's script made this directory. The names below it are the host's content, whoever may list them."""
    tree.give("/var/lib/mysql", 102, 105, mode)
    tree.give("/var/lib/mysql/customers", 102, 105, 0o755)
    put(tree.root, "var/lib/mysql/ibdata1", "the host's")
    (tree.root / "var/lib/mysql").chmod(mode)
    entries = plan(tree)
    assert entries["/var/lib/mysql"] == Directory(Owner(mode, 102, 105), True, "a program's directory")
    assert hides(tree.root, entries, "/var/lib/mysql/ibdata1")
    assert "/var/lib/mysql/customers" not in entries, "an empty one would be taken for a data base"


def test_queues_keep_their_bits(tree: OwnedTree) -> None:
    """A queue that lost its set-group-id or sticky bit takes no job, or gives all users' jobs to all."""
    queues = {
        "/var/spool/postfix": (0, 0, 0o755), "/var/spool/postfix/active": (103, 0, 0o700),
        "/var/spool/postfix/maildrop": (103, 108, 0o1730), "/var/spool/cron/crontabs": (0, 107, 0o1730),
        "/var/spool/exim": (0, 8, 0o2775), "/var/spool/samba": (0, 0, 0o1777),
    }  # fmt: skip
    for path, (uid, gid, mode) in queues.items():
        tree.give(path, uid, gid, mode)
    tree.give("/var/mail", 0, 8, 0o2775)
    entries = plan(tree)
    for path, (uid, gid, mode) in queues.items():
        entry = entries[path]
        assert isinstance(entry, Directory), path
        assert entry.owner == Owner(mode, uid, gid), path
    mail = entries["/var/mail"]
    assert isinstance(mail, Directory)
    assert mail.owner == Owner(0o2775, 0, 8)


def test_homes_of_system_accounts(tree: OwnedTree) -> None:
    for path in ("/var/lib/postgresql", "/var/lib/nobody", "/var/lib/alice", "/var/lib/damaged"):
        tree.give(path, 0)
    put(tree.root, "var/www/html/index.html", "the host's page")
    assert programs(tree) == {"/var/www", "/var/lib/postgresql"}
    entries = plan(tree)
    assert hides(tree.root, entries, "/var/www/html")
    assert "/var/list" not in entries, "the host has no such directory"


def test_what_tmpfiles_declares(tree: OwnedTree) -> None:
    lines = """\
# d /var/lib/comment
d /var/lib/php/sessions 1733 root root
D! /var/cache/one
v /var/lib/machines 0700
q /var/log/two/
f /var/lib/file 0644
d /var/lib/%u 0755
d /run/php
d
d /var/lib/not-there
"""
    put(tree.root, "usr/lib/tmpfiles.d/php.conf", lines)
    put(tree.root, "usr/lib/tmpfiles.d/README", "d /var/lib/read-me\n")
    put(tree.root, "etc/tmpfiles.d/secret.conf", "d /var/lib/secret-name\n", mode=0o600)
    names = ["comment", "php/sessions", "machines", "file", "%u", "read-me", "secret-name"]
    for path in (*(f"/var/lib/{name}" for name in names), "/var/cache/one", "/var/log/two"):
        tree.give(path, 0)
    assert programs(tree) == {"/var/lib/php/sessions", "/var/cache/one", "/var/lib/machines", "/var/log/two"}


def test_what_belongs_to_people_and_unknown_accounts_is_not_there(tree: OwnedTree) -> None:
    tree.give("/var/lib/of-a-user", 1000)
    tree.give("/var/lib/of-nobody-known", 777)
    tree.give("/var/lib/of-a-container", 100000)
    tree.give("/var/lib/for-a-users-group", 0, 1100, 0o775)
    tree.give("/var/lib/root-alone", 0)
    tree.give("/var/lib/of-a-user/open", 1000, 0, 0o777)
    assert programs(tree) == set()


def test_a_directory_with_the_name_of_a_package(tree: OwnedTree) -> None:
    put(tree.root, "var/lib/dpkg/info/greeter:amd64.list", "/.\n/usr\n")
    for path in ("/var/log/greeter", "/var/log/other", "/var/lib/other/greeter"):
        tree.give(path, 0)
    assert programs(tree) == {"/var/log/greeter"}


def test_no_further_down_than_two_levels(tree: OwnedTree) -> None:
    tree.give("/var/lib/app", 0)
    for path in ("/var/lib/app/queue", "/var/lib/app/queue/0"):
        tree.give(path, 33)
    tree.give("/var/lib/app/more", 0)
    tree.give("/var/lib/app/more/queue", 33)
    assert programs(tree) == {"/var/lib/app/queue"}


def test_a_crowd_of_directories_is_content(tree: OwnedTree) -> None:
    put(tree.root, "var/lib/dpkg/info/app.list", "/.\n")
    tree.give("/var/cache/app", 0)
    for number in range(40):
        tree.give(f"/var/cache/app/{number:02x}", 33)
    assert programs(tree) == {"/var/cache/app"}


def test_there_is_a_limit_and_the_least_deep_stay(tree: OwnedTree) -> None:
    for number in range(1010):
        tree.give(f"/var/cache/{number:04}", 33)
    tree.give("/var/cache/0000/below", 33)
    found = programs(tree)
    assert len(found) == 1000
    assert "/var/cache/0000/below" not in found


def test_links_are_not_followed(tree: OwnedTree) -> None:
    tree.give("/srv/data", 33)
    tree.give("/srv/data/customers", 33)
    (tree.root / "var/lib/data").symlink_to("/srv/data")
    (tree.root / "var/lib/list").symlink_to(tree.root / "srv")
    assert programs(tree) == set()


def test_what_is_mounted_is_not_asked(tree: OwnedTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system whose server is gone would keep every container from starting."""
    tree.give("/var/lib/app", 0, mode=0o1777)
    tree.give("/var/lib/app/export", 33)
    asked: list[str] = []
    real = tree.lstat

    def lstat(path: str) -> os.stat_result | None:
        asked.append(path)
        return real(path)

    monkeypatch.setattr(tree, "lstat", lstat)
    rules = [own(RuleKind.EMPTY, "/var/lib")]
    found = {rule.path for rule in state.keep(tree, rules, {"/var/lib/app/export"})[0]}
    assert found == {"/var/lib/app"}
    assert "/var/lib/app/export" not in asked


def test_links_of_packages_lead_where_they_do_on_the_host(tree: OwnedTree) -> None:
    """tomcat's settings and logs are found by links in its directory of state, and without them it does not start."""
    where = {"/var/lib/app/conf": "/etc/app", "/var/lib/app/logs": "../../log/app", "/var/lib/private/key": "/etc/app/key"}
    tree.give("/var/lib/app", 33)
    tree.give("/var/lib/private", 33, mode=0o700)
    for path, target in {**where, "/var/lib/app/made-by-the-program": "/srv/customer"}.items():
        (tree.root / path.lstrip("/")).symlink_to(target)
    put(tree.root, "var/lib/dpkg/info/app.list", "\n".join(["/.", "/var/lib/app", "/var/lib/private", *where, ""]))
    entries = plan(tree)
    assert {path: entry.target for path, entry in entries.items() if isinstance(entry, Symlink) and "/var/lib/" in path} == {
        "/var/lib/app/conf": "/etc/app", "/var/lib/app/logs": "../../log/app", "/var/lib/dbus/machine-id": "/etc/machine-id",
    }  # fmt: skip
    assert opaque(entries["/var/lib/app"])
    assert "/var/lib/app/conf" not in plan(tree, Rules((own(RuleKind.HIDE, "/var/lib/app"),)))


def test_the_operators_rules_come_first(tree: OwnedTree) -> None:
    for path in ("/var/lib/app", "/var/lib/shown", "/var/log/app"):
        tree.give(path, 33)
    put(tree.root, "var/lib/shown/file")
    rules = Rules((own(RuleKind.HIDE, "/var/lib/app"), own(RuleKind.SHOW, "/var/lib/shown"), own(RuleKind.HIDE, "/var/log")))
    assert programs(tree, rules) == set()
    assert not hides(tree.root, plan(tree, rules), "/var/lib/shown/file")


def test_the_old_place_of_mail_leads_to_the_new_one(tree: OwnedTree) -> None:
    (tree.root / "var/spool/mail").symlink_to("../mail")
    entries = plan(tree)
    assert entries["/var/spool/mail"] == Symlink("../mail", "usually a link")
    assert not hides(tree.root, entries, "/var/spool/mail")
    assert opaque(entries["/var/spool"])


def test_programs_that_come_and_go_at_work_do_not_age_the_mask(tree: OwnedTree) -> None:
    tree.give("/var/lib/app", 33)
    tree.give("/var/log/app", 33)
    plan(tree)
    assert not {"/var/log", "/var/cache", "/var/spool", "/var/lib/app", "/var/log/app"} & tree.consulted.keys()


def test_which_changes_make_the_mask_look_again() -> None:
    view = build.View({"/var/log": "opaque", "/var/log/app": "directory", "/var/lib": "directory", "/home": "opaque"})
    assert view.matters("/var/log", inside=True, directory=True), "a directory came"
    assert not view.matters("/var/log", inside=True), "a log file came"
    assert view.matters("/var/log/app", inside=False, directory=True), "it may have another owner"
    assert view.matters("/var/log/new", inside=False, directory=True)
    assert not view.matters("/var/log/app", inside=True, directory=True), "the program's own"
    assert not view.matters("/var/log/syslog", inside=False), "a log file was rotated"
    assert not view.matters("/home", inside=True, directory=True)


def test_a_package_that_dpkg_removes_during_the_look_is_none_of_the_hosts(tree: OwnedTree) -> None:
    """The directory was listed before, so there is a name without a file."""
    tree.give("/var/lib/stays", 0)
    put(tree.root, "var/lib/dpkg/info/stays.list", "/.\n/var/lib/stays\n")
    (tree.root / "var/lib/dpkg/info/goes.list").symlink_to("removed")
    assert "/var/lib/stays" in programs(tree)
