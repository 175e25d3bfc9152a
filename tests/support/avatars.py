"""Avatars made up for tests."""

from __future__ import annotations

import numpy as np
from headstudio.avatar.file import Avatar, SplatArrays, bake_identity
from support.synthetic_head import synthetic_head

PROVENANCE = {"prompt": "a smiling old man, naïve \U0001f600", "seed": 7, "settings": {"steps": 10}, "metrics": [1.5]}


def random_splats(count: int, triangles: int, coefficients: int = 4, seed: int = 0) -> SplatArrays:
    rng = np.random.default_rng(seed)
    rotation = rng.normal(size=(count, 4))
    return SplatArrays(
        triangle=np.sort(rng.integers(0, triangles, count)).astype(np.int32),
        offset=rng.normal(0, 0.7, (count, 3)).astype(np.float32),
        scale=np.exp(rng.normal(-1, 0.7, (count, 3))).astype(np.float32),
        rotation=(rotation / np.linalg.norm(rotation, axis=1, keepdims=True)).astype(np.float32),
        sh=rng.normal(0, 0.8, (count, coefficients, 3)).astype(np.float32),
        opacity=rng.uniform(0, 1, count).astype(np.float32),
    )


def small_avatar() -> Avatar:
    """Sixty splats on the synthetic head, with an identity baked in."""
    head = bake_identity(synthetic_head(1), np.array([1.0, -0.5, 0.3]))
    return Avatar(head, random_splats(60, len(head.triangles)), PROVENANCE)
