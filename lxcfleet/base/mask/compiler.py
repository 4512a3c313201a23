"""Turns rules into the entries of the mask: what to put at which path, and nothing that is not needed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from lxcfleet.base.mask import neutral, rules, state, units
from lxcfleet.base.mask.sweep import BaseChanges, Private, settled, sweep, sweep_again
from lxcfleet.base.tree import Tree, join, parent, parents, stamp
from lxcfleet.host.kernel.entries import Directory, Entry, File, Owner, Symlink, Whiteout
from lxcfleet.paths import Paths
from lxcfleet.spec.files.mask_rules import MaskRule, RuleKind, Rules

_MERGED = Directory(Owner(0o755))
_NO_PARTS: Mapping[str, str] = {}

Stamps = dict[str, list[int] | None]
"""The paths that were looked at, each with its stamp at that moment; see ``tree.stamp``."""


@dataclass(frozen=True)
class BaseFindings:
    """The findings of a look at a whole base, beside the entries."""

    swept: Stamps
    """The directories that were looked into."""
    private: list[str]
    """The paths that the sweep found."""
    settled: str
    """A digest of what was passed over, whatever is there."""


def plan(
    paths: Paths,
    operator: Rules,
    tree: Tree,
    mounts: frozenset[str] = frozenset(),
    parts: Mapping[str, str] = _NO_PARTS,
    since: tuple[BaseFindings, BaseChanges] | None = None,
) -> tuple[dict[str, Entry], BaseFindings]:
    """The mask over ``tree``, path to entry in order, and what was seen for it.

    Containers see nothing of the ``mounts``, unless they are ``parts`` (see ``host.kernel.mounts``). Parts are treated like
    the rest of the base, and are marked in the mask. ``since``: an earlier look at the same base, and what changed since.
    """
    fixed = rules.expand(rules.built_in(paths), tree)
    own = [rule for rule in operator.rules if rule.kind is RuleKind.SHOW]
    programs, links = state.keep(tree, [*fixed, *operator.rules], mounts - parts.keys())
    all_rules = [*fixed, *programs, *operator.rules]
    built_in = {**links, **neutral.files(tree, _content(paths.resolv_conf)), **units.files(tree, operator.units)}
    placed = _without(built_in, operator.rules)
    placed |= neutral.replacements(tree, operator.replace)
    first = compile_rules(all_rules, placed, tree)
    exempt = [tree.real(rule.path) for rule in own]
    elsewhere = mounts - parts.keys()
    passed = (sorted(settled(first)), sorted(exempt), sorted(elsewhere.intersection(exempt)), sorted(parts.items()))
    found, look = _look(tree, first, exempt, elsewhere, hashlib.sha256(repr(passed).encode()).hexdigest(), since)
    entries = compile_rules([*all_rules, *map(_rule, found)], placed, tree) if found else first
    return mark(entries, parts, tree), look


def _look(
    tree: Tree,
    first: Mapping[str, Entry],
    exempt: Collection[str],
    mounts: Collection[str],
    passed: str,
    since: tuple[BaseFindings, BaseChanges] | None,
) -> tuple[list[Private], BaseFindings]:
    """Sweep the base; only what changed, if that passes over the same as before."""
    visited: Stamps = {}
    present: Stamps = {}
    if since is not None:
        present = {path: stamp(tree.outside(path) or "/") for path in since[0].swept}
    if since is None or since[0].settled != passed or _untold(since, present):
        found = sweep(tree, first, exempt=exempt, mounts=mounts, visited=visited)
    else:
        former, changes = since
        found = sweep_again(tree, first, former.private, changes, exempt=exempt, mounts=mounts, visited=visited)
        visited = {path: found_now for path, found_now in present.items() if found_now is not None} | visited
    return found, BaseFindings(visited, sorted(each.path for each in found), passed)


def _untold(since: tuple[BaseFindings, BaseChanges], present: Stamps) -> set[str]:
    """The watched directories that changed though the kernel did not tell that files came into them. More may have come there
    and elsewhere than a look at their entries would find."""
    former, changes = since
    return {
        path
        for path, known in former.swept.items()
        if present[path] not in (known, None)
        and path not in changes.inside
        and changes.below.isdisjoint(parents(path))  # all below these is looked at
    }


def mark(entries: Mapping[str, Entry], parts: Mapping[str, str], tree: Tree) -> dict[str, Entry]:
    """The entries, with marks for the ``parts`` of which clones see anything. A part that a rule hides whole has none."""
    marked = dict(entries)
    for path, identity in parts.items():
        way = [marked.get(each, _MERGED) for each in (*parents(path), path)]
        if tree.is_directory(path) and all(isinstance(each, Directory) and not each.opaque for each in way):
            for each in (*parents(path), path):
                marked.setdefault(each, Directory(owner(tree, each)))
            marked[path] = replace(cast(Directory, marked[path]), part=identity)
    return dict(sorted(marked.items()))


def _without(placed: Mapping[str, Entry], operator: Iterable[MaskRule]) -> dict[str, Entry]:
    """The built-in files, without those for which the operator's rules show the host's file or hide the path."""
    own = {rule.path: rule.kind for rule in operator}
    return {
        path: entry
        for path, entry in placed.items()
        if path not in own and not any(own.get(above, RuleKind.SHOW) is not RuleKind.SHOW for above in parents(path))
    }


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _rule(found: Private) -> MaskRule:
    return MaskRule(found.path, RuleKind.EMPTY if found.directory else RuleKind.HIDE, found.why)


def compile_rules(all_rules: Iterable[MaskRule], placed: Mapping[str, Entry], tree: Tree) -> dict[str, Entry]:
    """The entries that make ``all_rules`` true over ``tree``, with the ``placed`` ones on top.

    Of several rules about the same path the last one holds; ``placed`` entries override rules.
    """
    compiler = _Compiler(all_rules, placed, tree)
    compiler.visit("/", hidden=False, covered=False, why="")
    return with_parents(compiler.entries, tree)


def with_parents(entries: Mapping[str, Entry], tree: Tree) -> dict[str, Entry]:
    """The entries in order, with all directories above them. A merged directory has the mode and owner of its topmost layer,
    so a layer repeats the base's for each."""
    whole = dict(entries)
    for path in entries:
        for above in parents(path):
            if above not in whole:
                whole[above] = Directory(owner(tree, above))
    return dict(sorted(whole.items()))


