"""A small head in FLAME's form for tests: a deformed icosphere with a jaw, eyes, expressions and every table filled."""

from __future__ import annotations

import numpy as np
from headstudio.heads.arrays import JOINT_NAMES, JOINT_PARENTS, Controls, HeadArrays, Landmarks


def icosphere(levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit sphere: vertices [N, 3] and triangles [M, 3], counter-clockwise from outside; M = 20 * 4^levels."""
    golden = (1 + 5**0.5) / 2
    vertices = [
        (-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0),
        (0, -1, golden), (0, 1, golden), (0, -1, -golden), (0, 1, -golden),
        (golden, 0, -1), (golden, 0, 1), (-golden, 0, -1), (-golden, 0, 1),
    ]  # fmt: skip
    triangles = [
        (0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4), (11, 10, 2), (10, 7, 6),
        (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10), (8, 6, 7),
        (9, 8, 1),
    ]  # fmt: skip
    points = [np.array(v, float) / np.linalg.norm(v) for v in vertices]
    for _ in range(levels):
        middle: dict[tuple[int, int], int] = {}

        def split(a: int, b: int, middle=middle) -> int:
            key = (min(a, b), max(a, b))
            if key not in middle:
                middle[key] = len(points)
                point = points[a] + points[b]
                points.append(point / np.linalg.norm(point))
            return middle[key]

        finer = []
        for a, b, c in triangles:
            ab, bc, ca = split(a, b), split(b, c), split(c, a)
            finer += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        triangles = finer
    return np.array(points), np.array(triangles, np.int32)


def synthetic_head(levels: int = 2, seed: int = 0, identities: int = 3, correctives: bool = True) -> HeadArrays:
    """A head 0.24 m high that looks towards +z: an ellipsoid with a nose, on which every part of the model moves.

    Expressions: jaw-open, smile on the left, smile on the right, brow up (smooth, one-sided where named). Joints as in
    ``JOINT_NAMES``.
    """
    rng = np.random.default_rng(seed)
    sphere, triangles = icosphere(levels)
    nose = np.exp(-(((sphere - [0, -0.1, 0.99]) / 0.22) ** 2).sum(1))
    vertices = sphere * [0.08, 0.12, 0.095] + nose[:, None] * [0, 0, 0.02] + [0, 0.02, 0.01]
    n = len(vertices)

    def bump(centre: tuple[float, float, float], width: float) -> np.ndarray:
        return np.exp(-(((sphere - np.array(centre)) / width) ** 2).sum(1))

    waves = [
        sum(rng.normal() * np.sin(sphere @ rng.normal(size=3) * 2 + rng.normal()) for _ in range(3)) for _ in "xyz"
    ]
    identity = [0.002 * np.roll(np.stack(waves, -1), shift, 1) * (1 + 0.3 * shift) for shift in range(identities)]
    expression = {
        "jawOpen": bump((0, -0.7, 0.7), 0.5)[:, None] * [0, -0.012, 0.0],
        "mouthSmileLeft": bump((0.35, -0.35, 0.85), 0.3)[:, None] * [0.006, 0.006, -0.002],
        "mouthSmileRight": bump((-0.35, -0.35, 0.85), 0.3)[:, None] * [-0.006, 0.006, -0.002],
        "browInnerUp": bump((0, 0.45, 0.88), 0.35)[:, None] * [0, 0.006, 0.001],
    }
    joints = np.array([[0, -0.1, 0], [0, -0.06, 0], [0, -0.01, 0.02], [0.03, 0.05, 0.08], [-0.03, 0.05, 0.08]])
    nearest = np.argsort(((vertices - joints[:, None]) ** 2).sum(-1), axis=1)[:, :8]
    # Regress each joint from its nearest vertices and the mean of all (rows sum to 1, not exact: that is a regressor)
    regressor = np.full((len(joints), n), 0.2 / n)
    np.put_along_axis(regressor, nearest, 0.2 / n + 0.1, 1)
    weights = np.stack(
        [
            0.05 + np.clip(-sphere[:, 1] - 0.6, 0, None),
            np.ones(n),
            3 * bump((0, -0.75, 0.6), 0.45),
            3 * bump((0.35, 0.3, 0.88), 0.18),
            3 * bump((-0.35, 0.3, 0.88), 0.18),
        ],
        1,
    )
    weights /= weights.sum(1, keepdims=True)
    posedirs = np.zeros((9 * (len(JOINT_NAMES) - 1), n, 3))
    if correctives:
        posedirs[:] = 0.002 * rng.normal(size=(len(posedirs), 1, 3)) * bump((0, -0.7, 0.7), 0.6)[:, None]
    names = (*expression, "jawTurn")
    to_expression = np.zeros((len(names), len(expression)))
    to_expression[: len(expression)] = np.eye(len(expression))
    to_joints = np.zeros((len(names), len(JOINT_NAMES), 3))
    to_joints[-1, 2, 0] = 0.3
    front = np.argsort(-vertices[triangles].mean(1)[:, 2])[:12].astype(np.int32)
    uv = np.stack(
        [0.5 + np.arctan2(sphere[:, 0], sphere[:, 2]) / (2 * np.pi), 0.5 + np.arcsin(sphere[:, 1]) / np.pi], 1
    )
    return HeadArrays(
        name="synthetic",
        licence="CC0-1.0",
        vertices=vertices.astype(np.float32),
        triangles=triangles,
        identity=np.array(identity, np.float32).reshape(identities, n, 3),
        identity_names=tuple(f"shape{i}" for i in range(identities)),
        expression=np.array(list(expression.values()), np.float32),
        expression_names=tuple(expression),
        pose_correctives=posedirs.astype(np.float32),
        joint_regressor=regressor.astype(np.float32),
        parents=np.array(JOINT_PARENTS, np.int32),
        joint_names=JOINT_NAMES,
        skin_weights=weights.astype(np.float32),
        controls=Controls(names, to_expression.astype(np.float32), to_joints.astype(np.float32)),
        landmarks=Landmarks(np.arange(12, dtype=np.int32), front, np.full((12, 3), 1 / 3, np.float32)),
        uv=uv.astype(np.float32),
        uv_triangles=triangles.copy(),
        region=(vertices[triangles].mean(1)[:, 2] > 0.05).astype(np.uint8),
        region_names=("back", "face"),
    )
