"""One training picture: a character built as Gaussians on the default head, posed and seen by a camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..avatar.binding import triangle_frames
from ..avatar.rigged import RiggedGaussians
from ..camera import Camera, orbit
from ..condition.landmarks import face_middle
from ..condition.picture import condition_image
from ..guidance.prompts import view_index
from ..heads.default_head import default_head
from ..heads.expressions import PRESETS
from ..heads.head import Head
from ..motion.generators import MotionSampler
from ..rasterise import rasterise
from ..train.cameras import CLOSE_UP, CLOSE_UP_AZIMUTH
from .body import Body, SkinPoints
from .character import Character
from .cloud import bind_cloud, joined
from .hair import grow_beard, grow_brows, grow_hair, grow_lashes
from .identity import sample_identity
from .paint import paint_skin
from .vocabulary import MOODS
from .worn import make_extras, make_eyewear, make_headgear

PICTURE = 128
HALF_PICTURE = (0.97, 1.18)  # half the side of what is seen at the head's distance, in the head's units


@dataclass(frozen=True)
class Model:
    """A character as rigged Gaussians, with the identity of the head that they are bound to."""

    character: Character
    gaussians: RiggedGaussians
    identity: Tensor  # [S]


@dataclass(frozen=True)
class Picture:
    """One view of a model."""

    rgba: np.ndarray  # [S, S, 4] uint8: sRGB over black, and coverage
    condition: np.ndarray  # [S, S, 3] uint8
    character: Character
    mood: str  # a key of MOODS or ""
    view: int  # row of VIEW_SUFFIXES


class Studio:
    """The default head and what is needed to build characters on it and to photograph them."""

    def __init__(self) -> None:
        self.arrays = default_head()
        self.head = Head(self.arrays)
        self.skin = SkinPoints.of(self.arrays)
        self.motion = MotionSampler(self.arrays)

    def build(self, character: Character) -> Model:
        """The same character always becomes the same model."""
        rng = np.random.default_rng([character.seed, 1])
        identity = sample_identity(character, self.arrays, rng)
        body = Body(self.arrays, self.skin, identity)
        clouds = [paint_skin(character, body, rng)]
        for make in (grow_hair, grow_beard, grow_brows, grow_lashes, make_headgear, make_eyewear, make_extras):
            clouds.extend(make(character, body, rng))
        if character.makeup == "statue":
            stone = clouds[0].colours[0]
            grey = [cloud.colours.mean(1, keepdims=True) for cloud in clouds[1:]]
            clouds[1:] = [
                type(c)(c.points, c.axes, c.scales, stone * (0.75 + 0.25 * g / g.max()), c.opacities, c.triangles)
                for c, g in zip(clouds[1:], grey, strict=True)
            ]
        vertices = torch.from_numpy(body.vertices.astype(np.float32))
        frames = triangle_frames(vertices, self.head.triangles)
        return Model(character, bind_cloud(joined(clouds), frames), torch.from_numpy(identity))

    def photograph(self, model: Model, rng: np.random.Generator, close_up: bool = False) -> Picture:
        """A random expression, pose and camera, which sees the whole head, or the face alone."""
        mood = str(rng.choice(list(MOODS))) if rng.random() < 0.3 else ""
        expression, joints = self._pose(mood, rng)
        vertices = self.head(expression[None], joints[None], model.identity[None])
        camera, azimuth = self._close_camera(vertices, rng) if close_up else self._camera(rng)
        gaussians = model.gaussians.pose(vertices[0], self.head.triangles)
        rgba = photograph(gaussians, camera)
        condition, _ = condition_image(self.arrays, vertices, camera, PICTURE, all_round=True)
        return Picture(
            rgba=rgba,
            condition=(condition[0].numpy() * 255).round().astype(np.uint8),
            character=model.character,
            mood=mood,
            view=int(view_index(azimuth)[0]),
        )

    def _pose(self, mood: str, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        expression, joints = self.motion.sample(rng)
        if mood:
            preset = PRESETS[str(rng.choice(MOODS[mood]))]
            strength = rng.uniform(0.6, 1.0)
            face, jaw = self.arrays.drive({name: value * strength for name, value in preset.items()})
            neck = joints[1].copy()
            expression, joints = face, jaw
            joints[1] += neck
        elif rng.random() < 0.3:  # at rest
            expression, joints = np.zeros_like(expression), np.zeros_like(joints)
        return torch.from_numpy(expression), torch.from_numpy(joints)

    def _camera(self, rng: np.random.Generator) -> tuple[Camera, Tensor]:
        # A good part from before the face: that is where there is most to learn. Heads fill the picture as they do in
        # the draft preset's cameras: where and how large a head is need not be learnt as well.
        azimuth = rng.uniform(-60, 60) if rng.random() < 0.4 else rng.uniform(-180, 180)
        fov = rng.uniform(44, 52)
        distance = rng.uniform(*HALF_PICTURE) / np.tan(np.radians(fov) / 2)
        camera = orbit([azimuth], [rng.triangular(-32, 4, 32)], [distance * self.arrays.unit], [fov], PICTURE,
                       torch.as_tensor(self.arrays.centre, dtype=torch.float32))  # fmt: skip
        return camera, torch.tensor([azimuth])

    def _close_camera(
        self,
        vertices: Tensor,  # [1, N, 3] posed
        rng: np.random.Generator,
    ) -> tuple[Camera, Tensor]:
        azimuth = rng.uniform(-CLOSE_UP_AZIMUTH, CLOSE_UP_AZIMUTH)
        fov = rng.uniform(21, 25)
        distance = rng.uniform(*HALF_PICTURE) * rng.uniform(*CLOSE_UP) / np.tan(np.radians(fov) / 2)
        camera = orbit([azimuth], [rng.triangular(-32, 4, 32)], [distance * self.arrays.unit], [fov], PICTURE,
                       face_middle(self.arrays, vertices))  # fmt: skip
        return camera, torch.tensor([azimuth])


@torch.no_grad()
def photograph(gaussians, camera: Camera) -> np.ndarray:  # [S, S, 4] uint8
    """Rendered at twice the size and averaged, which is how the prior sees an avatar's renders."""
    large = camera.resized(2 * camera.width, 2 * camera.height)
    render = rasterise(gaussians, large)
    rgba = torch.cat([render.colour[0].clamp(0, 1), render.alpha[0][..., None]], -1)
    small = torch.nn.functional.avg_pool2d(rgba.permute(2, 0, 1)[None], 2)[0].permute(1, 2, 0)
    return (small * 255).round().byte().numpy()
