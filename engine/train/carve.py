"""Splats where painted pictures show something off the head: long hair, a hat, a beard.

A fit pulls at splats that are there; it cannot carry them from the scalp to the tip of a beard, and stretches a few of
them into a haze instead. So the first painted pictures are read as silhouettes, and what they agree on is carved out of
the space around the head (the visual hull: Laurentini 1994). Not in the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from ..avatar.binding import TriangleFrames, offsets_from, triangle_frames
from ..avatar.initialise import even_barycentric
from ..avatar.rigged import RiggedGaussians
from ..avatar.sh_rotation import SH_C0
from ..camera import Camera
from ..heads.arrays import EYEBALLS, MOUTH
from ..heads.head import Head
from .outline import Outline, silhouette
from .scenes import Scene

# Lengths are in the paper's unit, in which a head is 1.556 wide or high
SPACING = 0.045  # of the grid of places that are looked at
_REACH = 0.8  # how far from the head things are looked for
_SKIN = 0.1  # nearer to the head than this, the splats that are there suffice
_ON_EACH = 4  # points that stand for a triangle
_DEEP = 2  # layers of the grid that are filled: what is deeper inside is never seen
_SIZE = 0.6  # of a splat, in spacings: neighbours overlap into an even surface
_OPACITY = 0.9

_FEW = 6  # fewer pictures with an outline than this carve nothing
_IN_SIGHT = 0.5  # share of the pictures that must reach a place
_DISSENT = 0.05  # share of those that may show the background there: painted pictures agree only nearly
_SPREAD = 0.12  # standard deviation of a place's colour over the pictures, in any channel, from which it is hollow
_BARE = 3  # pictures that must show a place with nothing before it: fewer can agree on a wrong one
_CARVINGS = 8  # times that it is looked for
_BLOCK = 4  # pixels: so coarse is the map of what is nearest in a picture
_CRUMB = 25  # places: fewer that hang together are taken for an error
_FRONTAL = 0.4  # cosine of the angle to straight ahead up to which the skin of the face counts as its front
_NOT_WORN = (*EYEBALLS, *MOUTH, "socket", "lid", "lips", "brow", "nose")
_FACE = ("face", *_NOT_WORN)


@torch.no_grad()
def carve(
    head: Head,
    identity: Tensor,  # [S]
    scenes: list[Scene],  # G of them, of V views
    pictures: Tensor,  # [G, V, S, S, 3] in 0..1
    present: RiggedGaussians | None = None,
) -> RiggedGaussians:
    """Round splats (SH degree 0) on the surface of what the pictures show off the head: none on a bald one, and none
    where there are splats at ``present``.

    They keep close to what all pictures agree on: what is thin, or where pictures contradict each other, is left out.
    """
    unit = head.arrays.unit
    vertices = head.rest_vertices(identity[None])[0]
    frames = triangle_frames(vertices, head.triangles)
    views = Views(head, identity, scenes, pictures)
    nothing = _bound(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), frames, unit)
    if views.count < _FEW:
        return nothing
    skin = Skin.of(vertices, frames.rotation[:, :, 1], head)
    space = Space.around(skin, unit)
    cloud = _bound(space.points, skin.wearers(space.points), frames, _SIZE * SPACING * unit)

    full = space.attached(outlined(cloud, views))
    full, shell, sightings = carved(cloud, full, space, views, SPACING * unit)
    full = space.attached(full)  # what held it may be gone
    kept = (shell & full)[shell] & space.in_large_bodies(shell & full)[shell]  # [R], as below
    known = kept & (sightings.count >= _BARE).cpu().numpy()
    if not known.any():
        return nothing
    # What is hardly ever seen bare takes its colour from its neighbours
    places = space.points[shell]
    near, neighbour = cKDTree(places[known]).query(places)
    splats = _rows(cloud, torch.from_numpy(shell))
    splats.sh = ((sightings.mean[torch.from_numpy(np.flatnonzero(known)[neighbour])] - 0.5) / SH_C0)[:, None]
    kept &= near < 2 * SPACING * unit
    if present is not None:
        there = present.pose(vertices, head.triangles).means.cpu().numpy()
        kept &= cKDTree(there).query(places)[0] > SPACING * unit
    return _rows(splats, torch.from_numpy(kept))


def outlined(cloud: RiggedGaussians, views: Views) -> np.ndarray:  # [P] bool
    """What stands before the background in nearly all pictures that reach it, and is reached by most."""
    seen, empty = torch.zeros(2, len(cloud), device=cloud.triangle.device)
    for sight, outline, _ in views.sights(cloud):
        seen += sight.inside
        empty += sight.inside & ~sight.of(outline.filled)
    return ((seen >= _IN_SIGHT * views.count) & (empty <= _DISSENT * seen)).cpu().numpy()


class Sightings(NamedTuple):
    """Of R splats, over the pictures that show them bare."""

    count: Tensor  # [R]
    mean: Tensor  # [R, 3] colour
    spread: Tensor  # [R] standard deviation of the colour, of the channel where it is largest


def carved(
    cloud: RiggedGaussians,
    full: np.ndarray,  # [P] bool
    space: Space,
    views: Views,
    margin: float,  # metres
) -> tuple[np.ndarray, np.ndarray, Sightings]:
    """What is full [P], of it the outermost [P], and how that is seen.

    What looks different from different sides hides something hollow whose walls lie farther in, and goes (space
    carving: Kutulakos and Seitz 2000).
    """
    full = full.copy()
    for _ in range(_CARVINGS):
        shell = space.outermost(full)
        splats = _rows(cloud, torch.from_numpy(shell))
        seen, total, squared = torch.zeros(3, len(splats), 3, device=cloud.triangle.device)
        for sight, outline, picture in views.sights(splats):
            bare = (sight.inside & sight.nearest(margin) & sight.of(outline.shown))[:, None]
            colour = sight.of(picture) * bare
            seen, total, squared = seen + bare, total + colour, squared + colour.square()
        mean = total / seen.clamp_min(1)
        spread = (squared / seen.clamp_min(1) - mean.square()).clamp_min(0).sqrt().amax(-1)
        hollow = (spread > _SPREAD).cpu().numpy()
        full[np.flatnonzero(shell)[hollow]] = False
        if not hollow.any():
            break
    return full, shell, Sightings(seen[:, 0], mean, spread)


@dataclass(frozen=True)
class Skin:
    """Points on the head's triangles, dense enough to stand for its surface."""

    points: np.ndarray  # [Q, 3] metres
    normals: np.ndarray  # [Q, 3] outwards
    triangle: np.ndarray  # [Q] int64
    bare: np.ndarray  # [Q] bool: there is nothing before it
    steady: np.ndarray  # [Q] bool: brows, lids and lips do not move it

    @staticmethod
    def of(
        vertices: Tensor,  # [N, 3] metres
        normals: Tensor,  # [M, 3] of the triangles
        head: Head,
    ) -> Skin:
        weights = even_barycentric(_ON_EACH).to(vertices)
        points = torch.einsum("kc,mcx->mkx", weights, vertices[head.triangles]).flatten(0, 1).cpu().numpy()
        triangle = np.repeat(np.arange(len(normals)), _ON_EACH)
        normals = normals.cpu().numpy()[triangle]
        # Outlines cannot tell that a face lies deep between curtains of hair
        bare = head.arrays.triangles_in(_FACE)[triangle] & (normals[:, 2] > _FRONTAL)
        return Skin(points, normals, triangle, bare, ~head.arrays.triangles_in(_NOT_WORN)[triangle])

    def wearers(self, points: np.ndarray) -> np.ndarray:  # [P, 3] metres -> [P] int64
        """The triangle that carries each point: the nearest of the steady ones."""
        return self.triangle[self.steady][cKDTree(self.points[self.steady]).query(points)[1]]


