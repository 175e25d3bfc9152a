"""Small inputs for training: a head with ARKit controls and landmarks, settings for a few steps, a noting reporter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from headstudio.condition.topology import LANDMARK_INDICES
from headstudio.heads.arrays import Controls, HeadArrays
from headstudio.heads.expressions import ARKIT_NAMES
from headstudio.train.progress import Progress, SilentReporter
from headstudio.train.settings import CameraRanges, TrainSettings
from support.synthetic_head import synthetic_head

# Every part of the loop has its turn within six steps: densify at 2, prune at 4, freeze the shape after 4.
SIX_STEPS = TrainSettings(
    steps=6,
    views=3,
    render_size=32,
    splats=300,
    cameras=CameraRanges(distance=(1.8, 2.6), fov_y=(40.0, 55.0)),
    shape_freeze=0.66,
    densify_from=0.33,
    densify_until=0.33,
    densify_threshold=0.08,
    prune_at=(0.66,),
    prune_opacity=0.1,
    late_from=0.5,
    final_lr=0.5,
    snapshot_every=2,
    checkpoint_every=2,
)


def arkit_head() -> HeadArrays:
    """The synthetic head, whose sliders are ARKit's and move it at random, and whose face has landmarks."""
    head = synthetic_head()
    rng = np.random.default_rng(0)
    controls = Controls(
        ARKIT_NAMES,
        rng.normal(0, 0.1, (len(ARKIT_NAMES), len(head.expression_names))).astype(np.float32),
        np.zeros((len(ARKIT_NAMES), len(head.joint_names), 3), np.float32),
    )
    count = len(head.landmarks.indices)
    return replace(
        head,
        controls=controls,
        landmarks=replace(head.landmarks, indices=np.asarray(LANDMARK_INDICES[:count], np.int32)),
    )


class Notes(SilentReporter):
    """Keeps what the loop tells, and asks for a stop after a step."""

    def __init__(self, stop_after: int | None = None):
        self.stop_after = stop_after
        self.progresses: list[Progress] = []
        self.snapshots: list[tuple[int, object]] = []
        self.warnings: list[str] = []

    def progress(self, progress):
        self.progresses.append(progress)

    def snapshot(self, avatar, step):
        self.snapshots.append((step, avatar))

    def warning(self, message):
        self.warnings.append(message)

    def should_stop(self):
        return self.stop_after is not None and self.progresses[-1].step >= self.stop_after
