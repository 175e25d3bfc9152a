"""The lines and colours of the landmark map that CrucibleAI/ControlNetMediaPipeFace was trained on.

Numbers are MediaPipe face-mesh indices; left and right are the subject's.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Group:
    """One feature of the face: polylines of one colour."""

    name: str
    colour: tuple[int, int, int]  # RGB
    lines: tuple[tuple[int, ...], ...]

    @property
    def edges(self) -> list[tuple[int, int]]:
        return [edge for line in self.lines for edge in pairwise(line)]

    @property
    def indices(self) -> list[int]:
        """Every landmark of the group once."""
        return sorted({index for line in self.lines for index in line})


@dataclass(frozen=True)
class Iris:
    """A square of 4 x 4 pixels around one landmark."""

    name: str
    colour: tuple[int, int, int]  # RGB
    index: int


# fmt: off
GROUPS = (  # in the order in which they are drawn
    Group("face oval", (10, 200, 10), (
        (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149,
         150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10),
    )),
    Group("left eye", (10, 200, 180), (
        (263, 249, 390, 373, 374, 380, 381, 382, 362),
        (263, 466, 388, 387, 386, 385, 384, 398, 362),
    )),
    Group("left brow", (10, 220, 180), ((276, 283, 282, 295, 285), (300, 293, 334, 296, 336))),
    Group("right eye", (180, 200, 10), (
        (33, 7, 163, 144, 145, 153, 154, 155, 133),
        (33, 246, 161, 160, 159, 158, 157, 173, 133),
    )),
    Group("right brow", (180, 220, 10), ((46, 53, 52, 65, 55), (70, 63, 105, 66, 107))),
    Group("lips", (10, 180, 10), (
        (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
        (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
        (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
        (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
    )),
)
# fmt: on
FACE_OVAL, LIPS = GROUPS[0], GROUPS[-1]
IRISES = (Iris("right iris", (250, 200, 10), 468), Iris("left iris", (10, 200, 250), 473))  # drawn last

LANDMARK_INDICES = tuple(
    sorted([index for group in GROUPS for index in group.indices] + [iris.index for iris in IRISES])
)
"""Every landmark that the map needs."""
