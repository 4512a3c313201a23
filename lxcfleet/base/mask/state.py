"""The directories in which the host's programs keep their state: a clone has each, with its owner and mode, and empty.

Programs that packages bring expect them, and most are made by no program but by the package's scripts, once, on the host. So
they are found in four ways: packages list them, accounts have them as homes, tmpfiles.d declares them, and the rest is seen
by its owner. Links that packages have in them are there, too: tomcat's settings are found by one. Never is anything learnt
that another user of the host could not see: the search by owner enters only directories of root's that all users may list,
the links are in directories that all users may list, and the rest is read from files that all users may read.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from lxcfleet.base.tree import Tree, join, parent, parents
from lxcfleet.host.kernel.entries import Entry, Symlink
from lxcfleet.spec.files.mask_rules import MaskRule, RuleKind

TOPS = ("/var/lib", "/var/log", "/var/cache", "/var/spool")
"""Where programs keep state; file-hierarchy(7)."""
_KEEP = ("/var", *TOPS)
"""Below the rules for these, directories of programs stay. Other rules are about what is the host's alone."""

_DEPTH = 2
"""The search by owner looks at so many levels: further down is what programs stored, and not where they store it."""
_CROWD = 32
"""A directory with more subdirectories than this holds what a program stored, and a clone has none of them. The queue of
postfix has 18."""
_MOST = 1000
"""At most so many directories, the least deep ones first. Each takes 4 KiB of the image."""

_INFO = "/var/lib/dpkg/info"
_TMPFILES = ("/usr/lib/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/etc/tmpfiles.d")
_FIRST_USER = 1000
"""The lowest id of an account that is a person's; adduser.conf(5)."""
_PUBLIC = stat.S_IROTH | stat.S_IXOTH


def keep(tree: Tree, rules: Iterable[MaskRule], mounts: Collection[str] = ()) -> tuple[list[MaskRule], dict[str, Entry]]:
    """Rules that keep the directories of programs, empty, where ``rules`` hide everything else; and packages' links in them.

    ``mounts`` are not looked into: what the host mounted there is not the base's.
    """
    ruled = {rule.path: rule.kind for rule in rules}
    keeps = {(path, RuleKind.EMPTY) for path in _KEEP}

    def kept(path: str) -> bool:
        return next(((above, ruled[above]) for above in (path, *reversed(parents(path))) if above in ruled), None) in keeps

    packages = _packages(tree)
    reasons = {path: "a package's directory" for path in packages.listed}
    for why, found in (
        ("tmpfiles.d", _declared(tree)),
        ("an account's home", _homes(tree)),
        ("a program's directory", _search(tree, packages.names, mounts)),
    ):
        for path in found:
            reasons.setdefault(path, why)
    below = tuple(f"{top}/" for top in _KEEP)
    wanted = (
        path
        for path in reasons.keys() - ruled.keys()
        if path.startswith(below) and kept(path) and tree.is_directory(path)
    )
    chosen = sorted(wanted, key=lambda path: (path.count("/"), path))[:_MOST]
    links: dict[str, Entry] = {
        path: Symlink(tree.link(path), "a package's link") for path in _links(tree, packages.listed, chosen)
    }
    return [MaskRule(path, RuleKind.EMPTY, reasons[path]) for path in sorted(chosen)], links


def concerns(path: str, inside: bool) -> bool:
    """Whether ``keep`` may find something else once a directory at ``path`` has another owner or mode, or with
    ``inside`` once a directory came into ``path``."""
    return path in TOPS if inside else path.rpartition("/")[0] in TOPS


@dataclass(frozen=True)
class _Packages:
    names: frozenset[str]
    listed: frozenset[str]
    """The paths in /var that they list, directories among them."""


def _packages(tree: Tree) -> _Packages:
    """The packages that dpkg knows: ``/var/lib/dpkg/info/*.list`` has one absolute path a line; dpkg-query(1), -L."""
    names, listed = set(), set[bytes]()
    for name in tree.names(_INFO):
        if name.endswith(".list"):
            # ``tree.read`` would have the file watched, which is not needed: a change shows in the directory ``info``.
            try:
                with open(tree.outside(join(_INFO, name)), "rb") as file:
                    content = file.read()
            except FileNotFoundError:
                continue  # dpkg has just removed the package; as the directory has changed, all is looked at again
            names.add(name.removesuffix(".list").partition(":")[0])
            if b"\n/var/" in content:
                listed.update(line for line in content.split(b"\n") if line.startswith(b"/var/"))
    return _Packages(frozenset(names), frozenset(map(os.fsdecode, listed)))


