"""Density control (Sec. 4.3): clone and split Gaussians where the picture pulls at them, prune those that add nothing.

Unlike 3D Gaussian splatting's, the screen-space gradient is normalised in every picture, since a prompt's gradients
have no scale of their own; and a new Gaussian inherits its parent's triangle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .binding import TriangleFrames
from .rigged import RiggedGaussians


@dataclass(frozen=True)
class DensitySettings:
    """When and what; the defaults are those of the paper's published code. Times are fractions of the run."""

    densify_from: float = 0.06
    densify_until: float = 0.18
    densify_every: float = 0.03
    prune_at: tuple[float, ...] = (0.27, 0.3)
    threshold: float = 0.001
    """Mean normalised gradient above which a Gaussian is cloned or split. Where all V visible Gaussians pull alike,
    each has 1 / sqrt(V): 0.001 is a third of that among 100,000 and far below it in a small draft."""
    split_scale: float = 0.0156
    """A Gaussian with a larger world scale is split, a smaller one cloned; in the paper's unit (1 % of the head)."""
    shrink: float = 1.6
    """Children of a split are smaller by this factor."""
    limit: int = 2_000_000
    """No densification beyond this many Gaussians; the strongest gradients go first."""
    prune_opacity: float = 0.005
    prune_scale: float = 0.12
    """Gaussians with a larger world scale are pruned; in the paper's unit."""


class DensityChange(NamedTuple):
    cloned: int
    split: int
    pruned: int


