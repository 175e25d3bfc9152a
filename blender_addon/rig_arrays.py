"""The numbers that a rig is made of, worked out of the head without Blender (no bpy), so that a thread can do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..engine.heads.arrays import HeadArrays

# Engine axes (columns) in Blender's: (x, y, z) -> (x, -z, y)
ENGINE_TO_BLENDER = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])

CORRECTIVE_PREFIX = "pose "  # of correctives' shape keys
CHIN = 152  # MediaPipe's landmark at the tip of the chin
SMALLEST_CORRECTIVE = 1e-7  # metres


@dataclass(frozen=True)
class ShapeKey:
    """A shape key; its slider goes from ``lowest`` to 1."""

    name: str
    lowest: float
    points: np.ndarray  # [3 N] metres


@dataclass(frozen=True)
class RigArrays:
    """A head's mesh, shape keys, weights and bones in Blender's axes, flat as ``foreach_set`` wants them."""

    head: HeadArrays
    points: np.ndarray  # [3 N] float32 metres
    corner_vertex: np.ndarray  # [3 M] int32
    uv: np.ndarray  # [6 M] float32
    keys: tuple[ShapeKey, ...]
    correctives: dict[tuple[int, int], ShapeKey]  # by joint and entry of its R - I, row after row
    weights: tuple[list[tuple[list[int], float]], ...]  # for each joint: vertices and the weight that they share
    joints: np.ndarray  # [J, 3] metres
    tips: np.ndarray  # [J, 3] metres, where the joints' bones end


def to_blender(points: np.ndarray) -> np.ndarray:
    """Engine coordinates [..., 3] to Blender's, metres."""
    return points @ ENGINE_TO_BLENDER.T.astype(points.dtype)


def rig_arrays(head: HeadArrays) -> RigArrays:
    """Everything of the head's rig that needs no Blender."""
    joints = to_blender(head.joint_regressor @ head.vertices)
    return RigArrays(
        head=head,
        points=_flat(head.vertices),
        corner_vertex=head.triangles.astype(np.int32).ravel(),
        uv=head.uv[head.uv_triangles].astype(np.float32).ravel(),
        keys=tuple(_keys(head)),
        correctives=_correctives(head),
        weights=tuple(_by_weight(weights) for weights in head.skin_weights.T),
        joints=joints,
        tips=_bone_tips(head, joints),
    )


def _flat(vertices: np.ndarray) -> np.ndarray:
    return to_blender(vertices).astype(np.float32).ravel()


def _keys(head: HeadArrays) -> list[ShapeKey]:
    """The named sliders (ARKit's 52 on every head), then components that are none (FLAME's) and have no end."""
    sliders = np.tensordot(head.controls.to_expression, head.expression, 1)
    found = [
        ShapeKey(name, 0.0, _flat(head.vertices + delta))
        for name, delta in zip(head.controls.names, sliders, strict=True)
    ]
    for name, delta in zip(head.expression_names, head.expression, strict=True):
        if name not in head.controls.names:
            found.append(ShapeKey(name, -1.0, _flat(head.vertices + delta)))
    return found


def _correctives(head: HeadArrays) -> dict[tuple[int, int], ShapeKey]:
    """Pose correctives (FLAME's posedirs: linear in R - I of each joint), without those that move nothing."""
    found = {}
    for joint in range(1, len(head.joint_names)):
        for entry in range(9):
            delta = head.pose_correctives[9 * (joint - 1) + entry]
            if np.abs(delta).max() >= SMALLEST_CORRECTIVE:
                row, column = divmod(entry, 3)
                name = f"{CORRECTIVE_PREFIX}{head.joint_names[joint]} {row}{column}"
                found[joint, entry] = ShapeKey(name, -2.0, _flat(head.vertices + delta))
    return found


def _by_weight(weights: np.ndarray) -> list[tuple[list[int], float]]:
    """Vertices [N] by the weight that they share, for one call each: most share 0, which is left out, or 1."""
    used = np.flatnonzero(weights)
    values, place = np.unique(weights[used], return_inverse=True)
    order = np.argsort(place, kind="stable")
    groups = np.split(used[order], np.cumsum(np.bincount(place))[:-1])
    return [(rows.tolist(), float(value)) for value, rows in zip(values, groups, strict=True)]


def _bone_tips(head: HeadArrays, joints: np.ndarray) -> np.ndarray:
    """Where an animator expects the tips [J, 3]: the neck's in the skull, the jaw's in the chin, an eye's in its gaze.

    All lie in front of or above their joints in the joint's own sagittal plane, which keeps the axes square.
    """
    size = float(np.ptp(head.vertices, axis=0).max())
    forward, up = np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0])
    tips = joints + 0.12 * size * up
    eyes = [index for index, joint in enumerate(head.joint_names) if joint.startswith("eye")]
    tips[eyes] = joints[eyes] + 0.12 * size * forward
    for index, joint in enumerate(head.joint_names):
        if joint == "neck":
            eye_level = joints[eyes, 2].mean() if eyes else joints[index, 2] + 0.4 * size
            tips[index, 2] = max(eye_level, joints[index, 2] + 0.1 * size)
        elif joint == "jaw":
            chin = _landmark(head, CHIN)
            tips[index] = joints[index] + 0.3 * size * (0.85 * forward - 0.5 * up) if chin is None else chin
            tips[index, 0] = joints[index, 0]
    return tips


def _landmark(head: HeadArrays, number: int) -> np.ndarray | None:
    """A MediaPipe landmark [3] on the rest shape in Blender's axes, if the head has it."""
    rows = np.flatnonzero(head.landmarks.indices == number)
    if not len(rows):
        return None
    corners = head.vertices[head.triangles[head.landmarks.triangles[rows[0]]]]
    return to_blender(head.landmarks.barycentric[rows[0]] @ corners)
