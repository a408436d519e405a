"""Accuracy evidence on a real checkpoint: transformers against this project's float32 model, then the INT8 files.

    python benchmarks/evidence.py --weights DIR --data camvid:DIR:val --calibration DIR --size 384x512

``--weights`` is a folder in Hugging Face layout, since transformers has to read it too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from segformer_edge.cli import Parser, parse_size, run
from segformer_edge.data.datasets import open_dataset
from segformer_edge.data.processing import Preprocessing
from segformer_edge.evaluation import TorchSegmenter, evaluate
from segformer_edge.model.checkpoint import load_checkpoint

#: How far the float32 mIoU of the two implementations may lie apart.
TOLERANCE = 0.0005


def transformers_predictor(weights: str, preprocessing: Preprocessing):  # type: ignore[no-untyped-def]
    """Label maps from transformers' model and torch's full-size bilinear upsampling; only the image resize is ours."""
    from transformers import SegformerForSemanticSegmentation

    model = SegformerForSemanticSegmentation.from_pretrained(weights).eval()

    def predict(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        with torch.inference_mode():
            logits = model(torch.from_numpy(preprocessing(image))).logits
            full = torch.nn.functional.interpolate(logits, image.shape[:2], mode="bilinear", align_corners=False)
        labels: npt.NDArray[np.uint8] = full[0].argmax(0).to(torch.uint8).numpy()
        return labels

    return predict


def main(argv: Sequence[str] | None = None) -> int:
    """Print both float32 scores as JSON, then run the quantize command; returns its exit code, or 1."""
    parser = Parser("python benchmarks/evidence.py", "Float32 parity with transformers, then the INT8 files.")
    parser.add_argument("--weights", required=True, metavar="DIR", help="a folder in Hugging Face layout")
    parser.add_argument("--data", required=True, metavar="DATASET", help="like camvid:DIR:val")
    parser.add_argument("--calibration", required=True, metavar="DIR", help="images to calibrate on")
    parser.add_argument("--size", default="384x512", metavar="HxW", help="network input")
    parser.add_argument("--out", type=Path, default=Path("out/evidence"), metavar="DIR", help="output folder")
    options = parser.parse_args(argv)
    preprocessing, dataset = Preprocessing(parse_size(options.size)), open_dataset(options.data)
    ours = TorchSegmenter(load_checkpoint(options.weights).model, preprocessing)
    theirs = evaluate(
        transformers_predictor(options.weights, preprocessing),
        dataset,
        keep_predictions=True,
        description="transformers",
    )
    assert theirs.predictions is not None
    result = evaluate(ours, dataset, compare={"transformers": theirs.predictions}, description="segformer_edge")
    difference = abs(theirs.miou - result.miou)
    figures = {
        "transformers_miou": theirs.miou,
        "segformer_edge_miou": result.miou,
        "difference": difference,
        "agreement": result.agreement["transformers"],
        "images": result.images,
    }
    print(json.dumps(figures, indent=2), flush=True)
    code = subprocess.run(
        [
            *(sys.executable, "-m", "segformer_edge.quantize", "--weights", options.weights, "--size", options.size),
            *("--calibration", options.calibration, "--eval", options.data, "--out", str(options.out), "--force"),
        ]
    ).returncode
    return code or int(difference >= TOLERANCE)


if __name__ == "__main__":
    sys.exit(run(main))
