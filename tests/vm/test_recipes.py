"""docs/recipes.md as it stands: each block runs on a Debian host with the real packages, and what it starts is proven.

One host for all, with the suite that has the newer versions of everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .guest import Guest
from .image import PRODUCT_PACKAGES
from .product import DEB, HERE, INSTALL, LONG, fleet, states, until
from .recipes import Recipe, recipes

SERVICES = (
    "apache2", "cron", "curl", "logrotate", "mariadb-server", "nginx-light", "nodejs", "openssh-server", "php-fpm",
    "postgresql", "python3-venv", "redis-server",
)  # fmt: skip
"""The packages that the recipes are about."""
RECIPES = recipes()
PATIENT = """lxcfleet() {
    if [ "$1" = wait ]; then set -- "$@" --timeout 900; fi
    command lxcfleet "$@"
}
"""
"""Before a recipe: an emulated processor takes minutes to boot a container, and a wait has a minute by itself."""


@pytest.fixture(scope="module")
def guest(package: Path) -> Iterator[Guest]:
    """A host with lxcfleet and all that the recipes want, and a key of its administrator's."""
    with Guest.boot("trixie", packages=(*PRODUCT_PACKAGES, *SERVICES), memory_mib=3072) as booted:
        booted.push(package, HERE)
        booted.run(f"apt-get -qq update && {INSTALL} {HERE}/{DEB} 2>&1", timeout=LONG)
        booted.run("ssh-keygen -q -N '' -t ed25519 -f /root/.ssh/id_ed25519")
        yield booted


@pytest.mark.parametrize("recipe", RECIPES, ids=[each.title for each in RECIPES])
def test_a_recipe_runs_as_it_stands(guest: Guest, recipe: Recipe) -> None:
    before = set(states(guest))
    done = guest.run(["bash", "-ec", PATIENT + recipe.text], check=False, timeout=LONG)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert set(states(guest)) > before


def test_a_patch_of_the_host_reaches_them_all_and_is_proven(guest: Guest) -> None:
    """The C library is another file after that, with another content: every process that began before has the old one."""
    library = "$(ldconfig -p | sed -n 's/.*libc.so.6 .*=> //p' | head -n 1)"
    guest.run(f"file=$(realpath {library}); cp $file $file.new && echo patched >>$file.new && mv $file.new $file")
    assert guest.run("lxcfleet verify", check=False, timeout=LONG).returncode == 4
    fleet(guest, "restart", "--all", "--rolling", timeout=2 * LONG)
    # lxcfleet's own processes have read the old file, too. It is told as apt's hook tells of a package.
    guest.run("lxcfleet patch notify -q")
    until(lambda: guest.run("lxcfleet verify", check=False, timeout=LONG).returncode == 0, LONG, "all is proven")
    assert guest.run("lxcfleet exec web1 -- curl -sS http://localhost/").stdout == "this is web1\n"
    assert "goods" in guest.run("lxcfleet exec db -- su - postgres -c 'psql -c \"\\\\d\" shop'").stdout
