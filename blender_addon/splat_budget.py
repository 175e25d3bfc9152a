"""Fewer splats for a fluent viewport: each that stays stands for as much of the picture as the next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..engine.avatar.splats import SplatArrays

MAX_GROWTH = 3.0  # no splat is enlarged more than this: tiny ones would become blots


def thinned(
    splats: SplatArrays,
    size: np.ndarray,  # [M] sqrt(area) of the head's triangles
    count: int,
) -> SplatArrays:
    """About ``count`` splats, at most so many, in their own order; all are returned if they are few enough.

    A splat counts by what it covers (opacity times area). Those that count most all stay; of the others every part of
    the head keeps its share, and they are enlarged to cover what those left out did. Taking simply the largest would
    bare lips and brows, whose splats are small.
    """
    if count >= len(splats):
        return splats
    if count <= 0:
        return _taken(splats, np.arange(0), np.ones(0))
    cover = splats.opacity * np.sort(splats.scale, 1)[:, 1:].prod(1, dtype=np.float64) * size[splats.triangle] ** 2
    share = _shares(np.maximum(cover, 1e-30), count)
    # Evenly along the triangles, neighbours of which mostly follow each other
    order = np.argsort(splats.triangle, kind="stable")
    steps = np.floor(np.cumsum(share[order]) + 0.5)
    kept = np.sort(order[np.diff(steps, prepend=0) > 0][:count])
    return _taken(splats, kept, np.minimum(np.sqrt(1 / share[kept]), MAX_GROWTH))


def _shares(cover: np.ndarray, count: int) -> np.ndarray:
    """How many splats [K], at most 1, stand for each: in proportion to ``cover`` [K], ``count`` in all."""
    whole = np.zeros(len(cover), bool)
    while True:
        share = np.where(whole, 1.0, cover * ((count - whole.sum()) / cover[~whole].sum()))
        beyond = ~whole & (share > 1)
        if not beyond.any():
            return share
        whole |= beyond


def _taken(splats: SplatArrays, kept: np.ndarray, growth: np.ndarray) -> SplatArrays:
    fields = {name: getattr(splats, name)[kept] for name in ("triangle", "offset", "rotation", "sh", "opacity")}
    return replace(splats, scale=(splats.scale[kept] * growth[:, None]).astype(np.float32), **fields)
