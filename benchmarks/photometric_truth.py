"""The ground truth of the photometric fit: a painted avatar on the default head, and posed pictures of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from headstudio.avatar.binding import triangle_frames
from headstudio.avatar.initialise import super_dense
from headstudio.avatar.rigged import RiggedAvatar
from headstudio.avatar.sh_rotation import SH_C0
from headstudio.camera import Camera, orbit
from headstudio.heads.arrays import HeadArrays
from headstudio.heads.head import Head
from headstudio.rasterise.rasterise import rasterise
from torch import Tensor


@dataclass(frozen=True)
class Pictures:
    """V posed pictures of the truth over black."""

    images: Tensor  # [V, H, W, 3]
    alpha: Tensor  # [V, H, W]
    cameras: Camera  # V cameras
    expressions: Tensor  # [V, E]
    joints: Tensor  # [V, J, 3]


REGION_COLOURS = {
    "lips": (0.70, 0.27, 0.27),
    "brow_left": (0.20, 0.12, 0.08),
    "brow_right": (0.20, 0.12, 0.08),
    "socket_left": (0.55, 0.30, 0.26),
    "socket_right": (0.55, 0.30, 0.26),
    "eyeball_left": (0.93, 0.91, 0.89),
    "eyeball_right": (0.93, 0.91, 0.89),
    "iris_left": (0.25, 0.45, 0.60),
    "iris_right": (0.25, 0.45, 0.60),
    "pupil_left": (0.03, 0.03, 0.03),
    "pupil_right": (0.03, 0.03, 0.03),
    "mouth_cavity": (0.30, 0.07, 0.08),
    "teeth_upper": (0.93, 0.90, 0.82),
    "teeth_lower": (0.90, 0.86, 0.78),
    "tongue": (0.75, 0.35, 0.36),
    "scalp": (0.30, 0.13, 0.05),
}
SKIN = ("face", "nose", "chin_beard", "moustache", "neck", "ear_left", "ear_right", "lid_left", "lid_right")


def truth(arrays: HeadArrays, points: int, seed: int = 1) -> RiggedAvatar:
    """Flat opaque splats on the default head: skin with blotches, freckles and blush, parted hair that stands out by a
    centimetre, and every other part in a colour of its own."""
    head = Head(arrays)
    generator = torch.Generator().manual_seed(seed)
    gaussians = super_dense(head.template, head.triangles, generator=generator, count=points)
    frames = triangle_frames(head.template, head.triangles)
    place = gaussians.pose(head.template, head.triangles).means / arrays.unit
    x, y, z = place.unbind(1)
    region = torch.as_tensor(arrays.region.astype(np.int64))[gaussians.triangle]

    def inside(*names: str) -> Tensor:
        return torch.isin(region, torch.tensor([arrays.region_names.index(name) for name in names])).float()

    def noise(frequency: float, salt: int) -> Tensor:
        """A smooth field in about -1..1 over the surface."""
        rng = torch.Generator().manual_seed(1000 * seed + salt)
        waves = frequency * torch.randn(12, 3, generator=rng)
        phase = 6.3 * torch.rand(12, generator=rng)
        return (place @ waves.T + phase).sin().mean(1) * 2

    def mix(base: Tensor, colour: tuple[float, float, float], amount: Tensor) -> Tensor:
        return base + amount.clamp(0, 1).unsqueeze(1) * (torch.tensor(colour) - base)

    skin, hair = inside(*SKIN), inside("scalp")
    colour = torch.tensor([0.80, 0.60, 0.50]).expand(len(place), 3)
    colour = mix(colour, (0.93, 0.74, 0.62), 0.5 + 0.5 * noise(4, 1))
    eyes, lips = (place[inside(*names).bool()] for names in (("iris_left",), ("lips",)))
    cheek = torch.stack([eyes[:, 0].mean(), 0.45 * eyes[:, 1].mean() + 0.55 * lips[:, 1].mean(), lips[:, 2].mean()])
    distance = (torch.stack([x.abs(), y, z], 1) - cheek).norm(dim=1)
    colour = mix(colour, (0.86, 0.42, 0.38), 0.7 * torch.exp(-((distance / 0.16) ** 2)))
    colour = mix(colour, (0.55, 0.33, 0.22), 4 * (noise(30, 2) - 0.5) * inside("face", "nose"))
    for name, paint in REGION_COLOURS.items():
        colour = mix(colour, paint, inside(name))
    strands = 0.5 + 0.5 * (26 * torch.atan2(x, z) + 3 * noise(6, 3)).sin()
    colour = mix(colour, (0.62, 0.36, 0.14), 0.8 * hair * strands)
    colour = colour + 0.03 * skin.unsqueeze(1) * torch.randn(len(place), 1, generator=generator)
    gaussians.sh[:, 0] = (colour.clamp(0.02, 0.98) - 0.5) / SH_C0

    size = frames.area.sqrt()[gaussians.triangle]
    # The columns of a frame are edge, normal, edge x normal: thin along the normal, wide enough to close the surface
    gaussians.log_scales += torch.tensor([1.0, 0.2, 1.0]).log()
    gaussians.log_scales[:, 0] += 0.3 * torch.randn(len(place), generator=generator)
    gaussians.offsets[:, 1] += hair * (0.04 + 0.02 * strands) * arrays.unit / size
    turn = np.pi * torch.rand(len(place), generator=generator)  # about the normal, the second axis
    zero = torch.zeros_like(turn)
    gaussians.quats = torch.stack([(turn / 2).cos(), zero, (turn / 2).sin(), zero], 1)
    gaussians.opacity_logits.fill_(4.0)
    return RiggedAvatar(head, gaussians)


def random_poses(head: Head, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Expressions [P, E] and joints [P, J, 3]: the head at rest first, then two to four sliders at 0.4 to 1 each, and
    small turns of the neck, jaw and eyes."""
    rng = np.random.default_rng(seed)
    sliders = torch.zeros(count, len(head.arrays.controls.names))
    for row in range(1, count):
        chosen = rng.choice(sliders.shape[1], rng.integers(2, 5), replace=False)
        sliders[row, chosen] = torch.as_tensor(rng.uniform(0.4, 1, len(chosen)), dtype=torch.float32)
    expressions, joints = head.drive(sliders)
    extra = torch.as_tensor(rng.normal(0, 1, joints.shape), dtype=torch.float32)
    names = list(head.arrays.joint_names)
    extra *= torch.tensor([{"neck": 0.15, "eye_left": 0.1, "eye_right": 0.1}.get(name, 0.0) for name in names])[:, None]
    extra[0] = 0
    return expressions, joints + extra


