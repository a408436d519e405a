"""The files whose instructions are counted: the default pipelines' and ours, from the same weights and images."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from arm_baseline import TARGETS, WEIGHTS, Case
from defaults.build import built_file
from memory_cases import RANDOM
from memory_ours import Source, prepare_source, quantize_command, run_quantize

from segformer_edge.emulation.architectures import AARCH64
from segformer_edge.errors import SegformerEdgeError
from segformer_edge.progress import Progress
from segformer_edge.runtime.formats import RUNTIMES

#: Precision -> our recipe.
RECIPES = {"int8": "mixed", "int8_attention": "int8_attention", "float": "float"}


class Files:
    """Builds what is missing, the first time that it is asked for.

    Default files are kept from run to run. Ours are built anew by each run, so that what is counted is today's
    exporter; with ``keep`` those of an earlier run count.
    """

    def __init__(self, defaults: Path, ours: Path, keep: bool, tell: Progress) -> None:
        self._defaults, self._ours, self._keep, self._tell = defaults, ours, keep, tell
        # Each is done once; cache on a method would keep the object alive.
        self._source, self._build_ours = cache(self._make_source), cache(self._run_quantize)

    def __call__(self, case: Case) -> Path:
        """The file of ``case``. Raises SegformerEdgeError that says why there is none."""
        if case.side == "default":
            self._tell.step(f"{case.pipeline} (minutes where it is not built yet)")
            source = self._source()
            return built_file(
                case.pipeline, self._defaults / RANDOM.name, weights=str(source.weights), size=RANDOM.size,
                calibration=str(source.calibration), images=16,
            )  # fmt: skip
        file = self._ours / case.precision / f"model{RUNTIMES[case.target].suffix}"
        if self._keep and file.exists():
            return file
        error = self._build_ours(case.precision)
        if error or not file.exists():
            raise SegformerEdgeError(error or f"quantize made no {file.name}")
        return file

    def _make_source(self) -> Source:
        self._ours.mkdir(parents=True, exist_ok=True)
        return prepare_source(RANDOM, WEIGHTS, None, self._ours)

    def _run_quantize(self, precision: str) -> str:
        """Build all targets that can be counted at once. "" or why it failed."""
        self._tell.step(f"our {precision} files: quantize with recipe {RECIPES[precision]} (some minutes)")
        targets = ",".join(target for target in TARGETS if target in AARCH64.formats)
        out = self._ours / precision
        command = quantize_command(self._source(), RANDOM, targets, RECIPES[precision], out)
        return run_quantize([*command, "--force"], out)
