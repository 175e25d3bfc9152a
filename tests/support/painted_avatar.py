"""An avatar whose truth is known: opaque splats on every triangle, in a colour per region."""

from __future__ import annotations

import functools

import numpy as np
import torch
from headstudio.avatar.file import Avatar, bake_identity
from headstudio.avatar.initialise import super_dense
from headstudio.avatar.rigged import RiggedGaussians
from headstudio.heads.arrays import HeadArrays
from headstudio.heads.default_head import default_head
from headstudio.picture_constants import SH_0, SH_OFFSET

SKIN = (236, 195, 170)


@functools.cache
def shared_default_head() -> HeadArrays:
    return bake_identity(default_head())


def painted_avatar(
    colours: dict[str, tuple[int, int, int]],  # region, or the beginning of its name, to sRGB 0..255
    head: HeadArrays | None = None,
    prompt: str = "",
    per_triangle: int = 1,
    opacity: float = 0.999,
) -> Avatar:
    """Regions without a colour have that of fair skin."""
    head = head or shared_default_head()
    vertices = torch.tensor(head.vertices)
    triangles = torch.tensor(head.triangles, dtype=torch.int64)
    splats = super_dense(vertices, triangles, per_triangle, opacity, generator=torch.Generator().manual_seed(0))
    table = np.array([colour_of(name, colours) for name in head.region_names]) / 255
    colour = torch.as_tensor(table[head.region][splats.triangle.numpy()], dtype=torch.float32)
    painted = RiggedGaussians(
        splats.triangle,
        splats.offsets,
        splats.log_scales,
        splats.quats,
        splats.opacity_logits,
        ((colour - SH_OFFSET) / SH_0)[:, None],
    )
    return Avatar(head, painted.to_arrays(), {"prompt": prompt, "seed": 0, "step": 0})


def colour_of(region: str, colours: dict[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    return next((colour for start, colour in colours.items() if region.startswith(start)), SKIN)
