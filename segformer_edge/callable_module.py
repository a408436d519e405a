"""Modules that are called like the function in them: ``segformer_edge.quantize(...)``.

``python -m segformer_edge.quantize`` needs a module of that name, and importing it makes it an attribute of the
package. Were the function another object, ``segformer_edge.quantize`` would be the one or the other by what was
imported before. So the module itself can be called. That a module's ``__class__`` may be set is in Python's reference,
"Customizing module attribute access".
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module with ``__wrapped__``, the function that calling it calls; ``inspect.signature`` shows that one's."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """As the function."""
        return self.__wrapped__(*arguments, **options)


def make_callable(name: str, function: Callable[..., Any]) -> None:
    """Let the imported module ``name`` be called as ``function``."""
    module = sys.modules[name]
    module.__class__ = CallableModule
    module.__wrapped__ = function  # type: ignore[attr-defined]
