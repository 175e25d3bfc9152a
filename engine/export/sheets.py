"""Sheets: several labelled pictures in one."""

from __future__ import annotations

import math

import cv2
import numpy as np

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def contact_sheet(
    pictures: dict[str, np.ndarray],  # label to [H, W, 3] uint8, all of one size
    columns: int | None = None,  # default: a sheet about as wide as high
    background: tuple[int, int, int] = (255, 255, 255),  # 0..255
) -> np.ndarray:  # [H', W', 3] uint8
    """The pictures in reading order, each over its label. Labels are ASCII."""
    height, width, _ = next(iter(pictures.values())).shape
    columns = min(len(pictures), columns or math.ceil(math.sqrt(len(pictures) * height / width)))
    rows = math.ceil(len(pictures) / columns)
    strip = max(12, round(0.08 * height))  # under each picture, for the label
    sheet = np.empty((rows * (height + strip), columns * width, 3), np.uint8)
    sheet[:] = background
    ink = (255, 255, 255) if np.dot(background, (0.299, 0.587, 0.114)) < 128 else (32, 32, 32)
    for place, (label, picture) in enumerate(pictures.items()):
        y, x = place // columns * (height + strip), place % columns * width
        sheet[y : y + height, x : x + width] = picture
        _write(sheet, label, x, y + height, width, strip, ink)
    return sheet


def _write(sheet: np.ndarray, label: str, x: int, y: int, width: int, height: int, ink: tuple[int, int, int]) -> None:
    """The label in the middle of a box, as large as fits."""
    (wide, high), low = cv2.getTextSize(label, _FONT, 1.0, 1)
    scale = min(0.6 * height / (high + low), 0.94 * width / max(wide, 1))
    origin = (round(x + 0.5 * (width - scale * wide)), round(y + 0.5 * (height + scale * (high - low))))
    cv2.putText(sheet, label, origin, _FONT, scale, ink, max(1, round(scale)), cv2.LINE_AA)
