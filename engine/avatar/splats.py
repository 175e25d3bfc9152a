"""The splats of an avatar as plain numpy arrays, bound to the triangles of its head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SplatArrays:
    """K splats, each in the frame of its triangle (see ``posing.py``), whose unit of length is sqrt(area).

    Raises ``ValueError`` with the field's name if an array has the wrong shape or holds a number out of its range.
    """

    triangle: np.ndarray  # [K] int32, row of HeadArrays.triangles
    offset: np.ndarray  # [K, 3] float32, in sqrt(area)
    scale: np.ndarray  # [K, 3] float32, standard deviations, > 0, in sqrt(area)
    rotation: np.ndarray  # [K, 4] float32, wxyz, of length 1 to within 1 %
    sh: np.ndarray  # [K, C, 3] float32, C in {1, 4, 9, 16}, in the triangle's frame
    opacity: np.ndarray  # [K] float32, 0..1

    def __post_init__(self) -> None:
        count = len(self.triangle)
        coefficients = self.sh.shape[1] if self.sh.ndim == 3 else 0
        if coefficients not in (1, 4, 9, 16):
            raise ValueError(f"sh has shape {self.sh.shape}, expected ({count}, 1 or 4 or 9 or 16, 3)")
        shapes = {
            "triangle": (count,),
            "offset": (count, 3),
            "scale": (count, 3),
            "rotation": (count, 4),
            "sh": (count, coefficients, 3),
            "opacity": (count,),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{name} holds numbers that are not finite")
        if self.triangle.dtype.kind != "i":
            raise ValueError(f"triangle holds {self.triangle.dtype}, expected integers")
        if count == 0:
            return
        if self.triangle.min() < 0:
            raise ValueError("triangle holds negative numbers")
        if not (self.scale > 0).all():
            raise ValueError("scale holds numbers that are not positive")
        if self.opacity.min() < 0 or self.opacity.max() > 1:
            raise ValueError("opacity leaves 0..1")
        if np.abs(np.linalg.norm(self.rotation, axis=1) - 1).max() > 0.01:
            raise ValueError("rotation holds quaternions that are not of length 1")

    def __len__(self) -> int:
        return len(self.triangle)
