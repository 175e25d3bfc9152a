"""Synthetic heads: one seed is one picture, colours are where the caption says, and everything moves along."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from headstudio.avatar.binding import triangle_frames
from headstudio.camera import orbit
from headstudio.rasterise import rasterise
from headstudio.starter.body import Body, SkinPoints, scatter
from headstudio.starter.character import ROLES, Character, in_role, sample_character
from headstudio.starter.cloud import Cloud, bind_cloud, frames_along
from headstudio.starter.dataset import make_shard
from headstudio.starter.hair import grow_lashes
from headstudio.starter.identity import sample_identity
from headstudio.starter.scene import Studio
from headstudio.starter.vocabulary import COLOURS, EYEWEAR, HAIR, HAIR_STYLES, HEADGEAR, SKIN

PLAIN = Character(seed=5, skin="fair", hair="bald", hair_colour="black")


@pytest.fixture(scope="module")
def studio():
    return Studio()


def portrait(studio: Studio, character: Character, azimuth: float = 0.0, size: int = 128):
    """The character at rest, and where its landmarks are: (rgba [S, S, 4] in 0..1, project)."""
    model = studio.build(character)
    head = studio.head
    vertices = head(torch.zeros(1, head.expression_size), torch.zeros(1, head.joint_count, 3), model.identity[None])[0]
    camera = orbit(azimuth, 5.0, 2.6 * studio.arrays.unit, 50.0, size)
    with torch.no_grad():
        render = rasterise(model.gaussians.pose(vertices, head.triangles), camera)
    body = Body(studio.arrays, studio.skin, model.identity.numpy())

    def patch(point, radius: int = 2) -> np.ndarray:
        """Median colour around a point of the head [3]."""
        pixel = camera.project(torch.as_tensor(point, dtype=torch.float32)[None])[0][0].numpy()
        x, y = np.floor(pixel).astype(int)
        square = render.colour[y - radius : y + radius + 1, x - radius : x + radius + 1].numpy()
        return np.median(square.reshape(-1, 3), 0)

    return render, body, patch


def nearest(colour: np.ndarray, table: dict) -> str:
    """The name whose colour is nearest in CIELAB's hue and chroma, and half as much in its lightness."""

    def lab(rgb):
        return cv2.cvtColor(np.asarray(rgb, np.float32)[None, None], cv2.COLOR_RGB2LAB)[0, 0]

    names = list(table)
    distances = [np.linalg.norm((lab(colour) - lab(np.array(table[name]) / 255)) * [0.6, 1, 1]) for name in names]
    return names[int(np.argmin(distances))]


def top_of_head(body: Body) -> np.ndarray:
    return body.skull + body.skull_radii * [0, 0.75, 0.62]


@pytest.mark.parametrize("colour", ["blonde", "blue", "green", "pink", "red", "black", "white", "orange"])
def test_hair_has_the_colour_that_the_caption_says(studio, colour):
    _, body, patch = portrait(studio, replace(PLAIN, hair="short", hair_colour=colour))
    assert nearest(patch(top_of_head(body)), HAIR) == colour


@pytest.mark.parametrize("colour", ["green", "blue", "red", "purple", "yellow", "dark", "pale", "turquoise"])
def test_skin_has_the_colour_that_the_caption_says(studio, colour):
    _, body, patch = portrait(studio, replace(PLAIN, skin=colour))
    forehead = 0.5 * (body.landmarks[10] + 0.5 * (body.landmarks[105] + body.landmarks[334]))
    assert nearest(patch(forehead), SKIN) == colour


@pytest.mark.parametrize("colour", ["red", "blue", "yellow", "purple", "black", "white"])
@pytest.mark.parametrize("headgear", ["hat", "beanie", "helmet"])
def test_headgear_has_the_colour_that_the_caption_says(studio, headgear, colour):
    _, body, patch = portrait(studio, replace(PLAIN, headgear=headgear, headgear_colour=colour))
    place = body.skull + body.skull_radii * [0.25, 0.9, 0.7]
    # White in its own baked shade is the colour called silver
    others = {name: value for name, value in COLOURS.items() if name != "silver"}
    assert nearest(patch(place), others) == colour


