"""Prompts as the prior reads them: with the direction of view, without any text, and the negative prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import UserError

DEFAULT_NEGATIVE = (
    "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
)
"""The paper's negative prompt (Sec. 4.2)."""

VIEW_SUFFIXES = (", front view", ", side view", ", back view")
FRONT_WITHIN = 45.0  # degrees of azimuth
BACK_BEYOND = 135.0


class TextEncoder(Protocol):
    """The part of ``Prior`` that this module needs."""

    def encode_text(self, prompts: list[str]) -> Tensor: ...


@dataclass(frozen=True)
class Texts:
    """Text embeddings for a batch of B views: T tokens of D numbers each."""

    positive: Tensor  # [B, T, D] the prompt, y in the paper
    null: Tensor  # [T, D] no text
    negative: Tensor  # [T, D] the negative prompt, y_neg in the paper

    def __post_init__(self) -> None:
        assert self.positive.ndim == 3, self.positive.shape
        assert self.null.shape == self.positive.shape[1:], self.null.shape
        assert self.negative.shape == self.positive.shape[1:], self.negative.shape


def view_index(azimuth: Tensor) -> Tensor:
    """Row of ``VIEW_SUFFIXES`` [B] int64 for cameras at ``azimuth`` [B] degrees (any turn; 0 sees the face)."""
    away = (torch.remainder(azimuth + 180, 360) - 180).abs()
    return (away > FRONT_WITHIN).long() + (away > BACK_BEYOND).long()


def view_prompts(prompt: str) -> list[str]:
    """The prompt once per row of ``VIEW_SUFFIXES``."""
    return [prompt.strip().rstrip(".,") + suffix for suffix in VIEW_SUFFIXES]


@dataclass(frozen=True)
class PromptEmbeddings:
    """Everything that a run says to the prior, encoded once."""

    views: Tensor  # [3, T, D] the prompt with each view suffix
    null: Tensor  # [T, D]
    negative: Tensor  # [T, D]

    @staticmethod
    def encode(prior: TextEncoder, prompt: str, negative: str = DEFAULT_NEGATIVE) -> PromptEmbeddings:
        """Raises ``UserError`` for a prompt without a word."""
        if not prompt.strip(" .,\n\t"):
            raise UserError("The prompt is empty: say whom the avatar should show.")
        embeddings = prior.encode_text([*view_prompts(prompt), "", negative])
        return PromptEmbeddings(embeddings[:3], embeddings[3], embeddings[4])

    def at(self, azimuth: Tensor) -> Texts:
        """The embeddings for cameras at ``azimuth`` [B] degrees (see ``camera.orbit``)."""
        return Texts(self.views[view_index(azimuth.to(self.views.device))], self.null, self.negative)
