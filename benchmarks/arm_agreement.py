"""Exported files on emulated ARM CPUs against the same files on this machine: equal pixels, and mIoU on both.

    python benchmarks/arm_agreement.py out/model.tflite out/model.onnx --data camvid:DIR:val --on cortex-a72,cortex-a76

With ``--weights`` the quantized network in torch (its encodings.json lies beside the files) is a third opinion: where
the two CPUs differ, it says which one is nearer to what the file should compute. It is also compared with itself after
one rounding error more in each norm, which tells how much two right implementations differ.
"""

from __future__ import annotations

import copy
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segformer_edge.cli import EXIT_FAILED, EXIT_OK, Parser, run
from segformer_edge.data.datasets import open_dataset
from segformer_edge.data.metrics import agreement
from segformer_edge.data.sample import Sample, SegmentationDataset
from segformer_edge.emulation.segmenter import EmulatedSegmenter
from segformer_edge.emulation.sysroot import open_cpu
from segformer_edge.errors import UsageError
from segformer_edge.evaluation import EvaluationResult, Predict, TorchSegmenter, check_classes, evaluate
from segformer_edge.runtime.metadata import ArtifactMetadata
from segformer_edge.runtime.segmenter import Segmenter

#: Share of equal pixels that two CPUs must reach with one file.
REQUIRED = 0.995
#: About one rounding error of float32, relative.
ROUNDING = 1e-7


class EvenlySpaced(SegmentationDataset):
    """``count`` samples of ``dataset`` from all over it: neighbours in a video show the same street."""

    def __init__(self, dataset: SegmentationDataset, count: int) -> None:
        super().__init__(dataset.name, dataset.class_names, dataset.palette)
        self._dataset = dataset
        self._indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int).tolist()

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._indices[index]]


def quantized_reference(weights: str, files: Sequence[Path]) -> TorchSegmenter:
    """The fake-quantized network in torch, from the checkpoint and the encodings.json beside the first file."""
    from quantization.encodings import EncodingsError, apply_encodings, load_encodings
    from quantization.sites import Mode, set_mode
    from segformer_edge.data.processing import Preprocessing
    from segformer_edge.model.checkpoint import load_checkpoint
    from segformer_edge.rewrite.graph import EdgeSegFormer

    metadata = ArtifactMetadata.load(files[0])
    network = EdgeSegFormer(load_checkpoint(weights).model, metadata.output.kind)
    try:
        apply_encodings(network, load_encodings(files[0].with_name("encodings.json")))
    except EncodingsError as error:
        raise UsageError(str(error)) from error
    set_mode(network, Mode.FAKE)
    return TorchSegmenter(network, Preprocessing(metadata.size))


def with_rounding_errors(segmenter: TorchSegmenter) -> TorchSegmenter:
    """A copy whose norms give values one rounding error away, as another CPU's square roots and sums may."""
    network, generator = copy.deepcopy(segmenter.module), torch.Generator().manual_seed(0)

    def disturb(module: torch.nn.Module, arguments: Any, output: torch.Tensor) -> torch.Tensor:
        return output * (1 + ROUNDING * torch.randn(output.shape, generator=generator))

    for name, module in network.named_modules():
        if name.rpartition(".")[2].lower().endswith("norm"):
            module.register_forward_hook(disturb)
    return TorchSegmenter(network, segmenter.preprocessing)


def compare(
    host: EvaluationResult, arm: EvaluationResult, reference: EvaluationResult | None, names: Sequence[str]
) -> dict[str, Any]:
    """Agreement of every image and of all pixels, and what each side scores."""
    return {
        "agreement": arm.agreement["host"],
        "per_image": dict(zip(names, _per_image(host, arm), strict=True)),
        "miou_host": host.miou,
        "miou_arm": arm.miou,
        "reference_agreement_host": host.agreement["reference"] if reference else None,
        "reference_agreement_arm": arm.agreement["reference"] if reference else None,
    }


def _per_image(host: EvaluationResult, arm: EvaluationResult) -> list[float]:
    assert host.predictions is not None and arm.predictions is not None
    return [agreement(a, b) for a, b in zip(host.predictions, arm.predictions, strict=True)]


