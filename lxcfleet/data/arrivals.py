"""Volumes that come with a container, in its archive.

Each is put together beside the others, under a name that marks it as half made. The container has a note of them, and gets
its name by one rename: from then on they are to have theirs, and whoever reads the note gives them these. So whenever that is
broken off, there is the container with all of its volumes, or nothing but what the next daemon removes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from lxcfleet.data import volumes
from lxcfleet.errors import AlreadyExists, Broken, FleetError
from lxcfleet.host.kernel import syscalls, tree
from lxcfleet.paths import ContainerPaths, Paths, VolumePaths
from lxcfleet.spec.container.volumes import Volume, check_volume
from lxcfleet.spec.reading import ondisk


def directory(name: str, token: str) -> str:
    """The name of a directory in which a volume is put together."""
    return f"{Paths.NEW_PREFIX}{name}.{token}"


def begin(paths: Paths, volume: Volume, directory: str) -> VolumePaths:
    """Make the directories of a volume, for files of an archive. Raises FleetError, OSError."""
    new = VolumePaths(paths.volumes / directory)
    paths.volumes.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(paths.volumes, 0o700)
    new.directory.mkdir(mode=0o700)
    tree.write(new.record, volumes.render(volume))  # it says which ids the files have, and so comes first
    new.data.mkdir(mode=0o755)
    os.chown(new.data, volume.first_id, volume.first_id)
    if volume.size:
        volumes.limit(new.data, volume)
    volumes.try_mount(new, volume)
    return new


def note(names: Mapping[str, str]) -> str:
    """The text of a container's note: directories of volumes, and the names that they are to get."""
    return json.dumps(dict(names)) + "\n"


def refuse_present(paths: Paths, name: str) -> None:
    """Raise AlreadyExists if a volume has that name."""
    if os.path.lexists(paths.volume(name).directory):
        raise AlreadyExists(
            f"a volume named {name} exists already", why="nothing is put on a volume that is here",
            hint=f"give the new one another name: --volume {name}=NAME; or have the present one, as it is: --keep-volumes",
        )  # fmt: skip


def finish(paths: Paths, own: ContainerPaths) -> list[str]:
    """Give the volumes that came with a container their names; gives those names. Raises the first failure, a FleetError or
    OSError, after all were tried; the note stays then."""
    wanted = _noted(own)
    if not wanted:
        return []
    failure: OSError | FleetError | None = None
    for beside, name in wanted.items():
        try:
            syscalls.rename_new(paths.volumes / beside, paths.volume(name).directory)
        except FileNotFoundError:
            if os.path.lexists(paths.volume(name).directory):  # it has its name already
                continue
            failure = failure or Broken(
                f"the volume {name} is lost", why=f"neither it nor {paths.volumes / beside} is there",
                hint=f"restore it from a backup; if nobody needs it: rm {own.arrivals}",
            )  # fmt: skip
        except OSError as error:
            failure = failure or error
    tree.sync_directory(paths.volumes)
    if failure is not None:
        raise failure
    own.arrivals.unlink()
    return [*wanted.values()]


def awaited(own: ContainerPaths) -> frozenset[str]:
    """The directories of volumes that came with a container and are still to get their names. Raises Broken, OSError."""
    return frozenset(_noted(own))


def _noted(own: ContainerPaths) -> dict[str, str]:
    """The volumes' names by directory, as a container's note has them; empty: it has none. Raises Broken, OSError."""
    try:
        names = ondisk.record(own.arrivals, ondisk.SMALL)
        return {os.path.basename(str(beside)): check_volume(str(name)) for beside, name in names.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, FleetError) as error:
        raise Broken(f"{own.arrivals} can't be used", why=str(error)) from error