def test_beards_are_on_the_chin_and_follow_the_jaw(studio):
    character = replace(PLAIN, beard="short", beard_colour="blue")
    _, body, patch = portrait(studio, character)
    chin = body.landmarks[152] + [0, 0.012, 0]
    assert nearest(patch(chin), {"skin": SKIN["fair"], "beard": HAIR["blue"]}) == "beard"
    model = studio.build(character)
    expression, joints = studio.arrays.drive({"jawOpen": 1.0})
    rest = studio.head(torch.zeros(1, len(expression)), torch.zeros(1, len(joints), 3), model.identity[None])[0]
    opened = studio.head(torch.from_numpy(expression)[None], torch.from_numpy(joints)[None], model.identity[None])[0]
    before, after = (model.gaussians.pose(v, studio.head.triangles).means for v in (rest, opened))
    blue = model.gaussians.sh[:, 0, 2] - model.gaussians.sh[:, 0, 0] > 1
    low = blue & (before[:, 1] < body.landmarks[17][1])
    assert low.sum() > 100
    assert (after - before)[low, 1].median() < -0.006  # metres


def test_worn_things_do_not_follow_the_face(studio):
    model = studio.build(
        replace(PLAIN, headgear="hat", headgear_colour="blue", eyewear="glasses", eyewear_colour="green")
    )
    expression, joints = studio.arrays.drive({"browInnerUp": 1.0, "eyeBlinkLeft": 1.0, "jawOpen": 0.6})
    rest = studio.head(torch.zeros(1, len(expression)), torch.zeros(1, len(joints), 3), model.identity[None])[0]
    moved = studio.head(torch.from_numpy(expression)[None], torch.from_numpy(joints)[None], model.identity[None])[0]
    before, after = (model.gaussians.pose(v, studio.head.triangles).means for v in (rest, moved))
    worn = torch.arange(len(before)) >= len(studio.skin.triangles) + 130  # behind the skin and the brows
    assert worn.sum() > 2000
    assert (after - before)[worn].norm(dim=1).quantile(0.98) < 0.004


def test_irises_have_their_colour(studio):
    for colour in ("blue", "red", "green"):
        model = studio.build(replace(PLAIN, eye_colour=colour))
        iris = studio.skin.mask("iris")
        seen = model.gaussians.sh[: len(iris), 0][torch.from_numpy(iris)].median(0).values * 0.28209479 + 0.5
        assert nearest(seen.numpy(), {"blue": (70, 125, 200), "red": (205, 30, 30), "green": (70, 140, 75)}) == colour


@pytest.mark.parametrize("sex", ["man", "woman"])
def test_brows_are_two_strips_with_bare_skin_between(studio, sex):
    body = Body(studio.arrays, studio.skin, np.zeros(studio.head.identity_size, np.float32))
    strip, x = body.brow_strip(sex), body.points[:, 0]
    inner = abs(body.landmarks[133][0])
    assert 0.9 < strip.max() <= 1.0
    assert not strip[np.abs(x) < inner].any()
    left, right = (float((strip * body.areas)[side * x > 0].sum()) for side in (1, -1))
    assert left == pytest.approx(right, rel=0.05)
    # Each a few millimetres high, within the landmarks' edges and the thickness of the hairs
    grown = body.points[(strip > 0.5) & (x > 0)]
    upper, lower = (max(body.landmarks[i][1] for i in row) for row in ((336, 296, 334, 293, 300), (282, 283)))
    assert grown[:, 1].max() < upper + 0.004
    assert grown[:, 1].min() > lower - 0.012
    _, _, patch = portrait(studio, replace(PLAIN, sex=sex))
    dark = (patch(body.landmarks[105]).mean(), patch(body.landmarks[334]).mean())
    between = 0.5 * (body.landmarks[107] + body.landmarks[336])
    assert max(dark) < patch(between, 1).mean() - 0.15


