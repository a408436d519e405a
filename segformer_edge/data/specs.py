"""How users write a data set. Apart from the readers, so that a page of help imports neither numpy nor OpenCV."""

from __future__ import annotations

#: Layout -> how it is written.
USAGES = {
    "camvid": "camvid:DIR:val",
    "ade20k": "ade20k:DIR",
    "cityscapes": "cityscapes:DIR",
    "folder": "folder:DIR",
}


def dataset_specs() -> tuple[str, ...]:
    """Every form of spec, for help texts."""
    return (*USAGES.values(), "demo")
