"""Reads ``.tflite`` as TFLite Micro runs it: the graph from the file, both ends of the arena from its own records."""

from __future__ import annotations

from pathlib import Path

from segformer_edge.memory.flatbuffer import root_table
from segformer_edge.memory.micro import allocations
from segformer_edge.memory.readers.tflite import graph_of
from segformer_edge.memory.reading import Plan, Reading

_SOURCE = "TFLite Micro's allocator, one inference"


def read_tflm(path: Path) -> Reading:
    """The main subgraph, operator by operator, and what the arena's two ends hold.

    Raises ArtifactError for a damaged file or one that TFLite Micro refuses, MissingBackendError without it.
    """
    builder, notes = graph_of(root_table(path.read_bytes()))
    found = allocations(path)
    plans = (
        Plan("arena, planned end: activations and kernels' scratch", found.activations, _SOURCE),
        # No activations: structures that stay, which a program compiled for one network keeps in flash.
        Plan("arena, persistent end", found.persistent, _SOURCE, weights=found.persistent, parts=found.parts),
    )
    notes = [
        *notes,
        "Kernels' scratch is in the arena, not in the timeline. Pointers are this machine's: the persistent end is "
        "smaller where they have 32 bits.",
        f"One inference by reference kernels took {found.latency_ms:.0f} ms on {found.device}.",
    ]
    return Reading(builder.build(), plans, "the file", {"tflite-micro": found.version}, tuple(notes))