def test_lashes_follow_the_upper_lids(studio):
    rng = np.random.default_rng(0)
    body = Body(studio.arrays, studio.skin, np.zeros(studio.head.identity_size, np.float32))
    (lashes,) = grow_lashes(replace(PLAIN, sex="woman"), body, rng)
    frames = triangle_frames(torch.from_numpy(body.vertices.astype(np.float32)), studio.head.triangles)
    bound = bind_cloud(lashes, frames)
    expression, joints = studio.arrays.drive({"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})
    shut = studio.head(torch.from_numpy(expression)[None], torch.from_numpy(joints)[None])[0]
    before, after = lashes.points[:, 1], bound.pose(shut, studio.head.triangles).means[:, 1].numpy()
    assert (before > body.eyes[0, 1]).mean() > 0.95
    assert np.median(after - before) < -0.004  # metres
    assert {studio.arrays.region_names[r][:3] for r in studio.arrays.region[lashes.triangles]} == {"lid"}


@pytest.mark.parametrize("hair", HAIR_STYLES)
def test_hair_leaves_the_face_free_and_covers_the_back(studio, hair):
    character = replace(PLAIN, hair=hair, hair_colour="blue")
    front, body, patch = portrait(studio, character)
    assert nearest(patch(body.nose_tip), {"skin": SKIN["fair"], "hair": HAIR["blue"]}) == "skin"
    _, body, patch = portrait(studio, character, azimuth=180.0)
    back = body.skull + body.skull_radii * [0, 0.3, -0.95]
    found = nearest(patch(back), {"skin": SKIN["fair"], "hair": HAIR["blue"]})
    assert found == ("skin" if hair in ("bald", "mohawk") else "hair") or hair in ("mohawk", "buzz")
    assert 0.05 < float(front.alpha.mean()) < 0.75


@pytest.mark.parametrize("thing", [*HEADGEAR[1:], *EYEWEAR[1:]])
def test_everything_worn_is_seen(studio, thing):
    field = "headgear" if thing in HEADGEAR else "eyewear"
    dressed, _, _ = portrait(studio, replace(PLAIN, **{field: thing, f"{field}_colour": "green"}))
    bare, _, _ = portrait(studio, PLAIN)
    changed = (dressed.colour - bare.colour).abs().sum(-1) > 0.3
    assert changed.float().mean() > (0.008 if field == "eyewear" else 0.02)


def test_the_head_has_no_holes(studio):
    """Inside its outline the bald head is opaque from all sides."""
    for azimuth in (0.0, 60.0, 120.0, 180.0, -90.0):
        render, _, _ = portrait(studio, PLAIN, azimuth)
        inside = cv2.erode((render.alpha.numpy() > 0.5).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert float(render.alpha.numpy()[inside].min()) > 0.9, azimuth


def test_shards_are_the_same_for_the_same_seed(studio):
    first, again, other = (make_shard(studio, seed, 3, characters=2, views=2) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.pictures, again.pictures)
    np.testing.assert_array_equal(first.conditions, again.conditions)
    np.testing.assert_array_equal(first.characters, again.characters)
    assert not np.array_equal(first.pictures, other.pictures)
    assert first.pictures.shape == (4, 128, 128, 4)
    assert first.conditions.shape == (4, 128, 128, 3)
    # Every picture shows something, and no colour is brighter than its coverage allows by more than a rounding
    coverage = first.pictures[..., 3].astype(int)
    assert (coverage.reshape(4, -1).mean(1) > 12).all()
    assert (first.pictures[..., :3].astype(int).max(-1) <= coverage * 1.15 + 3).all()


def test_close_ups_show_the_face_large(studio):
    """The same character's pictures: the landmark map's lines span more of a close-up than of the others."""
    shard = make_shard(studio, 3, 5, characters=3, views=4, close_ups=2)

    def height(condition) -> int:
        return int(np.ptp(np.flatnonzero(condition.max(-1).max(-1) > 20)))

    heights = np.array([height(condition) for condition in shard.conditions]).reshape(3, 4)
    assert (heights[:, :2] > 0.6 * 128).all()
    assert (heights[:, 2:] < 0.6 * 128).all()
    assert heights[:, :2].mean() > 1.6 * heights[:, 2:].mean()
    assert (shard.pictures.reshape(3, 4, 128, 128, 4)[:, :2, 48:80, 48:80, 3] > 250).all()


def test_all_roles_can_be_built(studio):
    rng = np.random.default_rng(0)
    for role in ROLES:
        model = studio.build(in_role(sample_character(rng), role, rng))
        assert 15_000 < len(model.gaussians) < 35_000, (role, len(model.gaussians))
        for name, value in model.gaussians.parameters().items():
            assert torch.isfinite(value).all(), (role, name)


def test_identities_are_people(studio):
    """No face strays from the average by more than real ones do, and left matches right."""
    rng = np.random.default_rng(4)
    spread = []
    for _ in range(40):
        character = replace(sample_character(rng), role="", ears="round")
        identity = sample_identity(character, studio.arrays, rng)
        assert np.abs(identity).max() <= 1.5
        names = studio.arrays.identity_names
        for row, name in enumerate(names):
            if "/l-" in name:
                assert identity[row] == identity[names.index(name.replace("/l-", "/r-"))], name
        body = Body(studio.arrays, studio.skin, identity)
        away = np.linalg.norm(body.vertices - studio.arrays.vertices, axis=1)
        spread.append(away.mean())
        assert away.max() < 0.07, character
    assert 0.003 < np.mean(spread) < 0.02  # metres


def test_skin_points_tile_the_head(studio):
    arrays, skin = studio.arrays, SkinPoints.of(studio.arrays)
    body = Body(arrays, skin, np.zeros(len(arrays.identity_names), np.float32))
    corners = arrays.vertices[arrays.triangles].astype(np.float64)
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    np.testing.assert_allclose(np.bincount(skin.triangles, body.areas, len(area)), area, rtol=1e-4, atol=1e-10)


def test_scatter_deals_points_by_area():
    rows = scatter(np.array([1.0, 0.0, 3.0]), 400, np.random.default_rng(0))
    counts = np.bincount(rows, minlength=3)
    assert abs(counts[0] - 100) <= 2
    assert counts[1] == 0


def test_binding_a_cloud_and_posing_it_gives_it_back(studio):
    rng = np.random.default_rng(1)
    k = 50
    vertices = torch.from_numpy(studio.arrays.vertices)
    cloud = Cloud(
        points=rng.normal(0, 0.1, (k, 3)),
        axes=frames_along(rng.standard_normal((k, 3))),
        scales=rng.uniform(0.001, 0.01, (k, 3)),
        colours=rng.random((k, 3)),
        opacities=rng.uniform(0.1, 0.9, k),
        triangles=rng.integers(0, len(studio.arrays.triangles), k),
    )
    posed = bind_cloud(cloud, triangle_frames(vertices, studio.head.triangles)).pose(vertices, studio.head.triangles)
    np.testing.assert_allclose(posed.means, cloud.points, atol=1e-5)
    np.testing.assert_allclose(posed.scales, cloud.scales, rtol=1e-3)
    np.testing.assert_allclose(posed.opacities, cloud.opacities, rtol=1e-4)
    np.testing.assert_allclose(posed.sh[:, 0] * 0.28209479 + 0.5, cloud.colours, atol=1e-5)
    w, x, y, z = torch.nn.functional.normalize(posed.quats, dim=1).unbind(1)
    first = torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], 1)
    np.testing.assert_allclose(first, cloud.axes[:, :, 0], atol=1e-4)