@dataclass(frozen=True)
class Space:
    """The grid of points around a head at rest where something may be."""

    points: np.ndarray  # [P, 3] float32 metres
    cells: np.ndarray  # [X, Y, Z] int64: the row of the point in each cell, -1 where there is none
    head: np.ndarray  # [X, Y, Z] bool: cells within the head or close to its skin

    @staticmethod
    def around(
        skin: Skin,
        unit: float,  # metres
    ) -> Space:
        low, high = skin.points.min(0) - _REACH * unit, skin.points.max(0) + _REACH * unit
        axes = [np.arange(a, b, SPACING * unit) for a, b in zip(low, high, strict=True)]
        everywhere = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        places = everywhere.reshape(-1, 3)
        distance, nearest = cKDTree(skin.points).query(places, distance_upper_bound=_REACH * unit)
        near = np.isfinite(distance)
        nearest = np.where(near, nearest, 0)
        inside = ((places - skin.points[nearest]) * skin.normals[nearest]).sum(1) < 0
        head = near & (inside | (distance < _SKIN * unit))
        free = near & ~head & ~skin.bare[nearest]
        cells = np.where(free, np.cumsum(free) - 1, -1).reshape(everywhere.shape[:3])
        return Space(places[free].astype(np.float32), cells, head.reshape(cells.shape))

    def outermost(self, full: np.ndarray) -> np.ndarray:  # [P] bool -> [P] bool
        """Those of the full points that lie within a few layers of the open air."""
        solid = self.head | self._filled(full)
        covered = ndimage.binary_erosion(solid, ndimage.generate_binary_structure(3, 1), iterations=_DEEP)
        return full & self._points_in(~covered)

    def attached(self, full: np.ndarray) -> np.ndarray:  # [P] bool -> [P] bool
        """Those of the full points that hang together with the head, and not by a thread."""
        bodies, _ = ndimage.label(ndimage.binary_opening(self.head | self._filled(full)))
        wanted = np.zeros(bodies.max() + 1, bool)
        wanted[np.unique(bodies[self.head])] = True
        wanted[0] = False
        return full & self._points_in(wanted[bodies])

    def in_large_bodies(self, shell: np.ndarray) -> np.ndarray:  # [P] bool -> [P] bool
        """Those of the points that hang together with many."""
        bodies, _ = ndimage.label(self._filled(shell))
        large = np.bincount(bodies.ravel()) >= _CRUMB
        large[0] = False
        return self._points_in(large[bodies])

    def _filled(self, points: np.ndarray) -> np.ndarray:  # [P] bool -> [X, Y, Z] bool
        return (self.cells >= 0) & points[self.cells]

    def _points_in(self, cells: np.ndarray) -> np.ndarray:  # [X, Y, Z] bool -> [P] bool
        chosen = np.zeros(len(self.points), bool)
        chosen[self.cells[cells & (self.cells >= 0)]] = True
        return chosen


