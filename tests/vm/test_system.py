"""Some system tests on hosts as users have them: cgroup v2, AppArmor, systemd, the suite's kernel, LXC and Python.

They are the tests about what a clone may see and do, and those that depend on the kernel. Each suite is booted once.
LXCFLEET_TEST_PATIENCE tells the tests that an emulated processor is slow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .guest import Guest
from .image import SUITES
from .test_patch import THERE

ROOT = Path(__file__).resolve().parents[2]
HERE = "/srv/lxcfleet"
MODULES = (
    "confinement", "disk", "exposure", "access", "reconcile", "layers", "parts", "mask", "network", "dhcp", "uplink",
    "isolation", "stale", "set", "apparmor", "verify", "stories", "volumes", "archives", "snapshots", "apps",
    "generations_on_disk",
)  # fmt: skip


@pytest.fixture(scope="module", params=SUITES)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A host with the packages that the tests need."""
    with Guest.boot(request.param, packages=THERE) as booted:
        booted.push(ROOT, HERE)
        booted.run(f"apt-get -qq update && make -C {HERE} --no-print-directory test-packages 2>&1", timeout=900)
        booted.run(f"cd {HERE} && PYTHONPATH={HERE} /usr/bin/python3 -P -m lxcfleet.daemon.prepare 40", timeout=600)
        yield booted


@pytest.mark.parametrize("module", MODULES)
def test_the_system_tests_pass_on_a_real_host(guest: Guest, module: str) -> None:
    done = guest.run(
        f"cd {HERE} && LXCFLEET_TEST_PATIENCE=10 /usr/bin/python3 -m pytest -q -rs tests/system/test_{module}.py 2>&1",
        check=False, timeout=2400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]
    # This host has all that limits of disk space need, so no test of them may be skipped.
    assert module != "disk" or "skipped" not in done.stdout, done.stdout[-8000:]
    # The suites' kernels have VLANs, which many others that the tests run on lack.
    assert module != "uplink" or "has no VLANs" not in done.stdout, done.stdout[-8000:]


def test_an_existing_file_system_can_be_made_to_limit_disk_space(guest: Guest) -> None:
    """docs/resources.md, "Limits of disk space"."""
    guest.run(
        "truncate -s 300M /srv/disk && mkfs.ext4 -qF /srv/disk && tune2fs -O project,quota -Q prjquota /srv/disk &&"
        "mkdir -p /srv/mnt && mount -o loop,prjquota /srv/disk /srv/mnt"
    )
    check = "from pathlib import Path; from lxcfleet.host.kernel import quota; quota.check(Path('/srv/mnt'))"
    guest.run(f'cd {HERE} && /usr/bin/python3 -c "{check}"; done=$?; umount /srv/mnt; exit $done')