class DensityControl:
    """Collects gradients over the steps and changes the Gaussians when the schedule says so.

    ``optimiser`` arguments are a ``torch.optim.Adam`` with one parameter group per name of
    ``RiggedGaussians.parameters()``, the group's key "name" saying which; other groups are left alone.
    """

    def __init__(self, settings: DensitySettings, steps: int, unit: float):
        """``steps`` is the length of the run, ``unit`` is ``HeadArrays.unit`` (metres per unit of the paper)."""
        self.settings = settings
        self.unit = unit
        rounds = 0
        if settings.densify_every > 0:
            rounds = int((settings.densify_until - settings.densify_from) / settings.densify_every + 1e-6) + 1
        times = [settings.densify_from + i * settings.densify_every for i in range(rounds)]
        self.densify_steps = frozenset(max(1, round(time * steps)) for time in times)
        self.prune_steps = frozenset(max(1, round(time * steps)) for time in settings.prune_at)
        self._gradient: Tensor | None = None  # [K] sum of normalised gradients
        self._seen: Tensor | None = None  # [K] number of pictures that showed the Gaussian

    def due(self, step: int) -> bool:
        """Whether :meth:`step` has something to do after this many steps."""
        return step in self.densify_steps or step in self.prune_steps

    def observe(
        self,
        gradient: Tensor,  # [V, K, 2] of the loss by the projected centres, in any unit
        visible: Tensor,  # [V, K] bool
    ) -> None:
        """Adds the pictures of one step: each picture's gradients are divided by their L2 norm over what it shows."""
        views, k = visible.shape
        assert gradient.shape == (views, k, 2), gradient.shape
        length = torch.linalg.vector_norm(gradient.detach(), dim=-1) * visible
        total = torch.linalg.vector_norm(length, dim=-1, keepdim=True)
        # A picture without any gradient, or with a broken one, says nothing
        good = (total > 0) & total.isfinite()
        share = torch.where(good, length / torch.where(good, total, 1.0), 0.0)
        if self._gradient is None or self._seen is None:
            self._gradient, self._seen = torch.zeros_like(share[0]), torch.zeros_like(share[0])
        assert self._gradient.shape == (k,), (self._gradient.shape, k)
        self._gradient += share.sum(0)
        self._seen += (visible & good).sum(0)

    def step(
        self,
        step: int,  # steps done so far, from 1
        gaussians: RiggedGaussians,
        optimiser: torch.optim.Optimizer,
        frames: TriangleFrames,  # of the head at rest
        generator: torch.Generator,
    ) -> DensityChange | None:
        """Densifies and prunes ``gaussians`` and ``optimiser`` in place if it is time to; says what was done."""
        if not self.due(step):
            return None
        cloned = split = pruned = 0
        with torch.no_grad():
            if step in self.densify_steps:
                cloned, split = self._densify(gaussians, optimiser, frames, generator)
            if step in self.prune_steps:
                pruned = self._prune(gaussians, optimiser, frames)
        return DensityChange(cloned, split, pruned)

    def grow(self, count: int) -> None:
        """``count`` Gaussians have come from elsewhere, behind those that are observed."""
        if self._gradient is not None and self._seen is not None:
            self._gradient = torch.nn.functional.pad(self._gradient, (0, count))
            self._seen = torch.nn.functional.pad(self._seen, (0, count))

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint must hold to go on in the same way."""
        if self._gradient is None or self._seen is None:
            return {}
        return {"gradient": self._gradient, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._gradient = state["gradient"].clone() if state else None
        self._seen = state["seen"].clone() if state else None

    def _densify(
        self,
        gaussians: RiggedGaussians,
        optimiser: torch.optim.Optimizer,
        frames: TriangleFrames,
        generator: torch.Generator,
    ) -> tuple[int, int]:
        room = self.settings.limit - len(gaussians)
        if self._gradient is None or self._seen is None or room <= 0:
            return 0, 0
        mean = self._gradient / self._seen.clamp_min(1)
        hot = (mean > self.settings.threshold).nonzero().squeeze(1)
        hot = hot[mean[hot].argsort(descending=True, stable=True)][:room].sort().values
        large = _world_scale(gaussians, frames)[hot] > self.settings.split_scale * self.unit
        clones, parents = hot[~large], hot[large]

        stays = torch.ones(len(gaussians), dtype=torch.bool, device=mean.device)
        stays[parents] = False
        kept = stays.nonzero().squeeze(1)
        children = parents.repeat(2)
        replace_rows(gaussians, optimiser, torch.cat([kept, clones, children]), fresh=len(clones) + len(children))
        if len(children):
            last = slice(len(gaussians) - len(children), None)
            scales = gaussians.log_scales[last].exp()
            noise = torch.randn(scales.shape, generator=generator, device=generator.device)
            gaussians.offsets[last] += _rotate(gaussians.quats[last], scales * noise.to(scales))
            gaussians.log_scales[last] = (scales / self.settings.shrink).log()
        self._gradient, self._seen = None, None
        return len(clones), len(parents)

    def _prune(self, gaussians: RiggedGaussians, optimiser: torch.optim.Optimizer, frames: TriangleFrames) -> int:
        opacity = gaussians.opacity_logits.sigmoid()
        keep = opacity >= self.settings.prune_opacity
        keep &= _world_scale(gaussians, frames) <= self.settings.prune_scale * self.unit
        keep |= _last_of_their_triangle(keep, opacity, gaussians.triangle)
        pruned = len(keep) - int(keep.sum())
        if pruned:
            rows = keep.nonzero().squeeze(1)
            replace_rows(gaussians, optimiser, rows)
            if self._gradient is not None and self._seen is not None:
                self._gradient, self._seen = self._gradient[rows], self._seen[rows]
        return pruned


@torch.no_grad()
def replace_rows(
    gaussians: RiggedGaussians,
    optimiser: torch.optim.Optimizer,
    rows: Tensor,  # [K'] int64: the old row that each new Gaussian is a copy of
    fresh: int = 0,
) -> None:
    """Rebuilds every parameter from ``rows`` and Adam's moments with them, in place.

    The last ``fresh`` Gaussians are newcomers: their moments start at zero. Triangles are copied like the rest.
    """
    groups = {group["name"]: group for group in optimiser.param_groups if "name" in group}
    gaussians.triangle = gaussians.triangle[rows]
    for name, old in gaussians.parameters().items():
        new = old.detach()[rows].requires_grad_(old.requires_grad)
        setattr(gaussians, name, new)
        if name not in groups:
            continue
        groups[name]["params"] = [new]
        state = optimiser.state.pop(old, None)
        if not state:
            continue
        for key, value in state.items():
            if torch.is_tensor(value) and value.shape == old.shape:  # the moments; "step" is a single number
                state[key] = value[rows]
                state[key][len(rows) - fresh :] = 0
        optimiser.state[new] = state


def _world_scale(gaussians: RiggedGaussians, frames: TriangleFrames) -> Tensor:  # [K] metres
    return gaussians.log_scales.exp().amax(-1) * frames.area.sqrt()[gaussians.triangle]


def _last_of_their_triangle(keep: Tensor, opacity: Tensor, triangle: Tensor) -> Tensor:
    """[K] bool: on each triangle that would lose all its Gaussians, the most opaque one."""
    count = int(triangle.max()) + 1 if len(triangle) else 0
    # Ranks are all different, so that exactly one wins even among equals, on every device alike
    rank = opacity.argsort(stable=True).argsort(stable=True)
    best = torch.full((count,), -1, device=rank.device).scatter_reduce(0, triangle, rank, "amax")
    survivors = torch.zeros(count, dtype=torch.int64, device=rank.device).index_add(0, triangle, keep.long())
    return (rank == best[triangle]) & (survivors[triangle] == 0)


def _rotate(quats: Tensor, vectors: Tensor) -> Tensor:  # [K, 4] wxyz, [K, 3] -> [K, 3]
    unit = torch.nn.functional.normalize(quats, dim=-1)
    w, axis = unit[:, :1], unit[:, 1:]
    twice = 2 * torch.linalg.cross(axis, vectors)
    return vectors + w * twice + torch.linalg.cross(axis, twice)
