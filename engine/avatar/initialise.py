"""Super-dense initialisation (Sec. 4.2): points evenly on every triangle of the head, sized by their neighbours."""

from __future__ import annotations

import math

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ..heads.arrays import HeadArrays
from .binding import offsets_from, triangle_frames
from .rigged import RiggedGaussians
from .sh_rotation import SH_C0

NEIGHBOURS = 3
NATURAL_COLOURS = {  # words in the names of regions, sRGB
    "eyeball": (0.94, 0.93, 0.92),
    "iris": (0.36, 0.26, 0.20),
    "pupil": (0.04, 0.04, 0.05),
    "teeth": (0.92, 0.90, 0.85),
    "tongue": (0.72, 0.40, 0.40),
    "mouth_cavity": (0.30, 0.10, 0.10),
}
_THIN = 0.3  # of a splat's size along the surface: how thick lids and lips are
_CUT = 0.6  # of a splat's size: how large those on the neck's cut are; with the neck's walls behind, they close it
_MIN_SCALE = 1e-6  # metres; points that coincide must still have a logarithm


def super_dense(
    vertices: Tensor,  # [N, 3] metres, the head in its standard pose
    triangles: Tensor,  # [M, 3]
    per_triangle: float = 10,
    opacity: float = 0.1,
    colour: float = 0.5,
    sh_degree: int = 0,
    generator: torch.Generator | None = None,
    *,
    count: int | None = None,
) -> RiggedGaussians:
    """``per_triangle`` points (the paper's K) evenly on each triangle, all triangles weighted alike.

    A draft cannot afford that: with ``per_triangle`` below 1 (then M times it is the number of points), or with
    ``count`` (which then replaces it), that many points are spread evenly by area instead, and small triangles go
    without. World scales are the root mean squared distance to the three nearest neighbours; offsets and scales are
    then taken into the triangles' frames by inverting Eq. 5. ``colour`` is sRGB in 0..1, ``opacity`` is in (0, 1).
    The same generator state gives the same Gaussians. Tensors come out on the device of ``vertices``.
    """
    if count is None and per_triangle < 1:
        count = max(1, round(per_triangle * len(triangles)))
    if count is None and per_triangle != int(per_triangle):
        raise ValueError(f"per_triangle is {per_triangle}: at least 1 it must be whole")
    if count is not None and count < 1:
        raise ValueError(f"count is {count}, at least one splat is needed")
    vertices, triangles = vertices.detach(), triangles.long()
    frames = triangle_frames(vertices, triangles)
    if count is None:
        numbers = torch.full((len(triangles),), int(per_triangle), device=vertices.device)
    else:
        numbers = _share_by_area(frames.area, count, generator)
    triangle = torch.repeat_interleave(torch.arange(len(triangles), device=vertices.device), numbers)
    rank = torch.arange(len(triangle), device=vertices.device) - (numbers.cumsum(0) - numbers)[triangle]

    # One of the six orders of the corners at random, so that neighbouring triangles do not repeat one pattern
    order = _uniform((len(triangles), 3), generator).argsort(-1).to(vertices.device)
    corners = vertices[triangles.gather(1, order)][triangle]  # [K, 3, 3]
    weights = even_barycentric(int(numbers.max())).to(vertices)[rank]  # [K, 3]
    points = (weights.unsqueeze(-1) * corners).sum(1)

    offsets, size = offsets_from(points, triangle, frames)
    scales = neighbour_distance(points).clamp_min(_MIN_SCALE).unsqueeze(-1)
    k = len(triangle)
    sh = torch.zeros(k, (sh_degree + 1) ** 2, 3).to(vertices)
    sh[:, 0] = (colour - 0.5) / SH_C0
    return RiggedGaussians(
        triangle=triangle,
        offsets=offsets,
        log_scales=(scales / size).log().expand(k, 3).clone(),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).to(vertices).repeat(k, 1),
        opacity_logits=torch.full((k,), math.log(opacity / (1 - opacity))).to(vertices),
        sh=sh,
    )


@torch.no_grad()
def paint_eyes_and_mouth(gaussians: RiggedGaussians, head: HeadArrays) -> None:
    """Gives the splats of eyes and mouth the colours that they have by nature, in place: pictures rarely show them."""
    for word, colour in NATURAL_COLOURS.items():
        gaussians.sh[_in_regions(gaussians, head, word), 0] = (torch.tensor(colour).to(gaussians.sh) - 0.5) / SH_C0


@torch.no_grad()
def thin_lids_and_lips(gaussians: RiggedGaussians, head: HeadArrays) -> None:
    """Flattens the splats of lids and lips along their triangles' normals, in place.

    Round ones stand out over the edges of an opening: they would hide a quarter of an open mouth.
    """
    # The second axis of a triangle's frame is its normal
    gaussians.log_scales[_in_regions(gaussians, head, "lid", "lips"), 1] += math.log(_THIN)


@torch.no_grad()
def shrink_neck_cut(gaussians: RiggedGaussians, head: HeadArrays) -> None:
    """Shrinks the splats that close the cut through the neck, in place.

    Its triangles are long, and their splats large: at full size they stand out around the neck's rim as a haze.
    """
    gaussians.log_scales[_in_regions(gaussians, head, "neck_cap")] += math.log(_CUT)


def _in_regions(gaussians: RiggedGaussians, head: HeadArrays, *words: str) -> Tensor:  # [K] bool
    """Splats on the triangles of ``HeadArrays.triangles_in``."""
    return torch.from_numpy(head.triangles_in(words)).to(gaussians.triangle.device)[gaussians.triangle]


def even_barycentric(count: int) -> Tensor:
    """The first ``count`` points [count, 3] of an even sequence on a triangle, as barycentric coordinates.

    The triangle is cut into four by its edges' midpoints, again and again, and consecutive points fall into different
    quarters at every level (the van der Corput sequence in base 4). The first point is the centre.
    """
    index = torch.arange(count)
    corners = torch.eye(3, dtype=torch.float64).expand(count, 3, 3)
    while bool((index > 0).any()):
        midpoints = 0.5 * (corners.roll(-1, 1) + corners.roll(-2, 1))  # opposite each corner
        children = [midpoints]
        for corner in range(3):
            child = midpoints.clone()
            child[:, corner] = corners[:, corner]
            # The child at corner i has that corner and the midpoints of its two edges, each in its own place
            children.append(child)
        corners = torch.stack(children, 1)[torch.arange(count), index % 4]
        index = index // 4
    return corners.mean(1)


def neighbour_distance(points: Tensor) -> Tensor:  # [K, 3] -> [K]
    """Root mean squared distance to the (up to) three nearest other points; a lone point has distance 0."""
    near = min(NEIGHBOURS, len(points) - 1)
    if near < 1:
        return points.new_zeros(len(points))
    positions = points.detach().cpu().double().numpy()
    distance, _ = cKDTree(positions).query(positions, k=near + 1)
    return torch.as_tensor((distance[:, 1:] ** 2).mean(1) ** 0.5).to(points)


def _share_by_area(area: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Whole numbers [M] that sum to ``count``, each within one of its triangle's share of the area."""
    edges = area.double().cpu().cumsum(0)
    ticks = (edges / edges[-1] * count - _uniform((1,), generator).double()).ceil().clamp(0, count)
    ticks[-1] = count
    return torch.diff(ticks, prepend=ticks.new_zeros(1)).long().to(area.device)


def _uniform(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator, device=generator.device).cpu()
