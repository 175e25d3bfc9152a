"""Does the avatar stay where its head stays, and come back to rest as it was? Measured over a motion."""

from __future__ import annotations

import numpy as np
import torch

from ..avatar.binding import bind, triangle_frames
from ..errors import UserError
from ..export.pictures import Stage
from ..motion.generators import MotionSampler, ease
from .portraits import WINDOW

FRAMES, FPS, SEED = 100, 25.0, 4
PIXEL = WINDOW / 512  # metres: a portrait 512 pixels wide
STILL = 1e-6  # metres that a still triangle's corners move at most: on a small one 0.1 mm would swing long hair
FAINT = 0.05  # opacity


@torch.no_grad()
def steady(stage: Stage) -> dict | None:
    """Talking, blinking and looking about for 100 frames that begin and end at rest.

    ``rest_px``: the farthest that a splat is from its place at rest when the head is at rest again; ``still_px``: the
    farthest that one ever moves on a triangle which does not; ``swing_px``: by how much more than its triangle the
    splats move (the 99.9th percentile of the farthest in any frame). Pixels of a 512 pixel portrait; splats below an
    opacity of 0.05 do not count. ``passes``: the first two are under one pixel. None for an avatar without splats, and
    for a head that lacks the controls of the built-in motion.
    """
    model, head = stage.model, stage.model.head
    gaussians = model.gaussians
    solid = gaussians.opacity_logits.sigmoid() >= FAINT
    if not solid.any():
        return None
    try:
        motion = MotionSampler(stage.arrays).sequence(FRAMES / FPS, FPS, np.random.default_rng(SEED))
    except UserError:
        return None
    # Fades in and out within half a second; the neck stays, so that much of the head does
    share = ease(np.minimum(np.arange(FRAMES), np.arange(FRAMES)[::-1]) / (0.5 * FPS)).astype(np.float32)
    expression, joints = motion.expression * share[:, None], motion.joints * share[:, None, None]
    joints[:, [row for row, name in enumerate(stage.arrays.joint_names) if name in ("root", "neck")]] = 0
    corners = head.triangles[gaussians.triangle[solid]]  # [K, 3]

    def posed(frame: int) -> tuple[torch.Tensor, torch.Tensor]:
        like = head.template
        vertices = head(like.new_tensor(expression[frame])[None], like.new_tensor(joints[frame])[None])[0]
        frames = triangle_frames(vertices, head.triangles)
        return vertices, bind(frames, gaussians.triangle, **gaussians.parameters()).means[solid]

    rest_vertices, rest = posed(0)
    farthest, carried = torch.zeros(len(rest)), torch.zeros(len(rest))
    for frame in range(1, FRAMES):
        vertices, means = posed(frame)
        moved = (means - rest).norm(dim=1).cpu()
        ground = (vertices - rest_vertices).norm(dim=1)[corners].amax(1).cpu()
        farthest, carried = torch.maximum(farthest, moved), torch.maximum(carried, ground)
    still = farthest[carried < STILL]
    figures = {
        "rest_px": moved.max().item() / PIXEL,
        "still_px": still.max().item() / PIXEL if len(still) else 0.0,
        "swing_px": np.percentile((farthest - carried).clamp(min=0).numpy(), 99.9) / PIXEL,
    }
    figures = {name: round(float(value), 3) for name, value in figures.items()}
    return figures | {"passes": figures["rest_px"] < 1 and figures["still_px"] < 1}
