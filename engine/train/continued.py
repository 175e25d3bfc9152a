"""Starting a run from a finished avatar: the head's shape back as coefficients, and a name for the avatar's content."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np

from ..avatar.file import Avatar
from ..errors import UserError
from ..heads.arrays import HeadArrays

TOLERANCE = 1e-5  # metres: float32 vertices, a hundred times over


def identity_of(
    head: HeadArrays,  # with S identity components
    baked: HeadArrays,  # the same head with an identity baked in
) -> np.ndarray:  # [S] float32
    """The coefficients that give ``head`` the rest shape of ``baked``: the inverse of ``bake_identity``.

    Where components depend on each other, the smallest such coefficients. Raises ``UserError`` if there are none,
    because the avatar was made on another head.
    """
    if np.array_equal(head.triangles, baked.triangles) and head.vertices.shape == baked.vertices.shape:
        shift = (baked.vertices.astype(np.float64) - head.vertices).ravel()  # [3 N]
        basis = head.identity.reshape(len(head.identity), -1).T.astype(np.float64)  # [3 N, S]
        identity = np.linalg.lstsq(basis, shift, rcond=None)[0]
        if np.abs(basis @ identity - shift).max() < TOLERANCE:
            return identity.astype(np.float32)
    raise UserError(
        f"The avatar to start from was made on the head {baked.name!r}, this job's head is {head.name!r}, and their "
        "shapes do not fit together. Choose the head that the avatar was made on."
    )


def digest(avatar: Avatar) -> str:
    """SHA-256 of the avatar's rest shape and splats, so that a checkpoint knows what its run started from."""
    arrays = [avatar.head.vertices, *(getattr(avatar.splats, spec.name) for spec in fields(avatar.splats))]
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()
