"""GELU on the NPU: an exact table of 256 entries in place of a placeholder's.

The compiler turns an int8 function of one int8 tensor into the table of its 256 results, which is data in the compiled
file, and knows GELU as no such function. So GELU goes in as a logistic function of the same tensors; its table is
computed here as the compiler computes it, looked for among the file's constants, and replaced by GELU's. Commands,
cycles and memory are those of any table. A file in which a placeholder's table is not found is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segformer_edge.errors import ArtifactError
from segformer_edge.export.tflite_graph import EmittedGraph, Kind

PLACEHOLDER = "LOGISTIC"
_INTEGERS = np.arange(-128, 128)
#: Fewer different entries than this could stand in a file by chance.
_FEWEST_VALUES = 3


@dataclass(frozen=True)
class Tables:
    """For each placeholder's table, the one that takes its place: 256 bytes each, in the order of -128..127."""

    wanted: dict[bytes, bytes]

    def fill(self, content: bytes) -> bytes:
        """``content`` with every placeholder's table replaced. Raises ArtifactError where one is not there."""
        for placeholder, table in self.wanted.items():
            if placeholder not in content:
                raise ArtifactError(
                    "The compiled file does not hold the table that stands for GELU: this version of the compiler "
                    "computes it otherwise.",
                    hint="pip install 'segformer-edge[ethos-u]' installs the version this was made for.",
                )
            content = content.replace(placeholder, table)
        return content


def gelu_table(source: Kind, output: Kind) -> npt.NDArray[np.int8]:
    """GELU ``x Phi(x)`` from int8 of kind ``source`` to int8 of kind ``output``: ``(256,)``, for -128..127."""
    return _table(source, output, lambda x: x * 0.5 * (1.0 + math.erf(x / math.sqrt(2.0))))


def tables_of(graph: EmittedGraph) -> Tables:
    """The tables of all GELUs in ``graph``. Raises ArtifactError where one is not int8, or its placeholder is vague."""
    wanted: dict[bytes, bytes] = {}
    for op in graph.operators:
        if op.code != "GELU":
            continue
        source, output = op.inputs[0], op.output
        if source is None or (source.dtype, output.dtype) != ("int8", "int8"):
            raise ArtifactError(f"GELU in '{op.where}' is not int8; a table has 256 entries.")
        placeholder = _table(source.kind, output.kind, lambda x: 1.0 / (1.0 + math.exp(-x)))
        table = gelu_table(source.kind, output.kind).tobytes()
        vague = len(set(placeholder.tolist())) < _FEWEST_VALUES
        if vague or wanted.setdefault(placeholder.tobytes(), table) != table:
            raise ArtifactError(
                f"The table of GELU in '{op.where}' cannot be told from others in the compiled file.",
                hint="Its ranges are unusual: calibrate on other images, or leave the Ethos-U targets out.",
            )
    return Tables(wanted)


def _table(source: Kind, output: Kind, function: object) -> npt.NDArray[np.int8]:
    assert source.quantization is not None and output.quantization is not None
    assert callable(function)
    real = (_INTEGERS - source.quantization.zero_point[0]) * source.quantization.scale[0]
    results = np.array([function(float(x)) for x in real]) / output.quantization.scale[0]
    return (np.rint(results) + output.quantization.zero_point[0]).clip(-128, 127).astype(np.int8)
