"""From stored pictures to training batches: backgrounds, mirror images, spoilt pictures, dropped texts and maps."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .caption import caption
from .character import Character
from .shards import Shard
from .vocabulary import NEGATIVE_WORDS


@dataclass(frozen=True)
class BatchSettings:
    """Shares of the training pictures to which something happens."""

    text_dropped: float = 0.12  # learn the picture without a text, which guidance needs
    control_dropped: float = 0.1  # learn it without a landmark map
    spoilt: float = 0.06  # learn what the negative prompt's words look like
    thorough: float = 0.65  # captions that leave nearly nothing out


@dataclass(frozen=True)
class Batch:
    """B training examples on the CPU."""

    pixels: Tensor  # [B, 3, S, S] float32 in -1..1
    conditions: Tensor  # [B, 3, S, S] float32 in 0..1
    control: Tensor  # [B] float32: what the ControlNet's output is multiplied with
    captions: list[str]


def make_batch(rows: Shard, size: int, settings: BatchSettings, rng: np.random.Generator) -> Batch:
    """Augments ``rows``. ``size`` is the pictures' own side, or half of it: then they are scaled down."""
    count, stored = len(rows), rows.pictures.shape[1]
    assert stored in (size, 2 * size), (stored, size)
    pixels = np.empty((count, size, size, 3), np.float32)
    maps = np.empty((count, size, size, 3), np.float32)
    captions = []
    for row in range(count):
        picture, condition, ways = _augmented(rows, row, settings, rng)
        words = caption(
            Character.from_json(str(rows.characters[row])),
            str(rows.moods[row]),
            int(rows.views[row]),
            rng,
            thorough=rng.random() < settings.thorough,
        )
        if stored != size:
            picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
            condition = cv2.resize(condition, (size, size), interpolation=cv2.INTER_AREA)
        pixels[row], maps[row] = picture, condition
        words = spoilt_caption(words, ways, rng) if ways else words
        captions.append("" if rng.random() < settings.text_dropped else words)
    # The scale that a user sets (1 to 1.5) must be nothing new to the model
    control = rng.uniform(0.8, 1.4, count) * (rng.random(count) >= settings.control_dropped)
    return Batch(
        pixels=torch.from_numpy(pixels).permute(0, 3, 1, 2) * 2 - 1,
        conditions=torch.from_numpy(maps).permute(0, 3, 1, 2),
        control=torch.from_numpy(control.astype(np.float32)),
        captions=captions,
    )


def make_pictures(rows: Shard, settings: BatchSettings, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The ``pixels`` and ``conditions`` of ``make_batch`` alone."""
    pictures, maps, _ = zip(*(_augmented(rows, row, settings, rng) for row in range(len(rows))), strict=True)
    pixels, conditions = (torch.from_numpy(np.stack(each)).permute(0, 3, 1, 2) for each in (pictures, maps))
    return pixels * 2 - 1, conditions


def irises(conditions: Tensor) -> Tensor:  # [B, 3, S, S] in 0..1 -> [B, 1, S, S] 0 or 1
    """Where landmark maps have an iris, and a pixel around: the only marks in which red or blue exceeds green."""
    marked = conditions[:, [0, 2]].amax(1, keepdim=True) - conditions[:, 1:2] > 0.03
    return F.max_pool2d(marked.to(conditions), 3, stride=1, padding=1)


def _augmented(
    rows: Shard, row: int, settings: BatchSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Picture and landmark map [S, S, 3] float32 in 0..1, and the ways in which the picture is spoilt."""
    picture = on_background(rows.pictures[row], background_colour(rng))
    condition = rows.conditions[row].astype(np.float32) / 255
    ways: list[str] = []
    if rng.random() < 0.5:
        picture, condition = mirrored(picture, condition)
    if rng.random() < settings.spoilt:
        ways = list(rng.choice(list(NEGATIVE_WORDS), int(rng.integers(1, 4)), replace=False))
        picture = spoil(picture, ways, rng)
    return picture, condition, ways


def background_colour(rng: np.random.Generator) -> np.ndarray:  # [3] in 0..1
    """Often a mid grey, from which nothing but the head has to be guessed; else any colour, or black, white, a grey."""
    kind = rng.random()
    if kind < 0.85:
        return np.full(3, rng.uniform(0.45, 0.6), np.float32)
    if kind < 0.91:
        return np.full(3, rng.choice([0.0, 1.0, rng.random()]), np.float32)
    return rng.random(3).astype(np.float32)


def on_background(
    picture: np.ndarray,  # [S, S, 4] uint8
    background: np.ndarray,  # [3] in 0..1
) -> np.ndarray:  # [S, S, 3] float32 in 0..1
    colour, alpha = picture[..., :3].astype(np.float32) / 255, picture[..., 3:].astype(np.float32) / 255
    return colour + (1 - alpha) * background


def mirrored(picture: np.ndarray, condition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mirror image and its landmark map.

    The map's colours for left and right differ by their red and blue alone, which the mirror therefore exchanges.
    """
    return np.ascontiguousarray(picture[:, ::-1]), np.ascontiguousarray(condition[:, ::-1, ::-1])


def spoil(
    picture: np.ndarray,  # [S, S, 3] float32 in 0..1
    ways: list[str],  # keys of NEGATIVE_WORDS
    rng: np.random.Generator,
) -> np.ndarray:  # [S, S, 3] float32 in 0..1
    """The picture spoilt in these ways, one after the other."""
    for way in ways:
        picture = _SPOILERS[way](picture, rng)
    return np.clip(picture, 0, 1).astype(np.float32)


def spoilt_caption(words: str, ways: list[str], rng: np.random.Generator) -> str:
    """Says how the picture is spoilt, with or without what it shows."""
    said = [NEGATIVE_WORDS[way][rng.integers(len(NEGATIVE_WORDS[way]))] for way in ways]
    rng.shuffle(said)
    return ", ".join(said if rng.random() < 0.6 else [*said, words])


def _blur(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.015, 0.05)) * len(picture))


def _pixels(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = max(2, int(len(picture) * rng.uniform(0.12, 0.35)))
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, picture.shape[:2], interpolation=cv2.INTER_NEAREST)


def _contrast(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    grey = picture.mean(-1, keepdims=True)
    return 0.5 + rng.uniform(0.15, 0.5) * (grey + rng.uniform(0.1, 0.6) * (picture - grey) - 0.5)


def _darkness(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return picture * rng.uniform(0.15, 0.5)


def _noise(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return picture + rng.uniform(0.08, 0.25) * rng.standard_normal(picture.shape)


def _warp(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    size = len(picture)
    flow = [
        cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), size * 0.08) * size * size * 0.012 for _ in range(2)
    ]
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    return cv2.remap(
        picture,
        (x + flow[0]).astype(np.float32),
        (y + flow[1]).astype(np.float32),
        cv2.INTER_LINEAR,
        None,
        cv2.BORDER_REFLECT,
    )


_SPOILERS = {
    "blur": _blur,
    "pixels": _pixels,
    "contrast": _contrast,
    "darkness": _darkness,
    "noise": _noise,
    "warp": _warp,
}
