"""A JVM in this process, beside ExecuTorch's Python binding, whose library holds the runtime.

``python -m androidkit.host BRIDGE CLASSPATH MAIN_CLASS ARGUMENT...``; a process of its own each time.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run MAIN_CLASS's main; the exit code says whether it threw."""
    bridge, classpath, main_class, *words = arguments
    binding = importlib.import_module("executorch.extension.pybindings._portable_lib")
    importlib.import_module("executorch.kernels.quantized")
    # One thread, as the SDK's own runtime has by default.
    binding._unsafe_reset_threadpool(1)
    # The bridge takes the runtime's symbols from the process.
    ctypes.CDLL(binding.__file__, mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(bridge)
    options = [f"-Djava.class.path={classpath}", f"-Dbridge={bridge}", "-Xmx512m"]
    main_class = main_class.replace(".", "/")
    return int(library.run_java(len(options), _texts(options), main_class.encode(), len(words), _texts(words)))


def _texts(values: Sequence[str]) -> ctypes.Array:
    return (ctypes.c_char_p * len(values))(*(value.encode() for value in values))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    # The JVM and Python's libraries take each other's threads down; there is nothing left to save.
    os._exit(code)