class _Compiler:
    def __init__(self, all_rules: Iterable[MaskRule], placed: Mapping[str, Entry], tree: Tree) -> None:
        self._tree = tree
        self.entries: dict[str, Entry] = {}
        self._rules: dict[str, MaskRule] = {}
        # Shallow paths come first: a link at an emptied path becomes a directory, so rules below it must not follow the link.
        # Sorting is stable, so rules of equal depth keep their order.
        emptied: set[str] = set()
        for rule in sorted(all_rules, key=lambda rule: rule.path.count("/") if rule.path != "/" else 0):
            path = tree.real(rule.path, fixed=emptied)
            self._rules[path] = rule
            if rule.kind is RuleKind.EMPTY:
                emptied.add(path)
        self._placed = {tree.real(path, fixed=emptied): entry for path, entry in placed.items()}
        self._below: dict[str, set[str]] = {}
        for path in (*self._rules, *self._placed):
            while path != "/":
                self._below.setdefault(parent(path), set()).add(path.rpartition("/")[2])
                path = parent(path)
        shown = [path for path, rule in self._rules.items() if rule.kind is RuleKind.SHOW and tree.exists(path)]
        self._ways = {above for path in shown for above in parents(path)}
        kept = [path for path, rule in self._rules.items() if rule.kind is RuleKind.EMPTY and tree.exists(path)]
        self._kept = {above for path in (*kept, *self._placed) for above in parents(path)}

    def visit(self, path: str, *, hidden: bool, covered: bool, why: str) -> None:
        """Add the entries that ``path`` and everything below it need.

        ``hidden``: the nearest rule above hides. ``covered``: an opaque directory above does so already.
        """
        rule = self._rules.get(path)
        if rule is not None:
            hidden, why = rule.kind is not RuleKind.SHOW, rule.why
        names = self._below.get(path, set())
        if path in self._placed:
            self.entries[path] = self._placed[path]
        elif hidden and path in self._ways and self._tree.is_directory(path):
            self.entries[path] = Directory(owner(self._tree, path), why=why)
            names = names.union(self._tree.names(path))
        elif hidden:
            covered = self._hide(path, rule, why, covered)
        if isinstance(self.entries.get(path, _MERGED), Directory):
            for name in sorted(names):
                self.visit(join(path, name), hidden=hidden, covered=covered, why=why)

    def _hide(self, path: str, rule: MaskRule | None, why: str, covered: bool) -> bool:
        """Hide ``path``; returns whether that hides everything below it, too."""
        tree = self._tree
        empty = rule is not None and rule.kind is RuleKind.EMPTY and tree.exists(path)
        whole = tree.real(path, last=True) if empty else path
        if path in self._kept or (empty and tree.is_directory(whole)):
            self.entries[path] = Directory(owner(self._tree, whole), opaque=not covered, why=why)
            return True
        if empty:
            self.entries[path] = File(b"", neutral.owner(tree, whole), why)
        elif not covered and tree.is_directory(parent(path)):
            # A path that the base does not have is hidden as well: the host may get it while clones run.
            self.entries[path] = Whiteout(why)
        return covered


def owner(tree: Tree, path: str) -> Owner:
    """Owner and mode of the directory ``path`` in the mask: those that the base has."""
    status = tree.lstat(path)
    if status is None or not stat.S_ISDIR(status.st_mode):
        return Owner(0o755)
    return Owner(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def is_hidden(entries: Mapping[str, Entry], tree: Tree, path: str) -> bool:
    """Whether a clone with nothing in its delta lacks ``path``, which may lead through links.

    A path that the base lacks counts as hidden. ``tree`` is asked only for paths that ``entries`` leave visible.
    """
    done, below_opaque, links = "", False, 0
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    while todo:
        part = todo.pop()
        if part == "..":
            todo.extend(part for part in reversed(parent(done).split("/")) if part)
            done, below_opaque = "", False
            continue
        here = f"{done}/{part}"
        entry = entries.get(here)
        if isinstance(entry, Whiteout) or (entry is None and (below_opaque or not tree.exists(here))):
            return True
        target = entry.target if isinstance(entry, Symlink) else None
        if entry is None and tree.is_link(here):
            target = tree.link(here)
        if target is not None:
            links += 1
            if links > 40:
                return True
            start = "" if target.startswith("/") else done
            todo.extend(part for part in reversed(f"{start}/{target}".split("/")) if part not in ("", "."))
            done, below_opaque = "", False
            continue
        folder = isinstance(entry, Directory) or (entry is None and tree.is_directory(here))
        if todo and not folder:
            return True
        below_opaque = below_opaque or (isinstance(entry, Directory) and entry.opaque)
        done = here
    return False


def describe(entries: Mapping[str, Entry]) -> str:
    """The mask as text, one path a line, with the reason for each."""
    lines = []
    for path, entry in entries.items():
        printable = os.fsencode(path).decode("utf-8", "backslashreplace")
        lines.append(f"{printable!r}: {entry}" + (f"  ({entry.why})" if entry.why else ""))
    return "\n".join(lines)