def ring(arrays: HeadArrays, count: int, size: int, phase: float) -> Camera:
    """``count`` cameras around the head, azimuths evenly from ``phase`` (in steps), elevations alternating."""
    index = torch.arange(count)
    azimuth = (index + phase) * 360 / count - 180
    elevation = torch.tensor([-12.0, 5.0, 22.0])[index % 3] + 7 * phase
    centre = torch.as_tensor(arrays.centre, dtype=torch.float32)
    return orbit(azimuth, elevation, 2.6 * arrays.unit * torch.ones(count), 42.0, size, centre)


@torch.no_grad()
def picture(avatar: RiggedAvatar, cameras: Camera, expressions: Tensor, joints: Tensor) -> Pictures:
    """Every camera with every pose: V = cameras x poses."""
    renders, index = [], []
    for pose in range(len(expressions)):
        gaussians = avatar.pose(expressions[pose], joints[pose])
        for view in range(len(cameras)):
            renders.append(rasterise(gaussians, cameras[view]))
            index.append((pose, view))
    poses, views = torch.tensor(index).unbind(1)
    return Pictures(
        images=torch.stack([render.colour for render in renders]).clamp(0, 1),
        alpha=torch.stack([render.alpha for render in renders]),
        cameras=cameras[views],
        expressions=expressions[poses],
        joints=joints[poses],
    )
