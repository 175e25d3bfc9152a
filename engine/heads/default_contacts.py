"""Lips that meet at rest and lids that meet in a blink.

MakeHuman's neutral lips leave a slit of up to 1 mm through which the teeth shine, and the blink's lids run 4 mm through
each other. Both are put right along the edge loop where the two sides meet: each side goes half of the way, and the
rings of vertices beside the loop follow with less and less of it. Lengths in decimetres.
"""

from __future__ import annotations

import numpy as np

from .default_mesh import HeadMesh

OVERLAP = 0.001  # how far the two sides reach over each other, so that nothing shines through


def halves(mesh: HeadMesh, ring: list[int]) -> tuple[list[int], list[int]]:
    """A closed loop around an eye or the mouth as an upper and a lower chain, both from its least to its greatest x."""
    x = mesh.neutral[ring, 0]
    start, end = int(np.argmin(x)), int(np.argmax(x))
    forward = [ring[(start + k) % len(ring)] for k in range((end - start) % len(ring) + 1)]
    backward = [ring[(start - k) % len(ring)] for k in range((start - end) % len(ring) + 1)]
    upper, lower = sorted((forward, backward), key=lambda chain: -mesh.neutral[chain, 1].mean())
    return upper, lower


def gap(points: np.ndarray, upper: list[int], lower: list[int], x: np.ndarray) -> np.ndarray:
    """Offset [K, 3] from the lower to the upper chain of ``points`` [N, 3] above each of the places ``x`` [K]."""

    def at(chain: list[int]) -> np.ndarray:
        line = points[chain]
        order = np.argsort(line[:, 0], kind="stable")
        return np.stack([np.interp(x, line[order, 0], line[order, axis]) for axis in range(3)], -1)

    return at(upper) - at(lower)


def meet(
    mesh: HeadMesh,
    points: np.ndarray,  # [N, 3] the shape in which the two sides shall meet
    ring: list[int],
    reach: int,  # rings of vertices that follow
    axes: tuple[int, ...],  # 1: meet in height; (1, 2): in depth too
    only_open: bool,  # leave alone what already overlaps
) -> np.ndarray:
    """Displacement [N, 3] after which the upper and the lower half of the loop ``ring`` meet."""
    upper, lower = halves(mesh, ring)
    corners = {upper[0], upper[-1]}
    owner = _owners(mesh, ring, reach)
    side = np.zeros(len(points))
    side[[v for v, (own, _) in owner.items() if own in set(lower) - corners]] = 0.5
    side[[v for v, (own, _) in owner.items() if own in set(upper) - corners]] = -0.5
    fade = np.zeros(len(points))
    for vertex, (_, distance) in owner.items():
        t = 1 - distance / (reach + 1)
        fade[vertex] = t * t * (3 - 2 * t)

    moved = np.flatnonzero(side)
    offset = gap(points, upper, lower, points[moved, 0])
    offset[:, 1] += OVERLAP
    if only_open:
        offset[:, 1] = np.maximum(offset[:, 1], 0)
    shift = np.zeros_like(points)
    for axis in axes:
        shift[moved, axis] = side[moved] * fade[moved] * offset[:, axis]
    return shift


def _owners(mesh: HeadMesh, ring: list[int], reach: int) -> dict[int, tuple[int, int]]:
    """For vertices within ``reach`` edges of the ring: the vertex of the ring they belong to, and their distance."""
    owner = {vertex: (vertex, 0) for vertex in ring}
    front = list(ring)
    for distance in range(1, reach + 1):
        onward = []
        for vertex in front:
            for neighbour in sorted(mesh.topology.neighbours[int(mesh.base_ids[vertex])]):
                beside = int(mesh.index[neighbour])
                if beside not in owner:
                    owner[beside] = (owner[vertex][0], distance)
                    onward.append(beside)
        front = onward
    return owner