def _links(tree: Tree, listed: Iterable[str], kept: Collection[str]) -> list[str]:
    """The links that packages list in directories that are kept, and that any user of the host may see."""
    places = {path for path in kept if _listable(tree, [*parents(path), path])}
    return sorted(path for path in listed if parent(path) in places and tree.is_link(path))


def _declared(tree: Tree) -> Iterator[str]:
    """The directories that tmpfiles.d(5) declares. Lines with specifiers are passed over."""
    for directory in _TMPFILES:
        for name in tree.names(directory):
            path = join(directory, name)
            status = tree.lstat(path)
            if not name.endswith(".conf") or status is None or not status.st_mode & stat.S_IROTH:
                continue
            for line in (tree.read(path) or b"").split(b"\n"):
                words = os.fsdecode(line).split()[:2]
                if len(words) == 2 and words[0][0] in "dDvqQ" and words[1].startswith("/var/") and "%" not in words[1]:
                    yield words[1].rstrip("/")


def _homes(tree: Tree) -> Iterator[str]:
    """The homes of system accounts; passwd(5)."""
    for fields in _accounts(tree, "/etc/passwd"):
        if len(fields) == 7 and int(fields[2]) < _FIRST_USER and "/.." not in fields[5]:
            yield fields[5].rstrip("/")


def _accounts(tree: Tree, file: str) -> Iterator[list[str]]:
    for line in (tree.read(file) or b"").split(b"\n"):
        fields = os.fsdecode(line).split(":")
        if len(fields) > 3 and fields[2].isascii() and fields[2].isdigit():
            yield fields


def _search(tree: Tree, packages: Collection[str], mounts: Collection[str]) -> Iterator[str]:
    """The directories near TOPS to which a system account can write, and those that have the name of a package."""
    users, groups = (
        {number for fields in _accounts(tree, file) if 0 < (number := int(fields[2])) < _FIRST_USER}
        for file in ("/etc/passwd", "/etc/group")
    )

    def for_programs(path: str, status: os.stat_result) -> bool:
        if status.st_uid != 0:
            return status.st_uid in users
        return (
            (status.st_gid in groups and bool(status.st_mode & stat.S_IWGRP))
            or bool(status.st_mode & stat.S_IWOTH)
            or (path.count("/") == 3 and path.rpartition("/")[2] in packages)
        )

    waiting = deque(top for top in TOPS if _listable(tree, [*parents(top), top]))
    while waiting:
        directory = waiting.popleft()
        below = [path for path in _subdirectories(tree, directory) if path not in mounts]
        if directory not in TOPS and len(below) > _CROWD:
            continue
        for path in below:
            status = tree.lstat(path)
            if status is None or not stat.S_ISDIR(status.st_mode):
                continue
            if for_programs(path, status):
                yield path
            # In a directory of its own a program makes what it needs, and what is there is what it stored: a data base takes
            # an empty directory for one that is ready.
            if path.count("/") < 2 + _DEPTH and status.st_uid == 0 and _listable(tree, [path]):
                waiting.append(path)


def _listable(tree: Tree, way: Iterable[str]) -> bool:
    """Whether these are directories that every user may list and enter."""
    found = [tree.lstat(path) for path in way]
    return all(each is not None and stat.S_ISDIR(each.st_mode) and each.st_mode & _PUBLIC == _PUBLIC for each in found)


def _subdirectories(tree: Tree, directory: str) -> list[str]:
    """The directories in ``directory``, by the kind that it has noted for each entry: nothing that is mounted there is asked.

    It is not noted as consulted, as programs make and remove files there all the time.
    """
    try:
        with os.scandir(tree.outside(directory)) as entries:
            return sorted(join(directory, each.name) for each in entries if each.is_dir(follow_symlinks=False))
    except OSError:
        return []
