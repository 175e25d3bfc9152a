"""Motion: expressions and joints over time. numpy only, because Blender's half plays it too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Motion:
    """T frames at a steady rate, for a head with E expression components and J joints.

    Raises ``ValueError`` if the arrays do not fit together or hold numbers that are not finite.
    """

    expression: np.ndarray  # [T, E] float32, coefficients of HeadArrays.expression
    joints: np.ndarray  # [T, J, 3] float32, axis-angle in radians
    fps: float  # frames per second

    def __post_init__(self) -> None:
        frames = len(self.expression)
        if self.expression.ndim != 2:
            raise ValueError(f"expression has shape {self.expression.shape}, expected [T, E]")
        if self.joints.ndim != 3 or self.joints.shape[0] != frames or self.joints.shape[2] != 3:
            raise ValueError(f"joints has shape {self.joints.shape}, expected ({frames}, J, 3)")
        if not (np.isfinite(self.expression).all() and np.isfinite(self.joints).all()):
            raise ValueError("a motion holds numbers that are not finite")
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps is {self.fps}, expected a positive number")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.expression)

    @property
    def seconds(self) -> float:
        """Length: each frame stands for 1 / fps seconds."""
        return len(self) / self.fps

    def at(self, second: float) -> tuple[np.ndarray, np.ndarray]:
        """(expression [E], joints [J, 3]) at a time, linear between frames, held before the first and after the last.

        Axis-angles of a head are small and frames close together, so that their linear mix is the turn in between.
        """
        if not len(self):
            raise ValueError("a motion without frames has no pose")
        place = float(np.clip(second * self.fps, 0, len(self) - 1))
        first = int(place)
        last, share = min(first + 1, len(self) - 1), np.float32(place - first)
        return (
            (1 - share) * self.expression[first] + share * self.expression[last],
            (1 - share) * self.joints[first] + share * self.joints[last],
        )
