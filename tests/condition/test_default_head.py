"""The default head's landmark maps: what each view shows, lids, and alignment with the render."""

import numpy as np
import pytest
import torch
from headstudio.camera import orbit
from headstudio.condition.landmarks import landmark_points, visible_landmarks
from headstudio.condition.picture import condition_image, face_direction
from headstudio.condition.topology import FACE_OVAL, GROUPS, IRISES, LANDMARK_INDICES
from headstudio.gaussians import Gaussians
from headstudio.heads.default_head import default_head
from headstudio.heads.head import Head
from headstudio.rasterise import rasterise

LEFT = {"left eye", "left brow", "left iris"}
RIGHT = {"right eye", "right brow", "right iris"}
COLOURS = {part.name: part.colour for part in (*GROUPS, *IRISES)}
ASYMMETRIC = {"eyeBlinkLeft": 0.4, "mouthSmileLeft": 1.0, "jawRight": 0.8, "browOuterUpRight": 1.0, "jawOpen": 0.4}


@pytest.fixture(scope="module")
def arrays():
    return default_head()


def posed(arrays, sliders=None, neck=0.0) -> torch.Tensor:
    """Vertices [1, N, 3] under named sliders, the neck turned to the subject's left by degrees."""
    expression, joints = arrays.drive(sliders or {})
    joints[arrays.joint_names.index("neck"), 1] += np.radians(neck)
    return Head(arrays)(torch.tensor(expression)[None], torch.tensor(joints)[None])


def camera(arrays, azimuth, elevation=0.0, distance=1.75, size=512):
    azimuth = torch.atleast_1d(torch.as_tensor(azimuth, dtype=torch.float32))
    return orbit(azimuth, elevation, distance * arrays.unit, 55.0, size, torch.tensor(arrays.centre))


def shown(arrays, vertices, cameras) -> list[set[str]]:
    """Names of the groups that each picture has at least four pixels of."""
    pictures, _ = condition_image(arrays, vertices.expand(len(cameras), -1, -1), cameras)
    pictures = (pictures * 255).round().byte().numpy()
    return [{n for n, c in COLOURS.items() if (picture == c).all(-1).sum() >= 4} for picture in pictures]


def seen(arrays, vertices, cameras) -> np.ndarray:
    return visible_landmarks(arrays, vertices.expand(len(cameras), -1, -1), cameras).numpy()


def rows(arrays, indices) -> np.ndarray:
    return np.flatnonzero(np.isin(arrays.landmarks.indices, list(indices)))


def test_the_table_is_complete(arrays):
    assert sorted(arrays.landmarks.indices.tolist()) == list(LANDMARK_INDICES)


def test_from_the_front_everything_is_seen(arrays):
    """Whole, as a detector marks it: also the inner lips in their fold, and the oval in front of the ears."""
    for elevation in (-20.0, 0.0, 20.0):
        cameras = camera(arrays, [-8.0, 0.0, 8.0], elevation)
        assert shown(arrays, posed(arrays), cameras) == [set(COLOURS)] * 3
        assert seen(arrays, posed(arrays), camera(arrays, 0.0, elevation)).all()
    for distance in (1.5, 2.0, 4.0):
        assert seen(arrays, posed(arrays), camera(arrays, 0.0, distance=distance)).all()


@pytest.mark.parametrize(("azimuth", "near", "far"), [(80.0, LEFT, RIGHT), (-80.0, RIGHT, LEFT)])
def test_a_profile_shows_one_side(arrays, azimuth, near, far):
    (names,) = shown(arrays, posed(arrays), camera(arrays, azimuth))
    assert not names & far
    assert {name for name in near if "iris" not in name} <= names
    assert {"face oval", "lips"} <= names
    for turned in (azimuth, azimuth * 9 / 8, azimuth * 10 / 8):
        visible = seen(arrays, posed(arrays), camera(arrays, turned))[0]
        side = landmark_points(arrays, posed(arrays))[0, :, 0].numpy() * np.sign(azimuth)
        inner = ~np.isin(arrays.landmarks.indices, FACE_OVAL.indices)
        assert not visible[inner & (side < -0.012)].any()


def test_the_back_shows_nothing(arrays):
    azimuth = torch.tensor([100.0, 150.0, 165.0, 180.0, -165.0, -150.0, -100.0])
    cameras = camera(arrays, azimuth)
    vertices = posed(arrays).expand(len(azimuth), -1, -1)
    inner = ~np.isin(arrays.landmarks.indices, FACE_OVAL.indices)
    assert not seen(arrays, vertices, cameras)[1:-1, inner].any()
    pictures, strength = condition_image(arrays, vertices, cameras)
    assert pictures.max() == 0
    assert strength.tolist() == [0.0] * len(azimuth)


