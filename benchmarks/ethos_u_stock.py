"""ExecuTorch's own way to an Ethos-U, to compare with: transformers -> PT2E -> Arm's passes -> TOSA -> Vela.

    python benchmarks/ethos_u_stock.py --weights DIR --calibration DIR --size 128 --on ethos-u85-256

prints the seconds of each stage, what the compiler plans and estimates, and the slowest of Arm's passes. It takes some
ten minutes of one core for B0 at 128x128. Nothing is written but into a temporary folder.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from segformer_edge.data.images import list_images, read_image
from segformer_edge.data.processing import Preprocessing
from segformer_edge.ethos_u.configurations import configuration
from segformer_edge.ethos_u.vela import read_folder
from segformer_edge.prepare import evenly

CALIBRATION_IMAGES = 4
PASSES = 12


class Logits(nn.Module):
    """transformers' SegFormer, logits alone."""

    def __init__(self, weights: str) -> None:
        super().__init__()
        from transformers import SegformerForSemanticSegmentation

        self.model = SegformerForSemanticSegmentation.from_pretrained(weights).eval()

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.model(image).logits
        return logits


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="a folder in Hugging Face layout")
    parser.add_argument("--calibration", required=True, type=Path, metavar="DIR")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--on", default="ethos-u85-256")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        lower(Logits(options.weights).eval(), images(options.calibration, options.size), options.on, Path(folder))


def images(folder: Path, size: int) -> list[Tensor]:
    """Some of the images in ``folder``, preprocessed: ``(1, 3, size, size)``."""
    paths, preprocessing = list_images(folder), Preprocessing((size, size))
    return [torch.from_numpy(preprocessing(read_image(paths[i]))) for i in evenly(len(paths), CALIBRATION_IMAGES)]


def lower(model: nn.Module, batch: list[Tensor], name: str, folder: Path) -> None:
    """Quantize, lower, and print what came of it."""
    from executorch.backends.arm.ethosu import EthosUCompileSpec, EthosUPartitioner
    from executorch.backends.arm.quantizer import EthosUQuantizer, get_symmetric_quantization_config
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = configuration(name)
    mode, start = config.mode(), time.perf_counter()
    spec = EthosUCompileSpec(name, mode.system, mode.vela, extra_flags=["--verbose-performance"])
    spec.dump_intermediate_artifacts_to(str(folder))
    quantizer = EthosUQuantizer(spec)
    quantizer.set_global(get_symmetric_quantization_config())
    with torch.no_grad():
        # Guards in the traced module are calls that the quantizer does not know.
        module = prepare_pt2e(torch.export.export(model, (batch[0],)).module(check_guards=False), quantizer)
        for image in batch:
            module(image)
        program = torch.export.export(convert_pt2e(module), (batch[0],))
        print(f"quantized after {time.perf_counter() - start:.0f} s", flush=True)
        profile = cProfile.Profile()
        profile.runcall(
            to_edge_transform_and_lower,
            program,
            partitioner=[EthosUPartitioner(spec)],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
    print(f"lowered after {time.perf_counter() - start:.0f} s")
    found = read_folder(folder / "output", mode)
    print(
        f"{name}, {mode.name}: {len(found.steps)} operations, {len(found.left)} left to the CPU, "
        f"SRAM {found.sram_bytes / 1024:.1f} KiB, constants {found.flash_bytes / 1024:.1f} KiB, "
        f"{found.inferences_per_second:.1f} inferences a second (compiler's estimate)"
    )
    pstats.Stats(profile).sort_stats("cumulative").print_stats("arm/_passes|exir/pass_base", PASSES)


if __name__ == "__main__":
    main()
