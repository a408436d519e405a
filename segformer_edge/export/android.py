"""The Android app's assets: where a ``.pte`` and its metadata go, so that the next build of the app carries them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segformer_edge.errors import ArtifactError, UsageError
from segformer_edge.export.outdir import OutputFolder
from segformer_edge.export.targets import TARGETS, Target
from segformer_edge.report.schema import Report, TargetReport
from segformer_edge.runtime.metadata import ArtifactMetadata, sidecar_path

#: The format that the app runs.
FORMAT = "executorch"
_MAIN = Path("app/src/main")
#: What ``install`` writes; it replaces these and leaves other models there alone.
_OURS = ("model.pte", "model.pte.json")


@dataclass(frozen=True)
class AndroidProject:
    """The app's Gradle project, like ``android_demo`` in this repository."""

    folder: Path

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> AndroidProject:
        """Raises UsageError where ``folder`` is no such project, or its assets cannot be written."""
        project = cls(Path(folder))
        if not (project.folder / _MAIN / "AndroidManifest.xml").is_file():
            raise UsageError(
                f"'{project.folder}' is not the Android app: it has no '{_MAIN / 'AndroidManifest.xml'}'.",
                hint="Name the app's project folder, like --android android_demo.",
            )
        # Makes nothing yet, but finds a file in the folder's place.
        OutputFolder(project.assets, force=True, ours=_OURS)
        place = project.assets if project.assets.exists() else project.assets.parent
        if not os.access(place, os.W_OK | os.X_OK):
            raise UsageError(f"'{place}' cannot be written to, and the model goes there.")
        return project

    @property
    def assets(self) -> Path:
        """What the app carries."""
        return self.folder / _MAIN / "assets"

    def check_targets(self, targets: Sequence[Target]) -> None:
        """Raise UsageError unless one of ``targets`` makes what the app runs."""
        if not any(target.format == FORMAT for target in targets):
            raise UsageError(
                f"--android needs a .pte, and the targets ({', '.join(target.name for target in targets)}) make none.",
                hint=f"Add it: --targets {','.join([FORMAT, *(target.name for target in targets)])}",
            )

    def install(self, artifact: Path) -> Path:
        """Copy ``artifact`` and its metadata into the assets, both or neither; returns the copy's path.

        Raises ArtifactError for a file that is damaged or no ``.pte``, DiskFullError, UsageError.
        """
        metadata = ArtifactMetadata.load(artifact)
        if metadata.format != FORMAT or artifact.name not in _OURS:
            raise ArtifactError(f"The app carries {_OURS[0]}, not '{artifact.name}' of format {metadata.format}.")
        with OutputFolder(self.assets, force=True, ours=_OURS) as folder:
            for file in (artifact, sidecar_path(artifact)):
                shutil.copyfile(file, folder.path / file.name)
        return self.assets / artifact.name


def carried(report: Report) -> TargetReport:
    """The target whose file the app carries."""
    return next(entry for entry in report.targets if TARGETS[entry.target].format == FORMAT)


def install_result(project: AndroidProject, report: Report, out: Path) -> Path | None:
    """Install a run's ``.pte`` if its target is ok; if not, say so on stderr and return None."""
    found = carried(report)
    if found.status != "ok":
        print(f"The Android app keeps what it had: {found.target} is '{found.status}'.", file=sys.stderr)
        return None
    return project.install(out / found.files[0])