@pytest.mark.parametrize("azimuth", [35.0, 50.0, 65.0])
def test_the_far_side_of_the_oval_is_hidden_in_turned_views(arrays, azimuth):
    vertices = posed(arrays)
    points = landmark_points(arrays, vertices)[0].numpy()
    for sign in (1, -1):
        visible = seen(arrays, vertices, camera(arrays, sign * azimuth))[0]
        oval = np.isin(arrays.landmarks.indices, FACE_OVAL.indices)
        side = points[:, 0] * sign
        assert visible[oval & (side > 0.02)].all()
        assert not visible[oval & (side < -0.05)].any()


def mirrored_index() -> dict[int, int]:
    """For every landmark the one on the other side, from the order of the lines."""
    lines = {group.name: group.lines for group in GROUPS}
    pairs = [*zip(lines["left eye"], lines["right eye"], strict=True)]
    pairs += zip(lines["left brow"], lines["right brow"], strict=True)
    pairs += [(line, line[::-1]) for line in (*lines["lips"], *lines["face oval"])]
    there = {i: j for a, b in pairs for i, j in zip(a, b, strict=True)} | {468: 473}
    return there | {j: i for i, j in there.items()}


def test_views_mirror(arrays):
    """From the other side everything is the mirror image, left and right exchanged."""
    indices = arrays.landmarks.indices.tolist()
    partner = [indices.index(mirrored_index()[i]) for i in indices]
    points = landmark_points(arrays, posed(arrays))[0].numpy()
    np.testing.assert_allclose(points * [-1, 1, 1], points[partner], atol=5e-4)
    for azimuth in (0.0, 20.0, 40.0, 60.0, 80.0):
        one, other = (seen(arrays, posed(arrays), camera(arrays, s * azimuth))[0] for s in (1, -1))
        assert (one != other[partner]).sum() <= 2  # on the outline, rounding decides


@pytest.mark.parametrize("azimuth", [0.0, 30.0, -30.0])
@pytest.mark.parametrize("elevation", [-15.0, 0.0, 15.0])
def test_closed_lids_hide_the_irises(arrays, azimuth, elevation):
    cameras = camera(arrays, azimuth, elevation)
    irises = {"left iris", "right iris"}
    (names,) = shown(arrays, posed(arrays), cameras)
    assert irises <= names
    (names,) = shown(arrays, posed(arrays, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}), cameras)
    assert not irises & names
    assert {"left eye", "right eye"} <= names  # the line of the lids stays
    (names,) = shown(arrays, posed(arrays, {"eyeBlinkLeft": 1.0}), cameras)
    assert irises & names == {"right iris"}
    (names,) = shown(arrays, posed(arrays, {"eyeBlinkRight": 1.0}), cameras)
    assert irises & names == {"left iris"}


def test_irises_follow_the_gaze(arrays):
    cameras = camera(arrays, 0.0)
    at = rows(arrays, [473])
    base, _ = cameras.project(landmark_points(arrays, posed(arrays)))
    looking, _ = cameras.project(landmark_points(arrays, posed(arrays, {"eyeLookOutLeft": 0.7})))
    shift = (looking - base)[0].numpy()
    assert shift[at, 0] > 3  # the subject's left is the picture's right
    assert np.abs(shift[rows(arrays, [468])]).max() < 0.1


@pytest.mark.parametrize("neck", [-60.0, 0.0, 40.0])
@pytest.mark.parametrize("azimuth", [0.0, 70.0, 110.0])
def test_strength_follows_the_neck(arrays, neck, azimuth):
    vertices, cameras = posed(arrays, neck=neck), camera(arrays, azimuth)
    direction, centre = face_direction(arrays, vertices)
    turned = np.radians(neck)
    np.testing.assert_allclose(direction[0].numpy(), [np.sin(turned), 0, np.cos(turned)], atol=0.01)
    towards = (cameras.centre - centre)[0].numpy()
    angle = np.degrees(np.arccos(towards @ [np.sin(turned), 0, np.cos(turned)] / np.linalg.norm(towards)))
    _, strength = condition_image(arrays, vertices, cameras)
    assert strength.item() == pytest.approx(np.clip((90 - angle) / 30, 0, 1), abs=0.03)


def test_expressions_do_not_move_the_strength(arrays):
    cameras = camera(arrays, 70.0)
    _, rest = condition_image(arrays, posed(arrays), cameras)
    assert 0.3 < rest < 0.7
    for sliders in ({"jawOpen": 1.0}, {"mouthLeft": 1.0, "mouthSmileLeft": 1.0}, {"cheekPuff": 1.0}):
        _, strength = condition_image(arrays, posed(arrays, sliders), cameras)
        assert abs(strength - rest) < 0.05


