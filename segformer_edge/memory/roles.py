"""What a block of heap is for, told from what can be observed: when it came, how, and whether inferences change it.

Runtimes do not label their memory. These rules hold for blocks of 256 bytes and more; smaller ones are ``runtime``.

1. Where operators may keep them, from 2 KiB on and never changing: each word is an address of live heap or an offset
   into a block. That is an indirection buffer. XNNPACK sets them up for one input size; an aligned block that is
   younger than the first of them and fits one of them in size holds the weights of a bilinear resizing: indirection.
2. Asked for while an inference ran: activations.
3. Gone by the end though asked for at loading: runtime. It served to load.
4. Its bytes differ after an inference with another input: activations. Mappings are not compared, since reading them
   would touch them: those of loading are runtime (OpenVINO's code), less the pages that nobody touched. Addresses
   reserved with MAP_NORESERVE are told alike; no peak is reckoned with them (PyTorch's allocator on ARM takes 1 GiB).
5. Three stretches of it stand in the file as they are: weights.
6. Aligned by the caller (posix_memalign and relatives) and never changing: packed weights. XNNPACK, MLAS and oneDNN
   align what their kernels read; graphs and tables of objects come from plain malloc.
7. Else runtime.

onnxruntime's arena is one aligned block that takes packed weights first and activations after them. Where a runtime
keeps such an arena, a block that changed is therefore told apart page by page: what was written at loading and never
changes is packed weights.

Checked by running one network at two input sizes: packed weights stay, activations follow the size
(``tests/memory/test_measure.py``).
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segformer_edge.memory.measurement import ROLES, Split
from segformer_edge.memory.meters import MAPPINGS, Live, touched

MINIMUM = 256
#: Smaller tables of pointers belong to the graph.
_INDIRECTION_MINIMUM = 2048
_STRETCH = 256
_PAGE = 4096
_WORD = np.dtype(f"u{ctypes.sizeof(ctypes.c_void_p)}")


@dataclass(frozen=True)
class Roles:
    """Role of every logged block that is live at the end, by its birth, and the bytes of it without memory behind."""

    of: Mapping[int, str]
    untouched: Mapping[int, int]
    #: Bytes of packed weights within blocks of activations.
    packed: Mapping[int, int]
    #: Phases in which inferences ran.
    runs: Collection[int]

    def role(self, block: Live) -> str:
        """Of a block that is live at the end or was earlier."""
        if block.size < MINIMUM:
            return "runtime"
        return self.of.get(block.born, "activations" if block.phase in self.runs else "runtime")

    def parts(self, block: Live) -> list[tuple[str, int]]:
        """Roles of the bytes of ``block``, and how many bytes each."""
        untouched, packed = self.untouched.get(block.born, 0), self.packed.get(block.born, 0)
        shares = [("untouched", untouched), ("packed_weights", packed)]
        return [(self.role(block), block.size - untouched - packed), *(share for share in shares if share[1])]

    def split(self, heap: int, blocks: Iterable[Live]) -> Split:
        """``heap`` bytes at the moment when ``blocks`` were live. Reserved addresses are not in ``heap``."""
        sums = dict.fromkeys(ROLES, 0)
        for block in blocks:
            heap += block.size if block.kind == "reserved" else 0
            for role, size in self.parts(block):
                sums[role] += size
        sums["runtime"] += heap - sum(sums.values())
        return Split(**sums)


def digests(blocks: Iterable[Live]) -> dict[int, int]:
    """Birth -> checksum of what the block holds now."""
    large = (block for block in blocks if block.size >= MINIMUM)
    return {block.born: zlib.crc32(_view(block)) for block in large if block.kind not in MAPPINGS}


def pages(blocks: Iterable[Live]) -> dict[int, list[int]]:
    """Birth -> checksum of each page of the aligned blocks; 0 for a page of zeros."""
    return {block.born: _pages(block) for block in blocks if block.size >= MINIMUM and block.kind == "aligned"}


def find_roles(
    blocks: Sequence[Live],
    before: Mapping[int, int],
    files: Sequence[bytes],
    runs: Collection[int],
    indirection: bool,
    loaded: Mapping[int, Sequence[int]] | None = None,
) -> Roles:
    """Roles of ``blocks``, which are live now; ``before`` are their digests before the last input came.

    ``files`` are what the weights may be copies of: anything with ``find``. ``indirection``: operators may keep
    indirection buffers. ``loaded`` are the ``pages`` before the first run, of a runtime that packs weights into the
    arena of its activations.
    """
    large = [block for block in blocks if block.size >= MINIMUM]
    now = digests(large)
    room = max((block.size for block in large), default=0)
    spans = (min((b.address for b in large), default=0), max((b.address + b.size for b in large), default=0))
    tables = {
        block.born
        for block in large
        if indirection
        and block.size >= _INDIRECTION_MINIMUM
        and block.kind == "malloc"
        and now[block.born] == before.get(block.born)
        and is_indirection(block, spans, room)
    }
    first_table = min(tables, default=None)
    sizes = {block.size for block in large if block.born in tables}
    roles = {}
    for block in large:
        changed = block.born in before and before[block.born] != now[block.born]
        factors = (
            first_table is not None and block.born > first_table and block.kind == "aligned" and is_table(block, sizes)
        )
        if block.born in tables or (factors and not changed):
            role = "indirection"
        elif block.phase in runs or changed:
            role = "activations"
        elif block.kind in MAPPINGS:
            role = "runtime"
        elif stands_in(files, _view(block)):
            role = "weights"
        else:
            role = "packed_weights" if block.kind == "aligned" else "runtime"
        roles[block.born] = role
    packed = {
        block.born: _PAGE * sum(page == then != 0 for page, then in zip(_pages(block), loaded[block.born], strict=True))
        for block in large
        if loaded and block.born in loaded and roles[block.born] == "activations"
    }
    idle = {b.born: b.size - touched(b.address, b.size) for b in large if b.kind in MAPPINGS}
    return Roles(roles, idle, packed, runs)


def is_table(block: Live, sizes: Collection[int]) -> bool:
    """Whether it is as large as the weights of a bilinear resizing whose indirection buffer has one of ``sizes``.

    Four pointers there are two weights here, of 2 or 4 bytes.
    """
    pointers = 4 * _WORD.itemsize
    return any(0 <= block.size - size // pointers * each < 256 for size in sizes for each in (4, 8))


def is_indirection(block: Live, spans: tuple[int, int], room: int) -> bool:
    """Whether 95 % of its words are addresses within ``spans`` or offsets below ``room``, and few of them zero."""
    words = np.frombuffer(_view(block), _WORD, block.size // _WORD.itemsize)
    zero = words == 0
    fits = ((words >= spans[0]) & (words < spans[1])) | (words < room)
    return bool(zero.mean() < 0.2 and fits.mean() >= 0.95)


def stands_in(files: Sequence[bytes], content: memoryview) -> bool:
    """Whether three stretches of ``content`` stand in one of the files; stretches of few distinct bytes say nothing."""
    length = min(_STRETCH, len(content) // 2)
    places = [(len(content) - length) * part // 4 for part in (1, 2, 3)]
    stretches = [bytes(content[place : place + length]) for place in places]
    telling = [stretch for stretch in stretches if len(set(stretch)) >= 16]
    return bool(telling) and any(all(file.find(stretch) >= 0 for stretch in telling) for file in files)


def _pages(block: Live) -> list[int]:
    """Of the whole pages, counted from the block's start."""
    view = _view(block)
    starts = range(0, block.size - _PAGE + 1, _PAGE)
    return [zlib.crc32(page) if any(page := bytes(view[start : start + _PAGE])) else 0 for start in starts]


def _view(block: Live) -> memoryview:
    return memoryview((ctypes.c_ubyte * block.size).from_address(block.address)).cast("B")
