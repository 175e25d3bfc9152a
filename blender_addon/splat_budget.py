"""Fewer splats for a fluent viewport: the most important ones, larger by what was left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..engine.avatar.splats import SplatArrays


def thinned(
    splats: SplatArrays,
    size: np.ndarray,  # [M] sqrt(area) of the head's triangles
    count: int,
) -> SplatArrays:
    """The ``count`` splats that cover most (opacity times area), at the least 0, in their own order.

    They are enlarged so that together they cover as much as all did before; all are returned if they are few enough.
    """
    if count >= len(splats):
        return splats
    large = np.sort(splats.scale, 1)[:, 1:]
    cover = splats.opacity * large.prod(1) * np.square(size[splats.triangle])
    kept = np.sort(np.argpartition(-cover, count)[: max(count, 0)])
    growth = np.sqrt(cover.sum(dtype=np.float64) / max(cover[kept].sum(dtype=np.float64), 1e-30))
    fields = {name: getattr(splats, name)[kept] for name in ("triangle", "offset", "rotation", "sh", "opacity")}
    return replace(splats, scale=splats.scale[kept] * np.float32(growth), **fields)
