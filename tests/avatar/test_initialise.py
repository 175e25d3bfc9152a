"""Super-dense start: evenness, equal weight per triangle, Eq. 5 inverted, neighbours against brute force."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from headstudio.avatar.binding import triangle_frames
from headstudio.avatar.initialise import (
    even_barycentric,
    neighbour_distance,
    paint_eyes_and_mouth,
    shrink_neck_cut,
    super_dense,
    thin_lids_and_lips,
)
from headstudio.avatar.sh_rotation import SH_C0
from headstudio.camera import orbit
from headstudio.evaluate.coverage import silhouette
from headstudio.heads.head import Head
from headstudio.rasterise import rasterise
from support.painted_avatar import shared_default_head
from support.synthetic_head import synthetic_head


@pytest.fixture(scope="module")
def head() -> Head:
    return Head(synthetic_head(2), dtype=torch.float64)


def test_ten_points_inside_every_triangle(head):
    gaussians = super_dense(head.template, head.triangles, 10)
    assert torch.bincount(gaussians.triangle).tolist() == [10] * len(head.triangles)
    means = gaussians.pose(head.template, head.triangles).means
    corners = head.template[head.triangles][gaussians.triangle].transpose(1, 2)  # columns are corners
    weights = torch.linalg.solve(corners, means)  # valid: no triangle's plane holds the origin
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))  # on the plane
    assert weights.min() > 0  # and inside


def test_world_scale_is_the_root_mean_squared_distance_to_three_neighbours(head):
    gaussians = super_dense(head.template, head.triangles, 3).pose(head.template, head.triangles)
    distances = torch.cdist(gaussians.means, gaussians.means).fill_diagonal_(torch.inf)
    expected = distances.topk(3, largest=False).values.square().mean(1).sqrt()
    torch.testing.assert_close(gaussians.scales, expected.unsqueeze(1).expand(-1, 3), atol=1e-9, rtol=1e-6)


def test_starting_appearance(head):
    gaussians = super_dense(head.template, head.triangles, 1, opacity=0.3, colour=0.8, sh_degree=2)
    posed = gaussians.pose(head.template, head.triangles)
    torch.testing.assert_close(posed.opacities, torch.full_like(posed.opacities, 0.3))
    torch.testing.assert_close(0.5 + SH_C0 * posed.sh[:, 0], torch.full_like(posed.sh[:, 0], 0.8))
    assert posed.sh.shape[1] == 9
    assert not posed.sh[:, 1:].any()


@pytest.mark.parametrize("count", [1, 4, 16, 64])
def test_a_power_of_four_points_falls_into_equal_cells(count):
    """4^n points of the sequence: one in each of the 4^n cells of a triangle cut n times by its midpoints."""
    points = even_barycentric(count)
    torch.testing.assert_close(points.sum(1), torch.ones(count).double())
    side = round(count**0.5)
    cells = {(*np.floor(side * p[:2].numpy()).astype(int), int(np.floor(side * p[2].item()))) for p in points}
    assert len(cells) == count
    if count == 1:
        torch.testing.assert_close(points, torch.full((1, 3), 1 / 3).double())


def test_ten_points_are_more_even_than_chance():
    """Smallest gap between two points, against random ones."""
    triangle = torch.tensor([[0.0, 0], [1, 0], [0.5, 3**0.5 / 2]]).double()
    gap = torch.pdist(even_barycentric(10) @ triangle).min()
    weights = torch.distributions.Dirichlet(torch.ones(3).double())
    torch.manual_seed(0)
    chance = torch.stack([torch.pdist(weights.sample((10,)) @ triangle).min() for _ in range(200)])
    assert gap > 2 * chance.median()


def test_thinning_spreads_by_area(head):
    count = 2000
    gaussians = super_dense(head.template, head.triangles, count=count)
    assert len(gaussians) == count
    a, b, c = (head.template[head.triangles[:, corner]] for corner in range(3))
    area = torch.linalg.cross(b - a, c - a).norm(dim=1)
    share = count * area / area.sum()
    numbers = torch.bincount(gaussians.triangle, minlength=len(area))
    assert (numbers - share).abs().max() < 1 + 1e-6
    # Also where a triangle has less than one splat to itself
    few = torch.bincount(super_dense(head.template, head.triangles, 0.25).triangle, minlength=len(area))
    assert few.sum() == round(0.25 * len(area))
    assert (few - share * few.sum() / count).abs().max() < 1 + 1e-6


def test_same_seed_same_start_and_other_seed_another(head):
    starts = [
        super_dense(head.template, head.triangles, 3, generator=torch.Generator().manual_seed(seed))
        for seed in (4, 4, 5)
    ]
    assert torch.equal(starts[0].offsets, starts[1].offsets)
    assert not torch.equal(starts[0].offsets, starts[2].offsets)
    torch.manual_seed(1)
    first = super_dense(head.template, head.triangles, 3)
    torch.manual_seed(2)
    assert torch.equal(first.offsets, super_dense(head.template, head.triangles, 3).offsets)


def test_degenerate_head_and_coincident_points_stay_finite():
    vertices = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0.2, 0.2, 0.2]])
    gaussians = super_dense(vertices, torch.tensor([[0, 1, 2], [3, 3, 3]]), 5)
    posed = gaussians.pose(vertices, torch.tensor([[0, 1, 2], [3, 3, 3]]))
    for part in (posed.means, posed.scales, gaussians.log_scales, gaussians.offsets):
        assert part.isfinite().all()
    assert neighbour_distance(torch.zeros(1, 3)).tolist() == [0.0]
    assert neighbour_distance(torch.tensor([[0.0, 0, 0], [3, 4, 0]])).tolist() == [5.0, 5.0]


@pytest.mark.parametrize(("arguments", "message"), [((2.5,), "whole"), ((0,), None)])
def test_numbers_that_make_no_sense(head, arguments, message):
    if message is None:
        assert len(super_dense(head.template, head.triangles, *arguments)) == 1  # below one: at least one splat
        with pytest.raises(ValueError, match="at least one"):
            super_dense(head.template, head.triangles, count=0)
    else:
        with pytest.raises(ValueError, match=message):
            super_dense(head.template, head.triangles, *arguments)


def test_eyes_and_mouth_start_in_natural_colours():
    head = shared_default_head()
    vertices, triangles = torch.from_numpy(head.vertices), torch.from_numpy(head.triangles.astype(np.int64))
    gaussians = super_dense(vertices, triangles, 1, colour=0.5)
    paint_eyes_and_mouth(gaussians, head)
    colours = gaussians.sh[:, 0].numpy() * 0.28209479177 + 0.5
    for word, least, most in (("teeth", 0.8, 1.0), ("pupil", 0.0, 0.1), ("mouth_cavity", 0.0, 0.4)):
        inside = head.triangles_in((word,))[gaussians.triangle.numpy()]
        assert inside.any()
        assert least < colours[inside].min() <= colours[inside].max() < most, word
    skin = head.triangles_in(("face", "scalp", "lips"))[gaussians.triangle.numpy()]
    np.testing.assert_allclose(colours[skin], 0.5, atol=1e-6)


def test_lids_and_lips_are_flat_on_the_surface():
    head = shared_default_head()
    vertices, triangles = torch.from_numpy(head.vertices), torch.from_numpy(head.triangles.astype(np.int64))
    gaussians = super_dense(vertices, triangles, 1)
    round_scales = gaussians.pose(vertices, triangles).scales
    thin_lids_and_lips(gaussians, head)
    posed = gaussians.pose(vertices, triangles)
    normal = triangle_frames(vertices, triangles).rotation[:, :, 1][gaussians.triangle]
    w, axis = posed.quats[:, :1], posed.quats[:, 1:]
    local = normal - 2 * w * torch.linalg.cross(axis, normal)  # into the splat's own axes
    local = local + 2 * torch.linalg.cross(axis, torch.linalg.cross(axis, normal))
    thickness = (posed.scales * local).norm(dim=1) / round_scales[:, 0]
    flat = torch.from_numpy(head.triangles_in(("lid", "lips")))[gaussians.triangle]
    torch.testing.assert_close(thickness[flat], torch.full_like(thickness[flat], 0.3), atol=1e-3, rtol=0)
    torch.testing.assert_close(thickness[~flat], torch.ones_like(thickness[~flat]), atol=1e-3, rtol=0)
    assert torch.equal(posed.scales[:, [0, 2]], round_scales[:, [0, 2]])


def test_the_neck_s_cut_is_closed_without_a_haze_around_its_rim():
    arrays = shared_default_head()
    head = Head(arrays)
    in_cut = arrays.triangles_in(("neck_cap",))
    whole = super_dense(head.template, head.triangles, 2, opacity=0.95)
    cut = torch.from_numpy(in_cut)[whole.triangle]
    camera = orbit([0.0], -80.0, 2.4 * arrays.unit, 48.0, 192, torch.as_tensor(arrays.centre))[0]
    shape = silhouette(arrays.vertices, arrays.triangles[in_cut], camera)  # all of it is in sight from below
    inner = cv2.erode(shape.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0

    def alpha(opacity_logits):
        gaussians = replace(whole, opacity_logits=opacity_logits)
        return rasterise(gaussians.pose(head.template, head.triangles), camera).alpha.reshape(shape.shape).numpy()

    alone = whole.opacity_logits.masked_fill(~cut, -20.0)
    before, haze = whole.log_scales.clone(), alpha(alone)[~shape].sum()
    shrink_neck_cut(whole, arrays)
    assert alpha(alone)[~shape].sum() < 0.15 * haze
    closed = alpha(whole.opacity_logits)[inner]
    assert closed.mean() > 0.999
    assert closed.min() > 0.95
    assert torch.equal(whole.log_scales[~cut], before[~cut])
