"""sRGB to CIELAB, in which the distance between two colours is about how different they look (numpy only)."""

from __future__ import annotations

import numpy as np

_TO_XYZ = np.array(  # IEC 61966-2-1, linear light, D65
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = _TO_XYZ.sum(1)  # XYZ of sRGB's white


def srgb_to_linear(colour: np.ndarray) -> np.ndarray:  # [..., 3] in 0..1
    """Display-referred sRGB to linear light."""
    return np.where(colour <= 0.04045, colour / 12.92, ((np.maximum(colour, 0) + 0.055) / 1.055) ** 2.4)


def srgb_to_lab(colour: np.ndarray) -> np.ndarray:  # [..., 3] in 0..1 to [..., 3]
    """CIE 1976 L* (0..100), a* and b* under D65."""
    ratio = srgb_to_linear(np.asarray(colour, np.float64)) @ _TO_XYZ.T / _WHITE
    epsilon, kappa = 216 / 24389, 24389 / 27
    f = np.where(ratio > epsilon, np.cbrt(ratio), (kappa * ratio + 16) / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
