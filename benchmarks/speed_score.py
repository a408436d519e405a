"""mIoU of a default pipeline's file: it has no sidecar, so what goes in and comes out is read from the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segformer_edge.data.processing import IMAGENET_MEAN, IMAGENET_STD
from segformer_edge.data.sample import SegmentationDataset
from segformer_edge.errors import ArtifactError
from segformer_edge.evaluation import evaluate
from segformer_edge.memory.subjects import FLOAT32
from segformer_edge.runtime.base import load_runtime
from segformer_edge.runtime.formats import format_of
from segformer_edge.runtime.metadata import ArtifactMetadata, InputSpec, Normalisation, OutputSpec, WeightsSource
from segformer_edge.runtime.segmenter import Segmenter


@contextmanager
def _set_up(variant: str) -> Iterator[None]:
    """Of the setups of runtimes that differ in their numbers: OpenVINO without bfloat16."""
    if variant != FLOAT32:
        yield
        return
    from segformer_edge.runtime.openvino import shared_core

    name = "INFERENCE_PRECISION_HINT"
    before = shared_core().get_property("CPU", name)
    shared_core().set_property("CPU", {name: "f32"})
    try:
        yield
    finally:
        shared_core().set_property("CPU", {name: before})


def score(file: Path, dataset: SegmentationDataset, limit: int | None, sidecar: bool, variant: str = "") -> float:
    """mIoU of ``file`` on the first ``limit`` images; with ``sidecar`` it is one of ours.

    ``variant`` is the setup that was timed. Raises SegformerEdgeError, or what its runtime raises.
    """
    with _set_up(variant):
        if sidecar:
            segmenter = Segmenter.load(file)
        else:
            metadata = described(file, dataset.class_names)
            segmenter = Segmenter(metadata, load_runtime(file, metadata, 1))
    return evaluate(segmenter, dataset, limit=limit, description=file.name).miou


def described(file: Path, class_names: Sequence[str]) -> ArtifactMetadata:
    """What a sidecar would say of a file with one NCHW image in and NCHW logits out, as all default pipelines make."""
    taken, given = _tflite(file) if file.suffix == ".tflite" else _float(file)
    shape = tuple(taken.shape)
    if len(shape) != 4 or shape[1] != 3 or len(given.shape) != 4:
        raise ArtifactError(f"'{file.name}' takes {shape} and gives {given.shape}, not an NCHW image and logits.")
    return ArtifactMetadata(
        format=format_of(file).name,
        file=file.name,
        model="custom",
        target="default",
        size=(shape[2], shape[3]),
        input=taken,
        output=given,
        normalisation=Normalisation(IMAGENET_MEAN, IMAGENET_STD),
        class_names=tuple(class_names),
        palette=tuple((i, i, i) for i in range(len(class_names))),
        recipe="default",
        weights=WeightsSource("default pipeline", None, None),
        tools={},
        files={},
    )


def _tflite(file: Path) -> tuple[InputSpec, OutputSpec]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def fields(entry: dict[str, Any]) -> tuple[Any, ...]:
        scale, zero_point = entry["quantization"]
        parameters = (float(scale), int(zero_point)) if scale else (None, None)
        return (entry["dtype"].__name__, *parameters)

    shapes = [tuple(map(int, entry["shape"])) for entry in (taken, given)]
    return (
        InputSpec(taken["name"], shapes[0], "nchw", *fields(taken)),
        OutputSpec(given["name"], "logits", shapes[1], "nchw", *fields(given)),
    )


def _float(file: Path) -> tuple[InputSpec, OutputSpec]:
    """Of the formats whose default pipelines take and give float32; shapes as their runtimes tell them."""
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        (taken,), (given,) = session.get_inputs(), session.get_outputs()
        shapes, names = (taken.shape, given.shape), (taken.name, given.name)
    elif file.suffix == ".xml":
        from segformer_edge.runtime.openvino import shared_core

        model = shared_core().read_model(str(file))
        shapes, names = (model.input(0).shape, model.output(0).shape), (None, None)
    else:
        from executorch.runtime import Runtime

        about = Runtime.get().load_program(str(file)).load_method("forward").metadata
        shapes, names = (about.input_tensor_meta(0).sizes(), about.output_tensor_meta(0).sizes()), (None, None)
    taken_shape, given_shape = (tuple(map(int, shape)) for shape in shapes)
    return (
        InputSpec(names[0], taken_shape, "nchw", "float32"),
        OutputSpec(names[1], "logits", given_shape, "nchw", "float32"),
    )
