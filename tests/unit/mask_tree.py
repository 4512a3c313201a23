"""Small trees for tests of the mask, and the plan over them."""

from pathlib import Path

from lxcfleet.base.mask import compiler
from lxcfleet.base.tree import Tree
from lxcfleet.host.kernel.entries import Directory, Entry
from lxcfleet.paths import Paths
from lxcfleet.spec.files.mask_rules import MaskRule, RuleKind, Rules

SYSTEM = "usr/lib/systemd/system"


def small_host(root: Path) -> Path:
    """A much reduced host. All its files belong to the user who runs the tests."""
    for name in ("usr/bin", "usr/lib", "var/lib/dpkg/info", "var/log"):
        (root / name).mkdir(parents=True)
    for name in ("etc", "tmp", "root", "home", "srv", "opt", "run", "proc", "data"):
        (root / name).mkdir()
    for link, target in {"bin": "usr/bin", "lib": "usr/lib", "var/run": "/run"}.items():
        (root / link).symlink_to(target)
    (root / "usr/bin/sh").write_text("")
    (root / "var/lib/dpkg/status").write_text("")
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755)
    return root


def put(root: Path, path: str, content: str | bytes = "", mode: int = 0o644) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    for above in file.parents:
        if above.is_relative_to(root) and above != root:
            above.chmod(above.stat().st_mode | 0o055)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    file.chmod(mode)
    return file


def plan(root: Path, *own: MaskRule, **more: object) -> dict[str, Entry]:
    operator = Rules(own, more.get("replace", ()), more.get("units", ()))  # type: ignore[arg-type]
    # Paths of no fleet, so that the run directory of a real one is not read.
    paths = Paths(run=Path("/run/lxcfleet-of-nobody"))
    entries, _ = compiler.plan(
        paths, operator, Tree(root), more.get("mounts", frozenset()), more.get("parts", {})  # type: ignore[arg-type]
    )
    return entries


def own(kind: RuleKind, path: str) -> MaskRule:
    return MaskRule(path, kind, "a.yaml", operator=True)


def hides(root: Path, entries: dict[str, Entry], path: str) -> bool:
    return compiler.is_hidden(entries, Tree(root), path)


def opaque(entry: Entry | None) -> bool:
    return isinstance(entry, Directory) and entry.opaque
