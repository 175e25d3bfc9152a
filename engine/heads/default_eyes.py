"""Eyeballs with round irises: MakeHuman's are 70 vertices without a pole, on which an iris is a polygon.

The new ones are spheres around the same centre with a slight cornea, in rings around the line of sight, and every
vertex is an affine mix of MakeHuman's eyeball, so that identity and gaze targets carry over. Lengths in decimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PUPIL, IRIS = 9.0, 23.5  # degrees from the line of sight: radii of 2.5 and 6.3 mm
RINGS = np.array([PUPIL, 16.0, IRIS, 33.0, 47.0, 65.0, 90.0, 125.0])  # degrees; poles at 0 and 180
SEGMENTS = 20
RADIUS = 0.158
CORNEA = 0.0035  # how far the front stands out


@dataclass(frozen=True)
class Eyeball:
    """The left eyeball: K vertices, of which the first is the front pole and the last the back pole."""

    centre: np.ndarray  # [3]
    mix: np.ndarray  # [K, 72] weights on MakeHuman's eyeball; rows sum to 1
    triangles: np.ndarray  # [F, 3]
    uv: np.ndarray  # [U, 2]
    uv_triangles: np.ndarray  # [F, 3]
    polar_angle: np.ndarray  # [F] degrees between the line of sight and the middle of each triangle's ring


def make_eyeball(points: np.ndarray, uv_box: np.ndarray) -> Eyeball:
    """From MakeHuman's eyeball ``points`` [72, 3]; its texture fills ``uv_box`` (lower left, upper right corner)."""
    centre = sphere_centre(points)
    polar = np.radians(np.concatenate([[0.0], np.repeat(RINGS, SEGMENTS), [180.0]]))
    around = np.concatenate([[0.0], np.tile(2 * np.pi * np.arange(SEGMENTS) / SEGMENTS, len(RINGS)), [0.0]])
    direction = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], 1)
    radius = RADIUS + CORNEA * np.exp(-((np.degrees(polar) / 30) ** 2))
    vertices = centre + radius[:, None] * direction

    # An affine map is exact for the shifts, scalings and turns that the targets do to an eyeball
    old, new = (np.c_[p - centre, np.ones(len(p))] for p in (points, vertices))
    mix = new @ np.linalg.pinv(old)

    def ring(row: int, segment: np.ndarray) -> np.ndarray:
        return 1 + row * SEGMENTS + segment % SEGMENTS

    here, back = np.arange(SEGMENTS), len(vertices) - 1
    triangles = [np.stack([np.zeros_like(here), ring(0, here), ring(0, here + 1)], 1)]
    for row in range(len(RINGS) - 1):
        a, b, c, d = ring(row, here), ring(row + 1, here), ring(row + 1, here + 1), ring(row, here + 1)
        triangles.append(np.stack([a, b, c, a, c, d], 1).reshape(-1, 3))
    triangles.append(
        np.stack([ring(len(RINGS) - 1, here), np.full_like(here, back), ring(len(RINGS) - 1, here + 1)], 1)
    )
    bounds = np.concatenate([[0.0], RINGS, [180.0]])
    polar_angle = np.repeat(0.5 * (bounds[1:] + bounds[:-1]), [len(part) for part in triangles])
    triangles = np.concatenate(triangles)

    # The texture is a disc around the line of sight; its rim is the back pole, which every segment has for itself
    disc = np.stack([np.cos(around), np.sin(around)], 1) * (polar / np.pi)[:, None]
    rim = np.pi * (2 * here + 1) / SEGMENTS
    disc = np.concatenate([disc[:-1], np.stack([np.cos(rim), np.sin(rim)], 1)])
    uv_triangles = triangles.copy()
    uv_triangles[-SEGMENTS:, 1] = back + here
    uv = uv_box.mean(0) + 0.49 * (uv_box[1] - uv_box[0]).min() * disc
    return Eyeball(centre, mix, triangles, uv, uv_triangles, polar_angle)


def sphere_centre(points: np.ndarray) -> np.ndarray:  # [K, 3]
    """Centre [3] of the sphere that fits the points best (linear least squares)."""
    solution = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(1), rcond=None)[0]
    return solution[:3]