# Alignment: the fault of the published code was a map that mirrored the render's expressions


def centroids(arrays, points, cameras, pixels) -> np.ndarray:
    """Where the rasteriser puts a tiny bright Gaussian at each point [K, 3]: centroid of what it draws [K, 2]."""
    depth = cameras.project(points[None])[1][0]
    sigma = depth / cameras.intrinsics[0, 0, 0]  # one pixel
    count = len(points)
    quats = torch.zeros(count, 4)
    quats[:, 0] = 1
    splats = Gaussians(points, quats, sigma[:, None].expand(-1, 3), torch.full((count,), 0.9), torch.ones(count, 1, 3))
    alpha = rasterise(splats, cameras[0]).alpha.squeeze(-1).numpy()
    result = []
    for x, y in np.floor(pixels).astype(int):
        window = alpha[y - 5 : y + 6, x - 5 : x + 6]
        place = np.mgrid[y - 5 : y + 6, x - 5 : x + 6] + 0.5
        result.append((place * window).sum((1, 2))[::-1] / window.sum())
    return np.array(result)


def far_apart(pixels, distance=12.0) -> list[int]:
    """Rows that keep their distance, so that their splats do not touch."""
    kept: list[int] = []
    for row, pixel in enumerate(pixels):
        if all(np.linalg.norm(pixel - pixels[other]) > distance for other in kept):
            kept.append(row)
    return kept


@pytest.mark.parametrize("azimuth", [0.0, 35.0, -50.0])
def test_landmarks_lie_where_the_render_has_them(arrays, azimuth):
    """Under an asymmetric expression and a turned neck: drawn pixel against rendered position, 1 px at 512."""
    vertices = posed(arrays, ASYMMETRIC, neck=12.0)
    cameras = camera(arrays, azimuth, elevation=10.0)
    points = landmark_points(arrays, vertices)[0]
    visible = seen(arrays, vertices, cameras)[0]
    pixels = cameras.project(points[None])[0][0].numpy()
    inside = ((pixels > 8) & (pixels < 504)).all(1) & visible
    candidates = np.flatnonzero(inside)
    picked = candidates[far_apart(pixels[candidates])]
    assert len(picked) > 15
    rendered = centroids(arrays, points[picked], cameras, pixels[picked])
    assert np.abs(rendered - pixels[picked]).max() < 0.1

    picture, _ = condition_image(arrays, vertices, cameras)
    picture = (picture[0] * 255).round().byte().numpy()
    colour_of = {i: g.colour for g in GROUPS for line in g.lines for i in line}
    joined = {i for g in GROUPS for a, b in g.edges for i in (a, b) if _both(arrays, visible, a, b)}
    checked = 0
    for row, place in zip(picked, rendered, strict=True):
        index = int(arrays.landmarks.indices[row])
        if index in joined:
            drawn = np.argwhere((picture == colour_of[index]).all(-1))[:, ::-1] + 0.5
            assert np.abs(drawn - place).max(1).min() <= 1.0, index
            checked += 1
    assert checked > 15


def _both(arrays, visible, a, b) -> bool:
    return visible[rows(arrays, [a, b])].all()


@pytest.mark.parametrize("iris", IRISES, ids=lambda iris: iris.name)
def test_iris_squares_lie_on_the_rendered_irises(arrays, iris):
    vertices = posed(arrays, {"eyeLookOutLeft": 0.4, "eyeLookInRight": 0.4, "jawOpen": 0.5})
    cameras = camera(arrays, 10.0)
    row = rows(arrays, [iris.index])
    points = landmark_points(arrays, vertices)[0, row]
    place = centroids(arrays, points, cameras, cameras.project(points[None])[0][0].numpy())[0]
    picture, _ = condition_image(arrays, vertices, cameras)
    square = np.argwhere(((picture[0] * 255).round().byte().numpy() == iris.colour).all(-1))[:, ::-1] + 0.5
    assert len(square) == 16
    assert np.abs(square.mean(0) - place).max() <= 1.0


def test_a_mirrored_map_would_be_noticed(arrays):
    """What the alignment test must not forgive: a map whose left and right are exchanged is off by many pixels."""
    vertices = posed(arrays, ASYMMETRIC)
    pixels = camera(arrays, 0.0).project(landmark_points(arrays, vertices))[0][0].numpy()
    indices = arrays.landmarks.indices.tolist()
    partner = [indices.index(mirrored_index()[i]) for i in indices]
    mirrored = pixels[partner] * [-1, 1] + [512, 0]
    assert (np.abs(mirrored - pixels).max(1) > 3).sum() > 30