@dataclass(frozen=True)
class Sight:
    """Where a picture of S x S pixels shows P points and the head."""

    pixel: Tensor  # [P] int64: line * S + column, of the nearest pixel
    inside: Tensor  # [P] bool: whether the picture reaches there
    depth: Tensor  # [P] metres
    head: tuple[Tensor, Tensor]  # pixels [M] and depths [M] of the head's triangles
    side: int

    def of(self, picture: Tensor) -> Tensor:  # [S, S, ...] -> [P, ...]
        return picture.flatten(0, 1)[self.pixel]

    def nearest(self, margin: float) -> Tensor:  # [P] bool
        """Points before which nothing is, by more than ``margin`` metres."""
        block, wide = 4, -(-self.side // 4)

        def cell(pixel: Tensor) -> Tensor:
            return pixel // self.side // block * wide + pixel % self.side // block

        least = torch.full((wide * wide,), torch.inf, device=self.depth.device)
        pixel, depth = (
            torch.cat([self.pixel[self.inside], self.head[0]]),
            torch.cat([self.depth[self.inside], self.head[1]]),
        )
        least.scatter_reduce_(0, cell(pixel), depth, "amin")
        return self.depth <= least[cell(self.pixel)] + margin


class Views:
    """The pictures, and their outlines where they have one."""

    def __init__(self, head: Head, identity: Tensor, scenes: list[Scene], pictures: Tensor):
        self.head, self.identity, self.scenes = head, identity, scenes
        self.pictures = pictures.to(head.device)
        self.outlines = [[silhouette(picture) for picture in row] for row in self.pictures]
        self.count = sum(outline is not None for row in self.outlines for outline in row)

    def sights(self, cloud: RiggedGaussians) -> Iterator[tuple[Sight, Outline, Tensor]]:
        """Of every picture that has an outline: where it shows the splats, its outline, and itself [S, S, 3]."""
        for scene, outlines, pictures in zip(self.scenes, self.outlines, self.pictures, strict=True):
            vertices = scene.vertices(self.head, self.identity)
            means = cloud.pose(vertices, self.head.triangles).means
            skin = vertices[self.head.triangles].mean(1)
            for view, (outline, picture) in enumerate(zip(outlines, pictures, strict=True)):
                if outline is not None:
                    camera = scene.camera[view].resized(len(picture), len(picture))
                    pixel, depth, inside = _pixels(means, camera)
                    skin_pixel, skin_depth, reached = _pixels(skin, camera)
                    before = skin_pixel[reached], skin_depth[reached]
                    sight = Sight(pixel, inside, depth, before, len(picture))
                    yield sight, outline, picture


def _pixels(
    points: Tensor,  # [P, 3] metres
    camera: Camera,
) -> tuple[Tensor, Tensor, Tensor]:
    """The pixel [P] that shows each point, its depth [P] in metres, and whether the picture reaches there [P]."""
    places, depth = camera.project(points)
    column, line = places.floor().long().unbind(-1)
    inside = (depth > camera.near) & (column >= 0) & (line >= 0) & (column < camera.width) & (line < camera.height)
    pixel = line.clamp(0, camera.height - 1) * camera.width + column.clamp(0, camera.width - 1)
    return pixel, depth, inside


def _bound(
    points: np.ndarray,  # [P, 3] metres, at rest
    wearers: np.ndarray,  # [P] int64
    frames: TriangleFrames,  # of the head at rest
    scale: float,  # metres
) -> RiggedGaussians:
    """Round grey splats at the points, in the frames of the triangles that wear them (Eq. 5 inverted)."""
    triangle = torch.from_numpy(wearers).to(frames.centre.device)
    offsets, size = offsets_from(torch.from_numpy(points).to(frames.centre), triangle, frames)
    return RiggedGaussians(
        triangle=triangle,
        offsets=offsets,
        log_scales=(scale / size).log().expand(-1, 3).clone(),
        quats=size.new_tensor([1.0, 0, 0, 0]).repeat(len(points), 1),
        opacity_logits=size.new_full((len(points),), _OPACITY).logit(),
        sh=size.new_zeros(len(points), 1, 3),
    )


def _rows(cloud: RiggedGaussians, keep: Tensor) -> RiggedGaussians:
    keep = keep.to(cloud.triangle.device)
    return replace(cloud, triangle=cloud.triangle[keep], **{n: value[keep] for n, value in cloud.parameters().items()})
