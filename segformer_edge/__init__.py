"""SegFormer on devices with little memory: INT8 files for ExecuTorch, LiteRT, OpenVINO and ONNX, each run and measured."""

__version__ = "0.1.0"
