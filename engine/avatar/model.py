"""What every kind of avatar can do."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..gaussians import Gaussians
from ..heads.head import Head


class AvatarModel(Protocol):
    """An avatar that training, rendering and export drive in the same way.

    Rigged Gaussians (HeadStudio) move by their triangles alone; a model that blends features by expression (HeadGaS)
    or deforms by a network (Gaussian Head Avatar) computes its Gaussians in :meth:`pose` as it likes.
    """

    head: Head

    def parameters(self) -> dict[str, Tensor]:
        """The leaf tensors that an optimiser moves, by name."""
        ...

    def pose(
        self,
        expression: Tensor,  # [E]
        joints: Tensor,  # [J, 3] axis-angle, radians
        identity: Tensor | None = None,  # [S]; none: the head's own shape
    ) -> Gaussians:
        """Gaussians in world coordinates (metres), differentiable in the parameters and the arguments."""
        ...
