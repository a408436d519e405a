"""Demo scenes as a clip, and sessions that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from segformer_edge.camera.config import CameraConfig
from segformer_edge.camera.session import CameraSession
from segformer_edge.camera.sources import open_source
from segformer_edge.data.scenes import draw_scene
from segformer_edge.runtime.segmenter import Segmenter
from tests.camera.kit import CLIP_FRAMES, CLIP_SIZE, StubSegmenter, write_clip


@pytest.fixture(scope="session")
def scenes() -> list[np.ndarray]:
    """Demo scenes, uint8 RGB."""
    return [draw_scene(seed, CLIP_SIZE)[0] for seed in range(CLIP_FRAMES)]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory, scenes: list[np.ndarray]) -> Path:
    """The scenes as a lossless clip."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.avi", scenes)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> StubSegmenter:
    """The command's segmenter, whatever file it is given."""
    segmenter = StubSegmenter()
    monkeypatch.setattr(Segmenter, "load", lambda *_, **__: segmenter)
    return segmenter


@pytest.fixture
def start() -> Iterator[Callable[..., CameraSession]]:
    """``start(config, segmenter=..., cameras=[...])``: a session that runs; a lost camera is the list's next one."""
    sessions = []

    def make(config: CameraConfig, segmenter=None, cameras=None, **more) -> CameraSession:
        cameras = list(cameras or [])

        def opener():
            if not cameras:
                return open_source(config)
            entry = cameras.pop(0) if len(cameras) > 1 else cameras[0]
            if isinstance(entry, Exception):
                raise entry
            return entry

        session = CameraSession(segmenter or StubSegmenter(), opener(), opener, config, **more)
        sessions.append(session)
        session.start()
        return session

    yield make
    for session in sessions:
        session.close(keep_recording=False)
