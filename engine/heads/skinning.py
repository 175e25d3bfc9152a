"""Linear blend skinning on numpy arrays: the head's motion where torch is not (Blender's add-on, the avatar file)."""

from __future__ import annotations

import numpy as np

from .arrays import HeadArrays


def rotation_matrices(axis_angle: np.ndarray) -> np.ndarray:
    """Rodrigues' formula: axis-angle [..., 3] in radians to rotation matrices [..., 3, 3]."""
    angle = np.linalg.norm(axis_angle, axis=-1)[..., None, None]
    safe = np.where(angle < 1e-12, 1.0, angle)
    x, y, z = np.moveaxis(axis_angle, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*axis_angle.shape[:-1], 3, 3)
    sine, cosine = np.sin(angle) / safe, (1 - np.cos(angle)) / safe**2
    return np.eye(3) + sine * cross + cosine * (cross @ cross)


def rest_vertices(head: HeadArrays, identity: np.ndarray | None = None) -> np.ndarray:
    """Rest shape [N, 3] for identity coefficients [S] (none: the head's own)."""
    if identity is None:
        return head.vertices
    return head.vertices + np.tensordot(identity, head.identity, 1)


def skin(
    head: HeadArrays,
    expression: np.ndarray,  # [E]
    joints: np.ndarray,  # [J, 3] axis-angle, radians
    identity: np.ndarray | None = None,  # [S]
    dtype: type = np.float32,
) -> np.ndarray:
    """Posed vertices [N, 3] in metres: the same function as ``head.Head``, which the tests hold against it.

    ``dtype`` float64 keeps the digits that the axes of small triangles need in an exported file.
    """
    rest = rest_vertices(head, identity).astype(dtype)
    shaped = rest + np.tensordot(np.asarray(expression, dtype), head.expression, 1)
    centres = head.joint_regressor @ (shaped if head.joints_follow_expression else rest)
    rotations = rotation_matrices(np.asarray(joints, np.float64))
    feature = (rotations[1:] - np.eye(3)).reshape(-1)
    shaped = shaped + np.tensordot(feature, head.pose_correctives, 1)

    world = np.zeros((len(head.parents), 4, 4))
    for joint, parent in enumerate(head.parents):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = centres[joint] - (centres[parent] if parent >= 0 else 0)
        world[joint] = world[parent] @ local if parent >= 0 else local
    world[:, :3, 3] -= np.einsum("jab,jb->ja", world[:, :3, :3], centres)
    blended = np.tensordot(head.skin_weights, world, 1)  # [N, 4, 4]
    return (np.einsum("nab,nb->na", blended[:, :3, :3], shaped) + blended[:, :3, 3]).astype(dtype)
