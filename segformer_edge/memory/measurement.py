"""What a measured inference costs in memory: plain numbers, ready for JSON with ``dataclasses.asdict``."""

from __future__ import annotations

from dataclasses import dataclass

#: How the bytes were found.
BY_HOOK = "measured (allocator hook)"
BY_RESIDENT = "measured (resident memory)"

#: What a block of memory was taken for, in the order of ``Split``.
ROLES = ("weights", "packed_weights", "activations", "indirection", "runtime", "untouched")


@dataclass(frozen=True)
class Phase:
    """One step of the program, in bytes of heap over the state before the file was loaded.

    ``peak`` is the highest, ``kept`` what stood at its end, ``allocations`` how many blocks were asked for (None where
    resident memory was measured).
    """

    name: str
    peak: int
    kept: int
    allocations: int | None


@dataclass(frozen=True)
class Split:
    """Heap bytes at one moment, by what they are for; their sum is the heap's growth at that moment.

    ``weights`` are copies of constants as the file holds them, ``packed_weights`` constants that the runtime reordered
    for its kernels, ``activations`` what inferences work in (plan, arena, workspace), ``indirection`` the pointers and
    factors that XNNPACK's operators keep for an input size, ``runtime`` the rest: graph, kernels, Python objects,
    blocks that loading frees again. ``untouched`` was mapped and never written: addresses without memory behind them.
    How a block gets its role is said in ``segformer_edge.memory.roles``.
    """

    weights: int
    packed_weights: int
    activations: int
    indirection: int
    runtime: int
    untouched: int

    @property
    def growth(self) -> int:
        """Without weights, packed or not, and without what takes no memory."""
        return self.activations + self.indirection + self.runtime


@dataclass(frozen=True)
class Block:
    """One block of heap that was live at the peak of the inferences."""

    size: int
    #: malloc, aligned, mmap or reserved.
    kind: str
    #: The phase in which it was asked for.
    phase: str
    #: One of ROLES.
    role: str


@dataclass(frozen=True)
class Measurement:
    """Peak memory of one file in one runtime. Bytes throughout; what could not be measured is None.

    The heap is malloc and its relatives plus anonymous writable mappings, as the program asked for them: rounding and
    fragmentation of the allocator are not in it. The caller's input array is not in it, outputs that the runtime
    allocates are. Mappings of the file are counted apart: they take memory only as far as they are resident, and the
    system may drop them. Of addresses that are only reserved (MAP_NORESERVE) the splits have what was touched, and the
    phases nothing.
    """

    file: str
    file_bytes: int
    format: str
    #: "LiteRT, XNNPACK", "LiteRT, no delegate", "onnxruntime", "onnxruntime, no arena", "OpenVINO", "ExecuTorch", ...
    runtime: str
    versions: dict[str, str]
    #: "host x86_64" or "emulated cortex-a72".
    device: str
    #: BY_HOOK or BY_RESIDENT.
    kind: str
    threads: int
    #: Name, dtype and shape of each input.
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    #: load, allocate, first run, second run, third run. The third gets another input than the first two.
    phases: tuple[Phase, ...]
    #: Highest heap of all phases over the state before loading: what must be free, besides resident file mappings.
    peak_bytes: int
    #: The headline: the larger of the next two. Peak heap over the state before loading, without (packed) weights.
    inference_growth: int | None
    #: The same while the file is loaded and memory is allocated; includes what loading frees again.
    load_growth: int | None
    #: The same while it runs.
    run_growth: int | None
    #: At the peak of the inferences, and at the peak of loading.
    run_split: Split | None
    load_split: Split | None
    #: Bytes of the file that are mapped into memory rather than read, and how many of them were resident at the end.
    mapped_bytes: int | None
    resident_bytes: int | None
    #: LiteRT: extent of the tensor arena; None in other runtimes, and 0 where a delegate holds all tensors.
    arena_bytes: int | None
    #: The largest blocks at the peak of the inferences, largest first.
    blocks: tuple[Block, ...]

    @property
    def weights_bytes(self) -> int | None:
        """Weights on the heap at the peak of the inferences, plain and packed; resident file pages come on top."""
        return None if self.run_split is None else self.run_split.weights + self.run_split.packed_weights
