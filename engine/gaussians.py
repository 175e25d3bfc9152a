"""Posed Gaussians: what an avatar becomes for one frame and what the rasteriser draws."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from torch import Tensor


@dataclass(frozen=True)
class Gaussians:
    """N anisotropic 3D Gaussians in world coordinates (metres, y up, face towards +z, the subject's left is +x).

    Colour is display-referred sRGB: ``max(0, 0.5 + sum_k Y_k(direction) sh[:, k])`` where ``direction`` points from the
    camera's centre to the Gaussian, with the real spherical-harmonics basis of 3D Gaussian splatting.
    """

    means: Tensor  # [N, 3] metres
    quats: Tensor  # [N, 4] wxyz; need not be normalised, the rasteriser normalises
    scales: Tensor  # [N, 3] standard deviations along the local axes, metres, > 0
    opacities: Tensor  # [N] in 0..1
    sh: Tensor  # [N, K, 3], K = (degree + 1)^2 in {1, 4, 9, 16}

    def __post_init__(self) -> None:
        n = self.means.shape[0]
        assert self.means.shape == (n, 3), self.means.shape
        assert self.quats.shape == (n, 4), self.quats.shape
        assert self.scales.shape == (n, 3), self.scales.shape
        assert self.opacities.shape == (n,), self.opacities.shape
        assert self.sh.shape in {(n, k, 3) for k in (1, 4, 9, 16)}, self.sh.shape

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def sh_degree(self) -> int:
        return {1: 0, 4: 1, 9: 2, 16: 3}[self.sh.shape[1]]

    def to(self, *args, **kwargs) -> Gaussians:
        """Every tensor through ``Tensor.to``."""
        return self._map(lambda t: t.to(*args, **kwargs))

    def detach(self) -> Gaussians:
        return self._map(Tensor.detach)

    def _map(self, function) -> Gaussians:
        return replace(self, **{f.name: function(getattr(self, f.name)) for f in fields(self)})
