"""Adaptive geometry regularisation (Eq. 8-9): Gaussians stay near their triangle, less strictly on large triangles."""

from __future__ import annotations

import torch
from torch import Tensor

from .binding import TriangleFrames
from .rigged import RiggedGaussians

TOLERANCE = 0.5  # tau_pos and tau_s of Eq. 8, in tau: a triangle's largest distance from centre to corner


def regularisation(
    gaussians: RiggedGaussians,
    frames: TriangleFrames,  # of the posed head that the Gaussians were drawn on
) -> tuple[Tensor, Tensor]:
    """L_pos and L_s of Eq. 8 with Eq. 9's division by sqrt(a); the caller weights (0.1 each) and adds them.

    Per Gaussian, with offset mu, scales s and its triangle's area a:
    ``max(|sqrt(a) mu|, tau / 2) / sqrt(a)`` and ``max(sqrt(a) s, tau / 2) / sqrt(a)``; the losses are the L2 norms over
    all Gaussians. (The rotation in Eq. 8 does not change a length.) Both are lengths over lengths: the same number for
    a head in metres and in the paper's unit, so nothing is converted.

    The triangles' sizes count as constants here: the head's shape must not shrink to satisfy its splats.
    """
    size = frames.area.detach().sqrt()  # [M] metres
    least = (TOLERANCE * frames.radius.detach() / size).index_select(0, gaussians.triangle)  # [K] in sqrt(area)
    distance = torch.linalg.vector_norm(gaussians.offsets, dim=-1)  # its gradient at 0 is 0, not NaN
    position = torch.linalg.vector_norm(torch.maximum(distance, least))
    scale = torch.linalg.vector_norm(torch.maximum(gaussians.log_scales.exp(), least.unsqueeze(-1)))
    return position, scale
