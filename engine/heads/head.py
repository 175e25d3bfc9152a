"""Linear blend skinning in torch: batched and differentiable in identity, expression and joints."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .arrays import HeadArrays


def rotation_matrices(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula: axis-angle [..., 3] in radians to rotation matrices [..., 3, 3].

    The epsilon stands under the root: ``torch.where`` around a division by zero would still send NaN gradients back
    from the zero pose.
    """
    angle = (axis_angle.square().sum(-1) + 1e-16).sqrt()[..., None, None]
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    # sin(angle/2)^2 rather than 1 - cos(angle): no cancellation in float32 at small angles
    half = torch.sin(0.5 * angle) / angle
    return eye + torch.sin(angle) / angle * cross + 2 * half.square() * (cross @ cross)


class Head:
    """A parametric head (FLAME's form) on a device. Units and axes are those of :class:`HeadArrays`."""

    def __init__(self, arrays: HeadArrays, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        self.arrays = arrays
        self.device = torch.device(device)
        self.dtype = dtype

        def tensor(array: np.ndarray) -> Tensor:
            kind = dtype if array.dtype.kind == "f" else torch.int64
            # A copy: arrays that are cached or mapped from a file are read-only, which torch does not know
            return torch.as_tensor(np.array(array)).to(self.device, kind)

        n = len(arrays.vertices)
        self.template = tensor(arrays.vertices)  # [N, 3]
        self.triangles = tensor(arrays.triangles)  # [M, 3]
        self.joint_regressor = tensor(arrays.joint_regressor)  # [J, N]
        self.skin_weights = tensor(arrays.skin_weights)  # [N, J]
        self.control_expression = tensor(arrays.controls.to_expression)  # [C, E]
        self.control_joints = tensor(arrays.controls.to_joints)  # [C, J, 3]
        # Flat matrices: one matrix product per term instead of an einsum over [*, N, 3]
        self._identity = tensor(arrays.identity).reshape(-1, n * 3)
        self._expression = tensor(arrays.expression).reshape(-1, n * 3)
        self._correctives = tensor(arrays.pose_correctives).reshape(-1, n * 3)

    @property
    def expression_size(self) -> int:
        return len(self.arrays.expression_names)

    @property
    def identity_size(self) -> int:
        return len(self.arrays.identity_names)

    @property
    def joint_count(self) -> int:
        return len(self.arrays.joint_names)

    def rest_vertices(self, identity: Tensor | None = None) -> Tensor:
        """Rest shape [B, N, 3] of identity coefficients [B, S]; without them the head's own [1, N, 3]."""
        if identity is None:
            return self.template[None]
        return self.template + (identity @ self._identity).unflatten(-1, (-1, 3))

    def drive(self, sliders: Tensor) -> tuple[Tensor, Tensor]:
        """Slider values [B, C] (``arrays.controls.names``) to expression [B, E] and joints [B, J, 3]."""
        return sliders @ self.control_expression, torch.einsum("bc,cjk->bjk", sliders, self.control_joints)

    def __call__(
        self,
        expression: Tensor,  # [B, E]
        joints: Tensor,  # [B, J, 3] axis-angle, radians
        identity: Tensor | None = None,  # [B, S] or [1, S]
    ) -> Tensor:
        """Posed vertices [B, N, 3] in metres."""
        batch = expression.shape[0]
        assert expression.shape == (batch, self.expression_size), expression.shape
        assert joints.shape == (batch, self.joint_count, 3), joints.shape
        rest = self.rest_vertices(identity)
        shaped = rest + (expression @ self._expression).unflatten(-1, (-1, 3))
        centres = self.joint_regressor @ (shaped if self.arrays.joints_follow_expression else rest)  # [B, J, 3]
        centres = centres.expand(batch, -1, -1)
        rotations = rotation_matrices(joints)  # [B, J, 3, 3]
        eye = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        feature = (rotations[:, 1:] - eye).flatten(1)  # [B, 9 (J - 1)]
        shaped = shaped + (feature @ self._correctives).unflatten(-1, (-1, 3))

        world_rotation: list[Tensor] = []
        world_origin: list[Tensor] = []
        for joint, parent in enumerate(self.arrays.parents.tolist()):
            if parent < 0:
                world_rotation.append(rotations[:, joint])
                world_origin.append(centres[:, joint])
                continue
            bone = (centres[:, joint] - centres[:, parent]).unsqueeze(-1)
            world_rotation.append(world_rotation[parent] @ rotations[:, joint])
            world_origin.append((world_rotation[parent] @ bone).squeeze(-1) + world_origin[parent])
        rotation = torch.stack(world_rotation, 1)  # [B, J, 3, 3]
        shift = torch.stack(world_origin, 1) - (rotation @ centres.unsqueeze(-1)).squeeze(-1)  # [B, J, 3]

        blended = torch.einsum("nj,bjkl->bnkl", self.skin_weights, rotation)
        return (blended @ shaped.unsqueeze(-1)).squeeze(-1) + self.skin_weights @ shift
