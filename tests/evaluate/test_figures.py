"""Figures on avatars whose truth is known by construction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from headstudio.avatar.file import Avatar
from headstudio.avatar.initialise import thin_lids_and_lips
from headstudio.avatar.rigged import RiggedGaussians
from headstudio.avatar.splats import SplatArrays
from headstudio.camera import orbit
from headstudio.evaluate.agreement import agreement
from headstudio.evaluate.closing import lids, lips
from headstudio.evaluate.coverage import DIRECTIONS, coverage, silhouette
from headstudio.evaluate.evaluate import evaluate, sessions_seconds
from headstudio.evaluate.floaters import count_far, count_floaters, distance_to_triangles, splat_axes
from headstudio.evaluate.part_pixels import part_triangles
from headstudio.evaluate.visible import pixel_area, share_picture
from headstudio.export.pictures import Stage
from headstudio.gaussians import Gaussians
from headstudio.heads.arrays import EYEBALLS, MOUTH, Controls
from headstudio.heads.skinning import skin
from headstudio.job import Event
from hypothesis import given, settings
from hypothesis import strategies as st
from support.painted_avatar import painted_avatar, shared_default_head
from support.synthetic_head import icosphere, synthetic_head

RED_HAT, WHITE_BEARD = (205, 25, 30), (236, 234, 230)
BLUE_EYES, RED_LIPS, GREEN_SKIN = (70, 125, 200), (195, 25, 40), (95, 155, 70)


@pytest.fixture(scope="module")
def stage():
    colours = {"scalp": RED_HAT, "chin_beard": WHITE_BEARD, "iris": BLUE_EYES, "pupil": (0, 0, 0), "lips": RED_LIPS}
    return Stage(painted_avatar({"face": GREEN_SKIN, "nose": GREEN_SKIN} | colours, per_triangle=2))


def test_open_eyes_show_and_blinking_lids_cover(stage):
    figures = lids(stage)
    # Two openings of about 30 mm by 10 mm
    assert 1.0 < figures["open_cm2"] < 6.0
    assert figures["share"] < 0.05
    assert figures["share"] == pytest.approx(figures["closed_cm2"] / figures["open_cm2"], abs=2e-3)
    assert figures["passes"]


def test_an_open_mouth_shows_and_lips_cover_it(stage):
    figures = lips(stage)
    assert 3.0 < figures["open_cm2"] < 12.0
    assert figures["share"] < 0.05
    assert figures["passes"]


@pytest.mark.parametrize(("figure", "words"), [(lids, ("lid_",)), (lips, ("lips",))])
def test_lids_and_lips_without_splats_cover_nothing(figure, words):
    avatar = painted_avatar({})
    bare = avatar.head.triangles_in(words)[avatar.splats.triangle]
    kept = SplatArrays(**{name: array[~bare] for name, array in vars(avatar.splats).items()})
    figures = figure(Stage(replace(avatar, splats=kept)))
    assert figures["share"] > 0.15
    assert not figures["passes"]


def test_eyes_that_show_nothing_do_not_pass():
    avatar = painted_avatar({})
    eyes = avatar.head.triangles_in(EYEBALLS)[avatar.splats.triangle]
    kept = SplatArrays(**{name: array[~eyes] for name, array in vars(avatar.splats).items()})
    assert lids(Stage(replace(avatar, splats=kept))) == {
        "open_cm2": 0.0,
        "closed_cm2": 0.0,
        "share": None,
        "passes": False,
        "clear": 0.0,
        "through_cm2": 0.0,
    }


def without_effect(avatar, *controls, opened=0.0):
    """The avatar with its jaw open so far at rest, and with controls that move nothing."""
    head = avatar.head
    rows = [head.controls.names.index(name) for name in controls]
    matrices = [head.controls.to_expression.copy(), head.controls.to_joints.copy()]
    for matrix in matrices:
        matrix[rows] = 0
    vertices = skin(head, *head.drive({"jawOpen": opened}))
    return replace(avatar, head=replace(head, vertices=vertices, controls=Controls(head.controls.names, *matrices)))


def test_thin_lips_leave_the_opening_clear_and_still_close(stage):
    avatar = painted_avatar({}, per_triangle=2)
    splats = RiggedGaussians.from_arrays(avatar.splats)
    thin_lids_and_lips(splats, avatar.head)
    thin = Stage(replace(avatar, splats=splats.to_arrays()))
    for figure in (lids, lips):
        assert figure(thin)["clear"] > figure(stage)["clear"] + 0.05
        assert figure(thin)["share"] < 0.05
    assert lips(thin)["clear"] > 0.85


def test_lids_that_never_close_and_lips_that_never_move_are_told():
    avatar = painted_avatar({}, per_triangle=2)
    still = lids(Stage(without_effect(avatar, "eyeBlinkLeft", "eyeBlinkRight")))
    assert (still["share"], still["passes"]) == (1.0, False)
    agape = lips(Stage(without_effect(avatar, "jawOpen", opened=1.0)))
    assert (agape["share"], agape["passes"]) == (1.0, False)
    glued = lips(Stage(without_effect(avatar, "jawOpen")))
    assert (glued["share"], glued["passes"], glued["shows"]) == (None, False, False)


def test_cheeks_that_let_a_little_through_are_no_open_mouth():
    """A cavity lies behind the whole lower face: 2 % of it, which nobody sees, are a quarter of what an open mouth
    shows."""
    avatar = painted_avatar({}, per_triangle=2)
    skin_splats = ~avatar.head.triangles_in(("lips", "lid_", *EYEBALLS, *MOUTH))[avatar.splats.triangle]
    opacity = np.where(skin_splats, 0.85, avatar.splats.opacity)
    scale = np.where(skin_splats[:, None], 0.7 * avatar.splats.scale, avatar.splats.scale)
    figures = lips(Stage(replace(avatar, splats=replace(avatar.splats, opacity=opacity, scale=scale))))
    assert figures["through_cm2"] + figures["closed_cm2"] > 0.25 * figures["open_cm2"]
    assert figures["passes"]


def test_splats_that_hang_over_the_opening_leave_less_of_it_clear(stage):
    avatar = painted_avatar({}, per_triangle=2)
    lip = avatar.head.triangles_in(("lips",))[avatar.splats.triangle]
    scale = np.where(lip[:, None], 2.0 * avatar.splats.scale, avatar.splats.scale)
    swollen = lips(Stage(replace(avatar, splats=replace(avatar.splats, scale=scale))))
    assert 0.6 < lips(stage)["clear"] < 1
    assert swollen["clear"] < lips(stage)["clear"] - 0.15


def test_heads_without_eyes_and_mouth_have_no_such_figures():
    head = replace(synthetic_head(), identity=np.zeros((0, 162, 3), np.float32), identity_names=())
    avatar = painted_avatar({}, head, prompt="red hair")
    figures = evaluate(avatar)
    assert (figures["lids"], figures["lips"], figures["colours"]) == (None, None, None)
    assert figures["coverage"]["least"] > 0.9


def test_regions_of_the_default_head():
    head = shared_default_head()
    eyes, mouth = head.triangles_in(EYEBALLS), head.triangles_in(MOUTH)
    assert 200 < eyes.sum() < 1000
    assert not (eyes & mouth).any()
    scalp, below = part_triangles(head, "hair", False), part_triangles(head, "hair", True)
    height = head.vertices[head.triangles].mean(1)[:, 1]
    assert (below <= scalp).all()
    assert 50 < below.sum() < scalp.sum() - 100
    assert height[below].max() < height[scalp & ~below].min()


def test_area_of_a_square_of_known_size():
    """A flat, opaque sheet of 2 x 1 cm, behind half of which lies another."""
    side = torch.arange(-50, 50) * 2e-4 + 1e-4
    y, x = torch.meshgrid(side * 0.5, side, indexing="ij")
    sheet = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3)
    in_front = sheet[sheet[:, 0] > 0] + torch.tensor([0.0, 0.0, 0.01])
    means = torch.cat([sheet, in_front])
    count = len(means)
    gaussians = Gaussians(
        means,
        torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4),
        torch.full((count, 3), 8e-5),
        torch.full((count,), 0.99),
        torch.zeros(count, 1, 3),
    )
    camera = orbit(0.0, 0.0, 0.5, 4.0, 256)
    first = torch.arange(count) < len(sheet)
    behind, ahead = share_picture(gaussians, first, camera), share_picture(gaussians, ~first, camera)
    assert behind.sum().item() * pixel_area(camera, 0.5) == pytest.approx(1.0, rel=0.05)
    # Nearer to the camera, it is a little larger on the plane at 0.5 m
    assert ahead.sum().item() * pixel_area(camera, 0.49) == pytest.approx(1.0, rel=0.05)
    both = share_picture(gaussians, torch.ones(count, dtype=torch.bool), camera)
    assert (both - behind - ahead).abs().max() < 1e-5


def test_colours_that_agree(stage):
    prompt = "an elf with green skin, a white beard, blue eyes, red lips and a red hat"
    figures = agreement(stage, prompt)
    assert (figures["agreeing"], figures["of"]) == (5, 5)
    assert {claim["part"] for claim in figures["claims"]} == {"skin", "beard", "eyes", "lips", "headgear"}
    assert all(claim["distance"] < 15 for claim in figures["claims"])
    assert figures["mean_distance"] == pytest.approx(np.mean([c["distance"] for c in figures["claims"]]), abs=0.06)
    red = next(claim for claim in figures["claims"] if claim["part"] == "headgear")
    assert np.abs(np.array(red["seen"]) - RED_HAT).max() < 12


def test_colours_that_do_not_agree(stage):
    figures = agreement(stage, "a man with green hair, a black beard and brown skin")
    assert (figures["agreeing"], figures["of"]) == (0, 3)
    hair = next(claim for claim in figures["claims"] if claim["part"] == "hair")
    assert (hair["said"], hair["nearest"], hair["agrees"]) == ("green", "red", False)
    assert hair["distance"] > 60


def test_no_colour_said_no_figure(stage):
    assert agreement(stage, "a man with a hat") is None


def test_a_part_that_nothing_shows_of_does_not_agree():
    avatar = painted_avatar({})
    hat = part_triangles(avatar.head, "hair", False)[avatar.splats.triangle]
    kept = SplatArrays(**{name: array[~hat] for name, array in vars(avatar.splats).items()})
    figures = agreement(Stage(replace(avatar, splats=kept)), "a red hat")
    assert figures == {
        "claims": [{"part": "headgear", "said": "red", "seen": None, "agrees": False}],
        "agreeing": 0,
        "of": 1,
        "mean_distance": None,
    }


def test_coverage_of_an_opaque_head_and_of_one_with_a_hole(stage):
    whole = coverage(stage)
    assert 0.99 < whole["least"] <= whole["mean"] <= 1
    avatar = painted_avatar({})
    centre = avatar.head.vertices[avatar.head.triangles].mean(1)
    side = (centre[:, 0] > 0)[avatar.splats.triangle]
    opacity = np.where(side, 0.0, avatar.splats.opacity).astype(np.float32)
    half = coverage(Stage(replace(avatar, splats=replace(avatar.splats, opacity=opacity))))
    assert 0.45 < half["least"] < 0.65 < half["mean"]
    assert half["least_view"][0] in (0.0, 180.0)
    assert coverage(Stage(replace(avatar, splats=replace(avatar.splats, opacity=0 * opacity))))["mean"] == 0


def test_the_26_directions_are_those_of_a_cube():
    assert len(set(DIRECTIONS)) == 26
    assert all(abs(elevation) in (0, 45, 89) and azimuth % 45 == 0 for azimuth, elevation in DIRECTIONS)


def test_silhouette_of_a_sphere():
    """A sphere of radius r at distance d covers the directions within asin(r / d)."""
    points, triangles = icosphere(4)
    camera = orbit(30.0, 20.0, 0.8, 30.0, 256)
    mask = silhouette(points * 0.1, triangles, camera)
    radius = camera.intrinsics[1, 1].item() * np.tan(np.arcsin(0.1 / 0.8))
    y, x = np.mgrid[:256, :256] + 0.5
    distance = np.hypot(x - 128, y - 128)
    assert mask[distance < radius - 1.5].all()
    assert not mask[distance > radius + 1.5].any()


def brute_force(point, corners):
    """Distance to triangles by dense sampling of barycentric coordinates."""
    u, v = np.meshgrid(np.linspace(0, 1, 121), np.linspace(0, 1, 121))
    inside = u + v <= 1
    weights = np.stack([1 - u[inside] - v[inside], u[inside], v[inside]], 1)
    return min(np.linalg.norm(weights @ triangle - point, axis=1).min() for triangle in corners)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_distance_to_triangles(seed):
    rng = np.random.default_rng(seed)
    corners, point = rng.normal(size=(3, 3, 3)), 1.5 * rng.normal(size=3)
    exact = distance_to_triangles(point, corners)
    sampled = brute_force(point, corners)
    assert exact <= sampled + 1e-9
    assert sampled - exact < 0.05


def test_distance_to_a_collapsed_triangle():
    line = np.array([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]], [[5.0, 5, 5]] * 3])
    assert distance_to_triangles(np.array([1.5, 0.25, 0]), line) == pytest.approx(0.25)
    assert distance_to_triangles(np.array([5.0, 5, 5]), line) == 0


def test_floaters_are_counted():
    head = shared_default_head()
    rng = np.random.default_rng(0)
    near = head.vertices[rng.integers(len(head.vertices), size=200)] + rng.uniform(-0.015, 0.015, (200, 3))
    far = np.array([[0, 0.3, 0], [0.2, 0, 0], [0, 0, 0.16], [0, 0, 0.2]])
    assert count_far(np.concatenate([near, far]), head.vertices, head.triangles) == 4
    assert count_far(np.zeros((0, 3)), head.vertices, head.triangles) == 0


def test_what_is_attached_to_the_head_does_not_float():
    head = shared_default_head()
    rng = np.random.default_rng(0)
    top = head.vertices[head.vertices[:, 1].argmax()]
    hat = top + rng.uniform((-0.03, 0.0, -0.03), (0.03, 0.2, 0.03), (3000, 3))
    loose = top + rng.uniform((-0.02, 0.38, -0.02), (0.02, 0.42, 0.02), (100, 3))
    single = np.array([[0.3, 0.0, 0.0]])
    shape = head.vertices, head.triangles
    assert count_far(hat, *shape) > 1000
    points = np.concatenate([hat, loose, single])
    small = np.zeros((len(points), 3, 3))
    assert count_floaters(hat, small[: len(hat)], *shape) == 0
    assert count_floaters(points, small, *shape) == 101


def test_a_hat_of_few_large_splats_is_attached_and_a_huge_splat_bridges_no_gap():
    head = shared_default_head()
    shape = head.vertices, head.triangles
    top = head.vertices[head.vertices[:, 1].argmax()]
    # A wall 20 cm high, its splats 2 cm apart and 1 cm in standard deviation
    y, x = np.meshgrid(np.arange(0, 0.2, 0.02), np.arange(-0.06, 0.061, 0.02), indexing="ij")
    wall = top + np.stack([x, y, 0 * x], -1).reshape(-1, 3)
    large = splat_axes(np.tile([1.0, 0, 0, 0], (len(wall), 1)), np.full((len(wall), 3), 0.01))
    assert count_floaters(wall, large, *shape) == 0
    assert count_floaters(wall, 0.01 * large, *shape) > 20
    loose = top + [0, 0.3, 0] + 0.004 * np.arange(12).reshape(4, 3)
    points = np.concatenate([wall, loose])
    assert count_floaters(points, np.concatenate([large, 20 * large[:4]]), *shape) == 4
    # 6 cm above the wall's last row: a splat of 3 cm reaches down into it, one of 1 cm does not
    above = np.concatenate([wall, wall[-1:] + np.array([0, 0.06, 0])])
    assert [count_floaters(above, np.concatenate([large, k * large[:1]]), *shape) for k in (1, 3)] == [1, 0]


def test_axes_of_a_turned_splat():
    half = np.sqrt(0.5)
    axes = splat_axes(np.array([[half, 0, 0, half]]), np.array([[1.0, 2.0, 3.0]]))  # a quarter turn about z
    np.testing.assert_allclose(axes[0].T, [[0, 1, 0], [-2, 0, 0], [0, 0, 3]], atol=1e-6)


def test_splats_are_counted_and_faint_ones_are_no_floaters():
    avatar = painted_avatar({})
    splats = avatar.splats
    offset, opacity = splats.offset.copy(), splats.opacity.copy()
    offset[:5, 1] = 200.0  # along the normal, in sqrt(area)
    opacity[3:10] = 0.01
    figures = evaluate(Avatar(avatar.head, replace(splats, offset=offset, opacity=opacity), {"prompt": "x", "seed": 4}))
    assert (figures["splats"], figures["faint_splats"], figures["floaters"]) == (len(splats), 7, 3)
    assert (figures["prompt"], figures["seed"], figures["colours"]) == ("x", 4, None)


def test_an_avatar_without_splats():
    splats = painted_avatar({}).splats
    empty = SplatArrays(**{name: array[:0] for name, array in vars(splats).items()})
    figures = evaluate(Avatar(shared_default_head(), empty, {"prompt": "a red hat"}))
    assert (figures["splats"], figures["floaters"], figures["coverage"]["mean"]) == (0, 0, 0)


def test_seconds_are_those_of_all_sessions():
    def event(kind, time):
        return Event(kind, time, 0, {}, 0)

    events = [event("started", 10), event("progress", 13), event("started", 100), event("done", 107.5)]
    assert sessions_seconds(events) == 10.5
    assert sessions_seconds([]) == 0
