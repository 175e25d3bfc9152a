"""What a painted picture shows, and what is merely its background."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

CONTRAST = 0.12  # a pixel that differs from the background by more, in any channel, shows something
_COMMON = 0.25  # share of the border's pixels that a background has at least
_SEAM = 2  # pixels: so wide may gaps within an outline be
_EDGE = 2  # pixels: within this of an outline's edge the background may shine through
_PLAIN = 0.36  # a pixel there that differs from the background by this is none of it


class Outline(NamedTuple):
    """What a picture shows before its background."""

    shown: Tensor  # [S, S] bool: pixels of another colour than the background
    filled: Tensor  # [S, S] bool: with the gaps within
    background: Tensor  # [3]


def silhouette(picture: Tensor) -> Outline | None:  # [S, S, 3] in 0..1
    """Where a picture shows something before its background; None if that cannot be told.

    The background is the commonest colour along the upper edge and the upper halves of the sides: hair may hang out
    below, and a hat or a stain reach the edge above.
    """
    half = picture.shape[0] // 2
    border = torch.cat([picture[0], picture[1:half, 0], picture[1:half, -1]])
    alike = (border[:, None] - border).abs().amax(-1) < CONTRAST  # [B, B]
    commonest = alike[alike.sum(1).argmax()]
    if commonest.float().mean() < _COMMON:
        return None
    background = border[commonest].median(0).values
    shown = (picture - background).abs().amax(-1) > CONTRAST
    # Skin may be of the background's colour here and there
    padded = np.pad(shown.cpu().numpy(), _SEAM, mode="edge")
    closed = ndimage.binary_closing(padded, iterations=_SEAM)[_SEAM:-_SEAM, _SEAM:-_SEAM]
    return Outline(shown, torch.from_numpy(ndimage.binary_fill_holes(closed)).to(picture.device), background)


def exchange_background(
    picture: Tensor,  # [S, S, 3] in 0..1
    background: Tensor,  # [3] in 0..1
) -> Tensor:  # [S, S, 3] in 0..1
    """The picture before another plain background; as it is where no outline can be told.

    A prior paints what it likes behind a head. A fit would build it, out of a haze of huge splats.
    """
    outline = silhouette(picture)
    if outline is None:
        return picture
    # A pixel at the edge blends what is shown with the background, and is as far from the latter as its share
    away = (picture - outline.background).abs().amax(-1)
    inner = torch.from_numpy(ndimage.binary_erosion(outline.filled.cpu().numpy(), iterations=_EDGE, border_value=1))
    cover = torch.where(inner.to(picture.device), 1.0, (away / _PLAIN).clamp(max=1.0))[..., None]
    background = background.to(picture)
    exchanged = picture + (1 - cover) * (background - outline.background)
    return torch.where(outline.filled[..., None], exchanged.clamp(0, 1), background)
