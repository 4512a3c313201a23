"""The paths of one release of an app."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReleasePaths:
    """Where one release's files are."""

    directory: Path
    """Only root can enter it, and the directories above."""

    @property
    def record(self) -> Path:
        """The record of the release; see data.apps.store."""
        return self.directory / "app.yaml"

    @property
    def manifest(self) -> Path:
        """The list of its files, with the digest of each; see data.apps.manifest."""
        return self.directory / "files"

    @property
    def stamp(self) -> Path:
        """How its files looked when they were last found to be those of the list; see data.apps.manifest."""
        return self.directory / "stamp"

    @property
    def image(self) -> Path:
        """Its files as an image, if it is a layer of containers."""
        return self.directory / "image"

    @property
    def tree(self) -> Path:
        """The directory that containers mount."""
        return self.directory / "tree"
