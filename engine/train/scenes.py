"""What a step's pictures show: random cameras around one expression and pose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..camera import Camera, joined
from ..condition.landmarks import face_middle
from ..guidance.prompts import PromptEmbeddings, Texts
from ..heads.head import Head
from ..motion.generators import MotionSampler
from .cameras import face_azimuth, sample_cameras, sample_close_ups
from .settings import CameraRanges, TrainSettings


@dataclass(frozen=True)
class Scene:
    """V pictures of one expression and pose."""

    camera: Camera  # of V views
    background: Tensor  # [V, 3] sRGB
    texts: Texts  # of V views
    expression: Tensor  # [E]
    joints: Tensor  # [J, 3] axis-angle, radians
    close_up: Tensor  # [V] bool: the picture shows the face alone

    def __len__(self) -> int:
        return len(self.background)

    def vertices(self, head: Head, identity: Tensor) -> Tensor:  # [S] -> [N, 3] metres
        return head(self.expression[None], self.joints[None], identity[None])[0]

    def part(self, rows: slice) -> Scene:
        texts = replace(self.texts, positive=self.texts.positive[rows])
        return replace(
            self,
            camera=self.camera[rows],
            background=self.background[rows],
            texts=texts,
            close_up=self.close_up[rows],
        )

    def parts(self, at_once: int) -> Iterator[tuple[slice, Scene]]:
        """The scene's rows and what they hold, at most ``at_once`` views each."""
        for start in range(0, len(self), at_once):
            rows = slice(start, start + at_once)
            yield rows, self.part(rows)


class SceneSampler:
    """Draws scenes as the settings say; the same random numbers give the same scene."""

    def __init__(self, settings: TrainSettings, head: Head, texts: PromptEmbeddings):
        self.settings, self.head, self.texts = settings, head, texts
        self.motion = MotionSampler(head.arrays)

    def __call__(self, numbers: np.random.Generator, close_ups: int = 0, cameras: CameraRanges | None = None) -> Scene:
        """A scene whose last ``close_ups`` pictures show the face alone; ``cameras`` instead of the settings'."""
        settings, arrays, device = self.settings, self.head.arrays, self.head.device
        size, ranges = settings.render_size, cameras or settings.cameras
        camera, azimuth = sample_cameras(settings.views - close_ups, arrays, size, ranges, numbers)
        expression, joints = self.motion.sample(numbers)
        if numbers.random() < settings.neutral_share:
            expression, joints = np.zeros_like(expression), np.zeros_like(joints)
        turn = face_azimuth(arrays, joints)
        expression, joints = (torch.as_tensor(values).to(device) for values in (expression, joints))
        if close_ups:
            vertices = self.head(expression[None], joints[None])
            face = face_middle(arrays, vertices)[0].cpu()
            close, close_azimuth = sample_close_ups(close_ups, face, turn, arrays.unit, size, ranges, numbers)
            camera, azimuth = joined(camera, close), torch.cat([azimuth, close_azimuth])
        return Scene(
            camera=camera.to(device),
            background=backgrounds(settings, numbers).to(device),
            texts=self.texts.at(azimuth - turn),
            expression=expression,
            joints=joints,
            close_up=torch.arange(settings.views) >= settings.views - close_ups,
        )


def backgrounds(settings: TrainSettings, rng: np.random.Generator) -> Tensor:  # [V, 3]
    """Solid colours. Random ones stop the splats from hiding behind a colour that is always there."""
    fixed = {"black": 0.0, "white": 1.0}
    if settings.background in fixed:
        return torch.full((settings.views, 3), fixed[settings.background])
    if settings.background == "grey":
        return torch.as_tensor(rng.uniform(0.45, 0.6, (settings.views, 1)), dtype=torch.float32).expand(-1, 3)
    return torch.as_tensor(rng.random((settings.views, 3)), dtype=torch.float32)
