"""``python -m segformer_edge.firmware FILE``: a TFLite Micro file as C sources for firmware, and how to use them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segformer_edge.cli import EXIT_OK, Parser, print_next, run
from segformer_edge.errors import UsageError

if TYPE_CHECKING:
    from segformer_edge.memory.graph import MemoryGraph
    from segformer_edge.memory.micro import Allocations
    from segformer_edge.runtime.metadata import ArtifactMetadata

NAMES = ("model_data.c", "model_data.h", "model_data.md")
#: Bytes a line of the array.
_ROW = 20
#: The method of MicroMutableOpResolver that adds an operator, where it is not the name in camel case.
_ADDERS = {
    "CONV_2D": "AddConv2D",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "BATCH_MATMUL": "AddBatchMatMul",
    "ARG_MAX": "AddArgMax",
}


def build_parser() -> Parser:
    """All options, with their defaults."""
    parser = Parser(
        "python -m segformer_edge.firmware",
        "Write a file for TFLite Micro as a C array, with its sizes, its labels and the operators to register.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a .tflite of --targets tflm, its .json beside it")
    parser.add_argument("--out", type=Path, default=Path("firmware"), metavar="DIR", help="output (default: firmware)")
    parser.add_argument("--force", action="store_true", help="replace the files of an earlier run")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code. Raises SegformerEdgeError for what the user can mend."""
    options = build_parser().parse_args(argv)

    from segformer_edge.export.outdir import OutputFolder
    from segformer_edge.memory.flatbuffer import root_table
    from segformer_edge.memory.micro import allocations
    from segformer_edge.memory.readers.tflite import graph_of
    from segformer_edge.runtime.formats import RUNTIMES
    from segformer_edge.runtime.metadata import ArtifactMetadata

    metadata = ArtifactMetadata.load(options.file)
    if metadata.format != "tflm":
        raise UsageError(
            f"'{options.file}' was made for {metadata.target}, not for TFLite Micro's own kernels.",
            hint="python -m segformer_edge.quantize --targets tflm writes such a file.",
        )
    RUNTIMES[metadata.format].check(options.file)
    content = options.file.read_bytes()
    graph, _ = graph_of(root_table(content))
    found = allocations(options.file)
    with OutputFolder(options.out, force=options.force, ours=NAMES) as folder:
        texts = (source(content), header(metadata, found, len(content)), page(metadata, found, graph.build()))
        for name, text in zip(NAMES, texts, strict=True):
            (folder.path / name).write_text(text, encoding="utf-8")
    for name in NAMES:
        print(options.out / name)
    print_next("cat", options.out / NAMES[-1])
    return EXIT_OK


def source(content: bytes) -> str:
    """The flatbuffer as an array. It is constant, so the linker puts it into flash."""
    rows = [content[start : start + _ROW] for start in range(0, len(content), _ROW)]
    array = ",\n".join(",".join(map(str, row)) for row in rows)
    return (
        '#include "model_data.h"\n\n'
        f"_Alignas(16) const unsigned char segformer_model[SEGFORMER_MODEL_BYTES] = {{\n{array}\n}};\n"
    )


def header(metadata: ArtifactMetadata, found: Allocations, size: int) -> str:
    """Sizes, shapes and quantization parameters as macros."""
    (height, width), out = metadata.size, metadata.output.shape
    entries = {
        "MODEL_BYTES": size,
        "INPUT_HEIGHT": height,
        "INPUT_WIDTH": width,
        "INPUT_SCALE": f"{metadata.input.scale!r}f",
        "INPUT_ZERO_POINT": metadata.input.zero_point,
        "OUTPUT_HEIGHT": out[1],
        "OUTPUT_WIDTH": out[2],
        "CLASSES": len(metadata.class_names),
        "ACTIVATION_BYTES": found.activations,
        "PERSISTENT_BYTES_64_BIT": found.persistent,
    }
    lines = [f"#define SEGFORMER_{name} {value}" for name, value in entries.items()]
    return "\n".join([
        "#ifndef SEGFORMER_MODEL_DATA_H_", "#define SEGFORMER_MODEL_DATA_H_", "", *lines, "",
        "#ifdef __cplusplus", 'extern "C" {', "#endif",
        "extern const unsigned char segformer_model[SEGFORMER_MODEL_BYTES];",
        "#ifdef __cplusplus", "}", "#endif", "", "#endif", "",
    ])  # fmt: skip


def adder(code: str) -> str:
    """Method of MicroMutableOpResolver for the operator ``code``."""
    return _ADDERS.get(code) or "Add" + "".join(part.capitalize() for part in code.split("_"))


def page(metadata: ArtifactMetadata, found: Allocations, graph: MemoryGraph) -> str:
    """How firmware uses the array."""
    codes = sorted({op.type for op in graph.operators})
    mean, std = (
        ", ".join(f"{value:g}" for value in each) for each in (metadata.normalisation.mean, metadata.normalisation.std)
    )
    classes = "\n".join(f"{number}. {name}" for number, name in enumerate(metadata.class_names))
    height, width = metadata.size
    given = "x".join(map(str, metadata.output.shape))
    adders = "\n".join(f"resolver.{adder(code)}();" for code in codes)
    return f"""# {metadata.model} for TFLite Micro

`model_data.c` is `{metadata.file}` (SHA-256 {metadata.files[metadata.file]}) as an array; it belongs into flash.

```cpp
#include "model_data.h"

static tflite::MicroMutableOpResolver<{len(codes)}> resolver;
{adders}
// Activations take SEGFORMER_ACTIVATION_BYTES of the arena. What the interpreter keeps beside them was
// SEGFORMER_PERSISTENT_BYTES_64_BIT where pointers have 64 bits, and is less where they have 32: print
// interpreter.arena_used_bytes() once and take that.
alignas(16) static uint8_t arena[SEGFORMER_ACTIVATION_BYTES + SEGFORMER_PERSISTENT_BYTES_64_BIT];
tflite::MicroInterpreter interpreter(tflite::GetModel(segformer_model), resolver, arena, sizeof(arena));
interpreter.AllocateTensors();
```

Input: int8, 1x{height}x{width}x3, RGB. From a pixel of 0 to 255:
`round((pixel / 255 - mean) / std / SEGFORMER_INPUT_SCALE) + SEGFORMER_INPUT_ZERO_POINT`, cut to -128..127, with mean
{mean} and std {std}.

Output: {metadata.output.dtype}, {given}, {metadata.output.kind}. Recorded by TFLite Micro {found.version} on
{found.device}: {found.activations} bytes of activations, {found.persistent} persistent.

Classes:

{classes}
"""


if __name__ == "__main__":
    sys.exit(run(main))
