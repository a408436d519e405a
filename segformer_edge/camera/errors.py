"""What goes wrong with a source of pictures."""

from __future__ import annotations

from segformer_edge.errors import SegformerEdgeError


class CameraError(SegformerEdgeError):
    """The camera went away and did not come back (exit code 1)."""


class EndOfFramesError(Exception):
    """A file has no more frames."""


class BadFrameError(Exception):
    """One frame cannot be used; the next may be good."""


class SourceLostError(Exception):
    """The camera gives nothing any more; opening it again may help."""