def _score(
    predict: Predict, dataset: SegmentationDataset, others: Mapping[str, EvaluationResult], name: str
) -> EvaluationResult:
    maps: dict[str, Sequence[npt.NDArray[np.uint8]]] = {
        key: other.predictions for key, other in others.items() if other.predictions is not None
    }
    return evaluate(predict, dataset, keep_predictions=True, compare=maps, description=name)


def _print(file: Path, cpu: str, figures: Mapping[str, Any]) -> None:
    print(f"\n{file.name} on {cpu} against {platform.machine()}")
    for name, share in figures["per_image"].items():
        print(f"  {name:24} {share:8.3%}")
    print(f"  {'all pixels':24} {figures['agreement']:8.3%}")
    print(f"  mIoU {figures['miou_arm']:.4f} against {figures['miou_host']:.4f}")
    if figures["reference_agreement_arm"] is not None:
        arm, host = figures["reference_agreement_arm"], figures["reference_agreement_host"]
        print(f"  equal to the quantized reference in torch: {arm:.3%} against {host:.3%}")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison; 1 where a file agrees on less than REQUIRED of the pixels."""
    parser = Parser("python benchmarks/arm_agreement.py", "Exported files on emulated ARM against this machine.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="exported .tflite or .onnx files")
    parser.add_argument("--data", required=True, metavar="DATASET", help="like camvid:DIR:val, or demo")
    parser.add_argument("--images", type=int, default=8, metavar="N", help="images, evenly spaced (default 8)")
    parser.add_argument("--on", default="cortex-a72", metavar="CPU,...", help="emulated CPUs (default cortex-a72)")
    parser.add_argument("--weights", metavar="W", help="the checkpoint, for the quantized reference in torch")
    parser.add_argument("--json", action="store_true", help="only JSON on stdout")
    options = parser.parse_args(argv)
    cpus: list[str] = options.on.split(",")
    if options.images < 1:
        raise UsageError(f"--images is at least 1; got {options.images}.")
    for cpu in cpus:
        open_cpu(cpu)
    dataset = EvenlySpaced(open_dataset(options.data), options.images)
    names = [sample.name for sample in dataset]
    for file in options.files:
        check_classes(str(file), ArtifactMetadata.load(file).class_names, dataset)
    reference, noisy = None, None
    if options.weights:
        network = quantized_reference(options.weights, options.files)
        reference = _score(network, dataset, {}, "quantized reference")
        noisy = _score(with_rounding_errors(network), dataset, {"reference": reference}, "with rounding errors")
        if not options.json:
            print(f"quantized reference in torch: mIoU {reference.miou:.4f}")
            print(f"with one rounding error more: mIoU {noisy.miou:.4f}, {noisy.agreement['reference']:.3%} equal")
    others = {"reference": reference} if reference else {}
    results = []
    for file in options.files:
        host = _score(Segmenter.load(file), dataset, others, f"{file.name} here")
        for cpu in cpus:
            with EmulatedSegmenter(file, cpu) as segmenter:
                arm = _score(segmenter, dataset, {**others, "host": host}, f"{file.name} on {cpu}")
                tools = segmenter.versions
            figures = {"file": file.name, "cpu": cpu, "tools": tools, **compare(host, arm, reference, names)}
            results.append(figures)
            if not options.json:
                _print(file, cpu, figures)
    if options.json:
        figures = {
            "dataset": dataset.name,
            "images": len(dataset),
            "miou_reference": reference.miou if reference else None,
            "reference_agreement_with_rounding_errors": noisy.agreement["reference"] if noisy else None,
            "results": results,
        }
        print(json.dumps(figures, indent=2))
    for each in results:
        if each["agreement"] < REQUIRED:
            print(f"{each['file']} on {each['cpu']}: {each['agreement']:.3%}, below {REQUIRED:.1%}", file=sys.stderr)
    return EXIT_OK if all(figures["agreement"] >= REQUIRED for figures in results) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(run(main))
