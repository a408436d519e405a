"""SegFormer on devices with little memory: INT8 files for four runtimes, each file run and measured."""

__version__ = "0.1.0"
