"""What an audit looks for in containers."""

from __future__ import annotations

from pathlib import Path

from lxcfleet.base import exposure
from lxcfleet.base.generations.roots import tree_of
from lxcfleet.base.generations.sheets import Sheets
from lxcfleet.base.tree import Tree
from lxcfleet.paths import Paths


def test_what_a_rule_shows_below_a_private_directory_is_no_secret(tmp_path: Path) -> None:
    """Before, it was told as exposed by its private directory, though the operator shows it by name."""
    private = tmp_path / "root/srv/private"
    for name in ("page", "key", "site/a", "site/b"):
        (private / name).parent.mkdir(parents=True, exist_ok=True)
        (private / name).write_text(name)
    (private / "site/b").chmod(0o600)
    private.chmod(0o700)
    (tmp_path / "mask.d").mkdir()
    (tmp_path / "mask.d/a.yaml").write_text("show: [/srv/private/page, /srv/private/site]\n")
    paths = Paths(lxc=tmp_path / "lxc", run=tmp_path / "run", etc=tmp_path)
    found = {each.path: [mark.path for mark in each.marks] for each in exposure.secrets(paths, Tree(tmp_path / "root"))}
    assert found == {"/srv/private": ["/srv/private/key"], "/srv/private/site/b": ["/srv/private/site/b"]}


def test_all_sheets_of_a_generation_are_looked_at(tmp_path: Path) -> None:
    for place in ("top/etc/key", "whole/opt/key", "whole/etc/key", "whole/etc/other"):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(place)
        file.chmod(0o600 if "other" not in place else 0o644)
    paths = Paths(lxc=tmp_path / "lxc", run=tmp_path / "run", etc=tmp_path)
    tree = tree_of(Sheets(str(tmp_path / name) for name in ("top", "whole")))
    assert sorted(each.path for each in exposure.secrets(paths, tree)) == ["/etc/key", "/opt/key"]
