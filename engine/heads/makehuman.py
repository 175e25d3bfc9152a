"""MakeHuman's files (base mesh, targets, mirror table) and the topology of its quads.

Coordinates are MakeHuman's own: decimetres, y up, the face looks towards +z, the subject's left is +x.
"""

from __future__ import annotations

import gzip
from collections import defaultdict
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BaseMesh:
    """The base mesh with all its helpers: V vertices, T texture coordinates, Q quads."""

    vertices: np.ndarray  # [V, 3] decimetres
    uv: np.ndarray  # [T, 2] origin at the lower left
    quads: np.ndarray  # [Q, 4] counter-clockwise seen from outside
    uv_quads: np.ndarray  # [Q, 4] rows of uv
    groups: np.ndarray  # [Q] str, the Wavefront group of each quad

    def vertices_of(self, group: str) -> np.ndarray:
        """Sorted vertex ids of one group."""
        return np.unique(self.quads[self.groups == group])


def parse_mesh(data: bytes) -> BaseMesh:
    """The Wavefront file ``base.obj``, in which every face is a quad with texture coordinates."""
    vertices, uv, corners, groups = [], [], [], []
    group = ""
    for line in data.decode("ascii").splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append(rest.split()[:3])
        elif kind == "vt":
            uv.append(rest.split()[:2])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            corners.append(rest.replace("/", " ").split()[:8])
            groups.append(group)
    pairs = np.array(corners, np.int64).reshape(-1, 4, 2) - 1
    return BaseMesh(
        np.array(vertices, np.float64), np.array(uv, np.float64), pairs[..., 0], pairs[..., 1], np.array(groups)
    )


def parse_target(data: bytes, count: int) -> np.ndarray:
    """A morph target as displacements [count, 3] in decimetres; gzipped or not, empty ones included."""
    text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    if b"#" in text:
        text = b"\n".join(line for line in text.splitlines() if not line.startswith(b"#"))
    rows = np.fromstring(text.decode("ascii"), np.float64, sep=" ").reshape(-1, 4)
    displacement = np.zeros((count, 3))
    displacement[rows[:, 0].astype(np.int64)] = rows[:, 1:]
    return displacement


def parse_mirror(data: bytes, count: int) -> np.ndarray:
    """For every vertex the one on the other side [count]; those of the middle are their own."""
    mirror = np.full(count, -1)
    for line in data.splitlines():
        vertex, other = line.split()[:2]
        mirror[int(vertex)] = int(other)
    if not (mirror[mirror] == np.arange(count)).all():
        raise ValueError("the mirror table is not a mirror")
    return mirror


class QuadTopology:
    """Edges of a quad mesh, and walks along its edge loops."""

    def __init__(self, quads: np.ndarray):  # [Q, 4]
        self.quads = quads
        self.faces_of: dict[tuple[int, int], list[int]] = defaultdict(list)  # edge (low, high) to quads
        self.neighbours: dict[int, set[int]] = defaultdict(set)
        for face, quad in enumerate(quads.tolist()):
            for a, b in zip(quad, quad[1:] + quad[:1], strict=True):
                self.faces_of[min(a, b), max(a, b)].append(face)
                self.neighbours[a].add(b)
                self.neighbours[b].add(a)

    def loop(self, a: int, b: int) -> list[int]:
        """The closed edge loop that starts with the edge a-b: straight on at every vertex of four edges.

        Raises ``ValueError`` if the walk ends at a pole or never closes.
        """
        path = [a, b]
        while path[-1] != a or len(path) == 2:
            previous, here = path[-2:]
            beside = set(self._faces(previous, here))
            onward = [v for v in self.neighbours[here] if beside.isdisjoint(self._faces(here, v))]
            if len(self.neighbours[here]) != 4 or len(onward) != 1 or len(path) > 1000:
                raise ValueError(f"the edge loop {a}-{b} ends at vertex {here}")
            path.append(onward[0])
        return path[:-1]

    def enclosed(self, loops: list[list[int]], start: int) -> np.ndarray:
        """Quads [k] that are reached from quad ``start`` without crossing an edge of the loops."""
        walls = {(min(e), max(e)) for loop in loops for e in zip(loop, loop[1:] + loop[:1], strict=True)}
        seen, stack = {start}, [start]
        while stack:
            quad = self.quads[stack.pop()].tolist()
            for edge in zip(quad, quad[1:] + quad[:1], strict=True):
                edge = (min(edge), max(edge))
                if edge not in walls:
                    fresh = [face for face in self.faces_of[edge] if face not in seen]
                    seen.update(fresh)
                    stack += fresh
        return np.array(sorted(seen))

    def rings(self, start: list[int]) -> dict[int, int]:
        """Number of edges from every reachable vertex to the nearest vertex of ``start``."""
        distance = dict.fromkeys(start, 0)
        front = list(start)
        while front:
            front = [
                v for u in front for v in self.neighbours[u] if distance.setdefault(v, distance[u] + 1) > distance[u]
            ]
            front = list(dict.fromkeys(front))
        return distance

    def _faces(self, a: int, b: int) -> list[int]:
        return self.faces_of[min(a, b), max(a, b)]
