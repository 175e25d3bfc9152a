"""Which diffusion timesteps a step of training draws, and how much each weighs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Phase:
    """From ``start`` (fraction of the run) on, timesteps are drawn evenly from ``lowest`` to ``highest`` inclusive.

    Timesteps count to 1000, whatever number of training timesteps the prior has.
    """

    start: float
    lowest: int
    highest: int

    def __post_init__(self) -> None:
        assert 0 <= self.start <= 1, self.start
        assert 0 <= self.lowest <= self.highest < 1000, (self.lowest, self.highest)


PUBLISHED_PHASES = (Phase(0.0, 50, 800), Phase(0.3, 20, 550))
"""What HeadStudio's published code draws; the paper does not say."""


def timestep_phases(timesteps: tuple[int, int], late_timesteps: tuple[int, int], late_from: float) -> tuple[Phase, ...]:
    """The two phases of a run, from the fields of that name in the training settings."""
    return Phase(0.0, *timesteps), Phase(late_from, *late_timesteps)


def timestep_range(
    progress: float,  # fraction of the run that is done, 0..1
    phases: tuple[Phase, ...] = PUBLISHED_PHASES,  # in order of their start, the first at 0
    total: int = 1000,  # training timesteps of the prior
) -> tuple[int, int]:
    """Lowest and highest timestep (both included) at this point of the run."""
    assert phases[0].start == 0, phases
    phase = [phase for phase in phases if progress >= phase.start][-1]
    return phase.lowest * total // 1000, phase.highest * total // 1000


def sample_timesteps(
    progress: float,
    count: int,
    generator: torch.Generator,
    phases: tuple[Phase, ...] = PUBLISHED_PHASES,
    total: int = 1000,
) -> Tensor:
    """``count`` independent timesteps [count] int64, on the generator's device."""
    lowest, highest = timestep_range(progress, phases, total)
    return torch.randint(lowest, highest + 1, (count,), generator=generator, device=generator.device)


def distillation_weight(
    alphas_cumprod: Tensor,  # [total] alpha_bar
    t: Tensor,  # [B] int64
) -> Tensor:
    """w(t) = 1 - alpha_bar_t, [B]: the variance of the noise at t."""
    return 1 - alphas_cumprod[t]
