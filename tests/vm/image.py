"""Disk images of Debian hosts for qemu, built once per recipe and cached outside the repository.

    /usr/bin/python3 -m tests.vm.image bookworm trixie     # build what is not cached; needs root
    /usr/bin/python3 -m tests.vm.image --requirements      # Debian packages that tests/vm needs
    /usr/bin/python3 -m tests.vm.image --prune             # drop the images of older recipes

An image is one ext4 file system without a partition table, beside the kernel and the initrd that boot it.
It gets its packages, now and later when apt runs in the guest, from the mirrors that this machine uses.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST_PACKAGES = ("e2fsprogs", "mmdebstrap", "openssh-client", "qemu-system-x86", "qemu-utils")

SUITES = ("bookworm", "trixie")

# The packages that a host needs to boot, to be reached by ssh and to be patched.
BOOT_PACKAGES = (
    "apparmor", "ca-certificates", "dbus", "libpam-systemd", "linux-image-cloud-amd64", "make",
    "openssh-server", "sudo", "systemd-sysv", "unattended-upgrades",
)  # fmt: skip

# The packages that lxcfleet and its tests need.
PRODUCT_PACKAGES = (
    "dnsmasq-base", "e2fsprogs", "lxc", "mypy", "nftables", "python3-aiohttp", "python3-click",
    "python3-hypothesis", "python3-jsonschema", "python3-lxc", "python3-prometheus-client", "python3-psutil",
    "python3-pyroute2", "python3-pytest", "python3-pytest-timeout", "python3-rich", "python3-yaml", "strace", "tini",
    "uidmap",
)  # fmt: skip

DISK_SIZE = "6G"

# The name server in qemu's user-mode network.
QEMU_DNS = "10.0.2.3"


class ImageError(Exception):
    """An image cannot be built; the message says why."""


@dataclass(frozen=True)
class Image:
    """A bootable disk. Never boot `disk` itself: put a throwaway overlay on top."""

    suite: str
    disk: Path
    kernel: Path
    initrd: Path


@dataclass(frozen=True)
class Recipe:
    """All that decides what is in an image."""

    suite: str
    packages: tuple[str, ...]
    sources: tuple[str, ...]  # one-line sources.list entries
    apt_settings: tuple[str, ...]
    authorized_key: str

    def digest(self) -> str:
        # This file's own text is part of the recipe: a change in how images are made makes new ones.
        text = repr(self) + Path(__file__).read_text()
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_dir() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(root) / "lxcfleet-vm"
    path.mkdir(parents=True, exist_ok=True)
    return path


def ensure_image(suite: str, packages: Sequence[str] = PRODUCT_PACKAGES) -> Image:
    """The image of `suite` with `packages` installed, from the cache or built now (minutes)."""
    recipe = _recipe(suite, packages)
    home = _image_home(recipe)
    with _locked(home):
        if not home.exists():
            _build(recipe, home)
    return _image(suite, home)


def prune(packages: Sequence[str] = PRODUCT_PACKAGES) -> None:
    """Remove the cached images that the present recipes don't produce."""
    wanted = {_image_home(_recipe(suite, packages)) for suite in SUITES}
    for suite in SUITES:
        for home in (cache_dir() / "images").glob(f"{suite}-*"):
            if home.is_dir() and home not in wanted:
                with _locked(home):
                    shutil.rmtree(home)


def ssh_key() -> Path:
    """The private key that every image lets in as root."""
    key = cache_dir() / "id_ed25519"
    with _locked(key):
        if not key.exists():
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lxcfleet-vm", "-f", str(key))
    return key


def _recipe(suite: str, packages: Sequence[str]) -> Recipe:
    if suite not in SUITES:
        raise ImageError(f"unknown suite {suite!r}: choose from {', '.join(SUITES)}")
    return Recipe(
        suite=suite,
        packages=tuple(sorted({*BOOT_PACKAGES, *packages})),
        sources=_apt_sources(suite),
        apt_settings=_apt_settings(),
        authorized_key=ssh_key().with_suffix(".pub").read_text(),
    )


def _image_home(recipe: Recipe) -> Path:
    return cache_dir() / "images" / f"{recipe.suite}-{recipe.digest()}"


def _image(suite: str, home: Path) -> Image:
    return Image(suite, disk=home / "disk.raw", kernel=home / "vmlinuz", initrd=home / "initrd.img")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from making the same cached thing at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*argv: str) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-40:])
        raise ImageError(f"{shlex.join(argv)} exited {done.returncode}:\n{tail}")
    return done.stdout


# -- apt, as this machine has it --------------------------------------------------------------------


def _apt_sources(suite: str) -> tuple[str, ...]:
    """This machine's Debian mirrors, with `suite` in the place of its own release."""
    fields = "$(ORIGIN) $(REPO_URI) $(CODENAME) $(COMPONENT)"
    listing = _run("apt-get", "indextargets", "--format", fields, "Created-By: Packages")
    sources: dict[str, None] = {}  # in apt's order, without duplicates
    for line in listing.splitlines():
        origin, uri, codename, component = line.rsplit(" ", 3)
        _, dash, pocket = codename.partition("-")
        if origin == "Debian" and pocket in ("", "updates", "security"):
            sources[f"deb {uri} {suite}{dash}{pocket} {component}"] = None
    if not sources:
        raise ImageError("apt knows no Debian mirror on this machine: run apt-get update (only Debian is supported)")
    return tuple(sources)


