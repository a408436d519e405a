"""One run over every NPU, shared by the tests. The compiler must be there: a missing one is a failure, not a skip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from quantization.encodings import apply_encodings
from segformer_edge.ethos_u.configurations import CONFIGURATIONS
from segformer_edge.ethos_u.vela import vela_version
from segformer_edge.export.tflite_graph import EmittedGraph
from segformer_edge.export.tflite_write import tflite_bytes
from segformer_edge.model.checkpoint import load_checkpoint
from segformer_edge.rewrite.graph import EdgeSegFormer

SIZE = (64, 64)


@pytest.fixture(scope="session", autouse=True)
def compiler() -> str:
    """The compiler's version. Without it every test here fails with the command that installs it."""
    return vela_version()


@pytest.fixture(scope="session")
def npu_run(run_quantize: Callable[..., Any], tiny_weights: Path) -> Any:
    """All configurations from the tiny checkpoint, with their own recipe."""
    return run_quantize(tiny_weights, SIZE, targets=",".join(CONFIGURATIONS))


@pytest.fixture(scope="session")
def calibrated(npu_run: Any) -> Callable[[str], EdgeSegFormer]:
    """Makes the run's network anew, for logits or labels."""

    def make(output: str = "logits") -> EdgeSegFormer:
        network = EdgeSegFormer(load_checkpoint(str(npu_run.weights)).model, output)
        apply_encodings(network, npu_run.encodings)
        return network

    return make


def run_graph(graph: EmittedGraph, image: np.ndarray) -> np.ndarray:
    """What LiteRT's reference kernels make of integers ``image``."""
    torch.set_num_threads(1)
    interpreter = Interpreter(
        model_content=tflite_bytes(graph), experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
