"""Runs exported files on emulated ARM CPUs: the ARM builds of Python and the runtimes under QEMU's user mode.

>>> from segformer_edge.emulation.segmenter import EmulatedSegmenter
>>> with EmulatedSegmenter("out/model.tflite", "cortex-a72") as segmenter:
...     labels = segmenter(image)  # as Segmenter, some 15 to 60 times slower

What comes out is what the ARM kernels compute. Wall time says nothing about a real board.
"""