def _apt_settings() -> tuple[str, ...]:
    """How strictly this machine's apt checks its mirrors' dates: a mirror may lag or stand still."""
    dump = _run("apt-config", "dump").splitlines()
    return tuple(line for line in dump if line.startswith("Acquire::Check-"))


# -- building ---------------------------------------------------------------------------------------


def _build(recipe: Recipe, home: Path) -> None:
    if os.geteuid() != 0:
        raise ImageError("building an image needs root, to own the files in it")
    with tempfile.TemporaryDirectory(prefix="build-", dir=home.parent) as scratch:
        tree, result = Path(scratch, "tree"), Path(scratch, "result")
        result.mkdir()
        _bootstrap(recipe, tree)
        _configure(recipe, tree)
        image = _image(recipe.suite, result)
        _copy_boot_files(tree, image)
        _make_disk(tree, image.disk)
        # Renamed when complete, so that a build cut short leaves nothing that looks like an image.
        result.rename(home)


def _bootstrap(recipe: Recipe, tree: Path) -> None:
    apt_options = [f"--aptopt={setting}" for setting in (*recipe.apt_settings, 'Acquire::Languages "none";')]
    # mmdebstrap mounts /proc and /sys in the tree. In a mount namespace of its own no mount is left, even if it is killed.
    _run(
        *("unshare", "--mount", "--propagation=private"),
        *("mmdebstrap", "--mode=root", "--format=directory", "--variant=important", "--quiet"),
        # The lists stay, so that apt works in the guest at once and an update has little to fetch.
        "--skip=cleanup/apt/lists",
        f"--include={','.join(recipe.packages)}",
        *apt_options,
        "--dpkgopt=force-confold",
        f"--essential-hook={_initramfs_hook()}",
        recipe.suite,
        str(tree),
        *recipe.sources,
    )


def _initramfs_hook() -> str:
    """Shell code for mmdebstrap: an initrd for qemu only, as unpacking a general one is slow when emulated."""
    return (
        'd="$1/etc/initramfs-tools"; mkdir -p "$d/conf.d"; '
        'echo MODULES=list > "$d/conf.d/qemu"; '
        'printf "%s\\n" virtio_pci virtio_blk ext4 > "$d/modules"'
    )


def _configure(recipe: Recipe, tree: Path) -> None:
    for name, text in _guest_files(recipe).items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # resolv.conf may be a link that leads out of the tree
        path.write_text(text)
    (tree / "root/.ssh").chmod(0o700)
    _systemctl(tree, "enable", "systemd-networkd.service")
    # Tests decide when the host is patched; a timer that fires at boot would hold apt's lock meanwhile.
    _systemctl(tree, "disable", "apt-daily.timer", "apt-daily-upgrade.timer")


def _guest_files(recipe: Recipe) -> dict[str, str]:
    return {
        "etc/fstab": "/dev/vda / ext4 errors=remount-ro 0 1\n",
        "etc/hostname": f"{recipe.suite}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {recipe.suite}\n::1 localhost ip6-localhost\n",
        # Empty, not missing: systemd fills it in, and doesn't take the boot for a first one that presets all units.
        "etc/machine-id": "",
        "etc/resolv.conf": f"nameserver {QEMU_DNS}\n",
        "etc/default/locale": "LANG=C.UTF-8\n",
        # Only qemu's network card: lxcfleet manages bridges and veths.
        "etc/systemd/network/80-qemu.network": "[Match]\nName=en*\n\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\n",
        "root/.ssh/authorized_keys": recipe.authorized_key,
    }


def _systemctl(tree: Path, *arguments: str) -> None:
    _run("chroot", str(tree), "systemctl", *arguments)


def _copy_boot_files(tree: Path, image: Image) -> None:
    shutil.copyfile(_only(tree / "boot", "vmlinuz-*"), image.kernel)
    shutil.copyfile(_only(tree / "boot", "initrd.img-*"), image.initrd)


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise ImageError(f"expected one {pattern} in the image, found {[path.name for path in found]}")
    return found[0]


def _make_disk(tree: Path, disk: Path) -> None:
    _run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(tree), str(disk), DISK_SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.vm.image", description="Build disk images for the guests.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"one or more of: {', '.join(SUITES)}")
    parser.add_argument("--requirements", action="store_true", help="print the Debian packages that this needs")
    parser.add_argument("--prune", action="store_true", help="remove the images of older recipes")
    arguments = parser.parse_args()
    if arguments.requirements:
        print(*HOST_PACKAGES)
    for suite in arguments.suites:
        print(ensure_image(suite).disk, flush=True)
    if arguments.prune:
        prune()


if __name__ == "__main__":
    try:
        main()
    except ImageError as error:
        raise SystemExit(f"tests.vm.image: {error}") from None
