"""Which part of the host belongs in a generation: what containers see of it, and what their mask is made from."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from lxcfleet.base.mask import rules, state
from lxcfleet.base.tree import Tree, join, parent, parents
from lxcfleet.host.kernel.mounts import CANDIDATES
from lxcfleet.paths import Paths
from lxcfleet.spec.files.mask_rules import MaskRule, RuleKind, Rules

_PROGRAMS = ("/usr", "/opt", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Packages bring nearly all that is here, and dpkg replaces their files by rename: dpkg(1), fsync and rename in unpack."""
_RENAMED = ("/var/lib/dpkg/info", "/var/lib/apt/lists")
"""dpkg and apt write whatever is here to another name first."""
_SETTINGS = ("/etc", "/var/lib/dpkg")
"""The directories whose files administrators and package scripts write in place as well."""
_UNFINISHED = ("/var/lib/apt/lists/partial",)
"""apt writes here what it has not got whole yet."""

_LINKS = ("/var/spool/mail",)
"""Links that a mask has if the host has them; see mask.neutral."""


class Manner(Enum):
    """How the files of a directory get into a generation."""

    PROGRAMS = auto()
    """By links; as copies those that no package owns, up to a limit."""
    LINKED = auto()
    """By links."""
    COPIED = auto()
    """As copies."""
    STATE = auto()
    """As copies, up to a limit; the rest by links."""


def manner(directory: str) -> Manner:
    """How the files in ``directory`` get into a generation."""
    path = f"{directory}/"
    for found, tops in _MANNERS:
        if path.startswith(tops):
            return found
    return Manner.STATE


_MANNERS = tuple(
    (found, tuple(f"{top}/" for top in tops))
    for found, tops in ((Manner.LINKED, _RENAMED), (Manner.PROGRAMS, _PROGRAMS), (Manner.COPIED, _SETTINGS))
)


def _within(path: str, tops: Iterable[str]) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in tops)


@dataclass(frozen=True)
class Scope:
    """The part of the host that belongs in a generation. Paths are real ones: no directory above them is a link."""

    shown: frozenset[str]
    """These, with all that is below them."""
    bare: frozenset[str]
    """These alone: a directory without what is in it, a link, a file without its content. The mask keeps such of them empty,
    with the owner and mode that they have."""
    exempt: frozenset[str]
    """Containers see these although other users of the host can't read them: the operator says so."""
    left_out: frozenset[str]
    """Not these, and nothing below them."""

    def ways(self) -> dict[str, set[str]]:
        """The directories that are not shown whole, each with the names in it that belong in a generation."""
        found: dict[str, set[str]] = {path: set() for path in self.bare}
        for path in (self.shown | self.bare) - {"/"}:
            found.setdefault(parent(path), set()).add(path.rpartition("/")[2])
        return found


def scope(paths: Paths, operator: Rules, tree: Tree, mounts: Collection[str] = ()) -> Scope:
    """The part of ``tree`` that containers see under the built-in rules and the ``operator``'s, and the part that the mask is
    made from."""
    fixed = rules.expand(rules.built_in(paths), tree)
    kept, links = state.keep(tree, [*fixed, *operator.rules], mounts)
    every = [*fixed, *kept, *operator.rules]
    shown = {tree.real(rule.path) for rule in every if rule.kind is RuleKind.SHOW and rule.path != "/"}
    whole = frozenset(path for path in shown if not shown.intersection(parents(path)) and tree.exists(path))
    bare = {"/"}
    for path in (*(real for rule in every for real in _places(tree, rule)), *whole, *links, *filter(tree.is_link, _LINKS)):
        bare.update(each for each in (*parents(path), path) if each not in whole)
    own = (paths.lxc, paths.run, paths.etc, paths.state)
    sheets = (join(point, paths.sheets_elsewhere) for point in ("/", *CANDIDATES))
    return Scope(
        whole,
        frozenset(path for path in bare if not _within(path, whole)),
        frozenset(tree.real(rule.path) for rule in operator.rules if rule.kind is RuleKind.SHOW),
        frozenset((*(_inside(tree, os.fspath(path)) for path in own), *sheets, *_UNFINISHED)),
    )


def _places(tree: Tree, rule: MaskRule) -> Iterable[str]:
    """The paths that decide on what the mask puts where ``rule`` has a path emptied: itself, and where it leads if a link."""
    if rule.kind is RuleKind.EMPTY:
        for path in (tree.real(rule.path), tree.real(rule.path, last=True)):
            if tree.exists(path):
                yield path


def _inside(tree: Tree, path: str) -> str:
    """The path that ``tree`` has for this host's ``path``; itself, if it is not below the tree."""
    top = tree.outside("")
    return path.removeprefix(top) if path.startswith(f"{top}/") else path
