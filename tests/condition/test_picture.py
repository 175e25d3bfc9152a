"""The landmark map pixel by pixel, from invented landmarks; the real head's pictures are in test_default_head.py."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from headstudio.camera import orbit
from headstudio.condition.picture import condition_image, condition_strength, draw_landmark_map, face_direction
from headstudio.condition.topology import GROUPS, IRISES, LANDMARK_INDICES
from headstudio.errors import UserError
from headstudio.heads.arrays import Landmarks
from headstudio.heads.head import Head
from support.synthetic_head import synthetic_head

COLOURS = {  # as the model's card and training code have them, RGB
    "face oval": (10, 200, 10),
    "lips": (10, 180, 10),
    "right eye": (180, 200, 10),
    "right brow": (180, 220, 10),
    "right iris": (250, 200, 10),
    "left eye": (10, 200, 180),
    "left brow": (10, 220, 180),
    "left iris": (10, 200, 250),
}
EDGE_COUNTS = {"face oval": 36, "left eye": 16, "left brow": 8, "right eye": 16, "right brow": 8, "lips": 40}


def draw(places: dict[int, tuple[float, float]], hidden=(), size=512) -> np.ndarray:
    indices = np.array(list(places), np.int32)
    return draw_landmark_map(
        np.array(list(places.values()), float).reshape(-1, 2), ~np.isin(indices, hidden), indices, size
    )


def colours_of(picture) -> set[tuple[int, int, int]]:
    return {tuple(int(v) for v in c) for c in np.unique(picture.reshape(-1, 3), axis=0)} - {(0, 0, 0)}


def test_topology_counts():
    assert {group.name: len(group.edges) for group in GROUPS} == EDGE_COUNTS
    assert len(LANDMARK_INDICES) == 130
    groups = [{i for line in group.lines for i in line} for group in GROUPS]
    assert sum(len(g) for g in groups) == 128  # no landmark in two groups
    assert [len(g) for g in groups] == [36, 16, 10, 16, 10, 40]
    oval = GROUPS[0].lines[0]
    assert oval[0] == oval[-1]
    for name, corners in (("left eye", {263, 362}), ("right eye", {33, 133}), ("lips", {61, 291, 78, 308})):
        (group,) = [g for g in GROUPS if g.name == name]
        assert {line[0] for line in group.lines} | {line[-1] for line in group.lines} == corners


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)
def test_colour_of_each_group(group):
    rng = np.random.default_rng(0)
    places = {i: tuple(rng.uniform(20, 490, 2)) for line in group.lines for i in line}
    picture = draw(places)
    assert colours_of(picture) == {COLOURS[group.name]}
    expected = np.zeros_like(picture)
    for start, end in group.edges:
        ends = [tuple(int(v) for v in places[i]) for i in (start, end)]
        cv2.line(expected, *ends, COLOURS[group.name], 2, cv2.LINE_8)
    assert np.array_equal(picture, expected)


@pytest.mark.parametrize("iris", IRISES, ids=lambda i: i.name)
def test_irises_are_squares_of_four(iris):
    picture = draw({iris.index: (100.9, 60.2)})
    expected = np.zeros((512, 512, 3), np.uint8)
    expected[58:62, 98:102] = COLOURS[iris.name]
    assert np.array_equal(picture, expected)
    assert {i.name: i.index for i in IRISES} == {"right iris": 468, "left iris": 473}


def test_lines_are_two_pixels_thick_around_the_landmark_and_not_smoothed():
    picture = draw({276: (100.5, 200.5), 283: (180.5, 200.5)})
    rows = np.flatnonzero(picture[:, 140].any(-1))
    assert set(rows) <= {199, 200, 201}
    assert 2 <= len(rows) <= 3  # OpenCV's own notion of 2
    assert 200 in rows
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 2
    slanted = draw({276: (100.5, 200.5), 283: (180.5, 233.5)})
    assert colours_of(slanted) == {COLOURS["left brow"]}


ORDER = ["face oval", "left eye", "left brow", "right eye", "right brow", "lips"]


@pytest.mark.parametrize(("below", "above"), [(a, b) for i, a in enumerate(ORDER) for b in ORDER[i + 1 :]])
def test_later_groups_cover_earlier_ones(below, above):
    assert [group.name for group in GROUPS] == ORDER
    first, second = (next(g.edges[0] for g in GROUPS if g.name == name) for name in (below, above))
    picture = draw({first[0]: (200, 150), first[1]: (200, 250), second[0]: (150, 200), second[1]: (250, 200)})
    assert tuple(picture[200, 200]) == COLOURS[above]
    assert tuple(picture[160, 200]) == COLOURS[below]


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)
def test_irises_cover_everything(group):
    start, end = group.edges[0]
    for iris in IRISES:
        picture = draw({start: (200, 150), end: (200, 250), iris.index: (200, 200)})
        assert (picture[198:202, 198:202] == COLOURS[iris.name]).all()


def test_edges_need_both_ends():
    places = {10: (100.0, 100.0), 338: (200.0, 100.0), 297: (300.0, 100.0)}
    both = draw(places)
    assert both[100, 150].any()
    assert both[100, 250].any()
    for away in ((512.0, 100.0), (-0.1, 100.0), (300.0, 512.0), (300.0, -0.1), (np.nan, 100.0), (1e12, 0.0)):
        picture = draw(places | {297: away})
        assert picture[100, 150].any()
        assert not picture[:, 206:].any()
    hidden = draw(places, hidden=[297])
    assert np.array_equal(hidden, draw({10: (100.0, 100.0), 338: (200.0, 100.0)}))
    assert not draw(places, hidden=[338]).any()


def test_pixels_are_rounded_down_like_the_renders():
    """Pixel (i, j) covers [i, i + 1): both 100.01 and 100.99 lie in it."""
    assert np.array_equal(draw({468: (100.01, 7.0)}), draw({468: (100.99, 7.9)}))
    assert draw({468: (511.99, 511.99)})[509:512, 509:512].any(-1).all()


def test_irises_at_the_border_are_cut_not_wrapped():
    picture = draw({468: (0.5, 1.5)})
    assert picture.any(-1).sum() == 2 * 3
    assert picture[:3, :2].any(-1).all()
    assert not draw({468: (-0.5, 100.0)}).any()
    assert not draw({473: (100.0, 512.0)}).any()


def test_hidden_irises_are_not_drawn():
    assert not draw({468: (100.0, 100.0)}, hidden=[468]).any()


def test_other_indices_and_other_sizes():
    assert not draw({1: (50, 50), 4: (80, 80), 195: (90, 20)}).any()  # the nose is no part of the map
    assert draw({468: (10.0, 10.0)}, size=64).shape == (64, 64, 3)


# A face of four landmarks on the synthetic head: an oval edge and both irises


def head_with_landmarks():
    head = synthetic_head(3)
    places = {10: (0.0, 0.5), 338: (0.25, 0.5), 468: (-0.35, 0.25), 473: (0.35, 0.25)}  # direction's x and y
    triangles = []
    for x, y in places.values():
        target = head.vertices.mean(0) + np.array([0.08 * x, 0.12 * y, 0.095 * (1 - x * x - y * y) ** 0.5])
        middle = head.vertices[head.triangles].mean(1)
        triangles.append(int(((middle - target) ** 2).sum(1).argmin()))
    table = Landmarks(
        np.array(list(places), np.int32), np.array(triangles, np.int32), np.full((4, 3), 1 / 3, np.float32)
    )
    return replace(head, landmarks=table)


def view(azimuth, size=512, elevation=0.0):
    return orbit(torch.as_tensor(azimuth), elevation, 0.5, 45.0, size)


def rest(head, count):
    return torch.tensor(head.vertices).expand(count, -1, -1)


def test_left_is_the_subjects_left():
    """Seen from the front the subject's left iris is on the picture's right; from behind nothing is drawn."""
    head = head_with_landmarks()
    pictures, strength = condition_image(head, rest(head, 2), view([0.0, 180.0]))
    assert pictures.shape == (2, 512, 512, 3)
    picture = (pictures[0] * 255).round().byte().numpy()
    columns = {
        name: np.argwhere((picture == COLOURS[name]).all(-1))[:, 1].mean() for name in ("left iris", "right iris")
    }
    assert columns["right iris"] < 240
    assert columns["left iris"] > 270
    assert COLOURS["face oval"] in colours_of(picture)
    assert pictures[1].max() == 0
    torch.testing.assert_close(strength, torch.tensor([1.0, 0.0]))


def test_an_all_round_map_shows_the_face_through_the_head():
    """What is seen is drawn as ever; from behind the face's mirror image shines through at half its brightness."""
    head = head_with_landmarks()
    plain, _ = condition_image(head, rest(head, 2), view([0.0, 180.0]))
    pictures, strength = condition_image(head, rest(head, 2), view([0.0, 180.0]), all_round=True)
    torch.testing.assert_close(strength, torch.ones(2))
    drawn = plain[0].amax(-1) > 0
    assert torch.equal(pictures[0][drawn], plain[0][drawn])
    behind = (pictures[1] * 255).round().byte().numpy()
    columns = {
        name: np.argwhere((behind == np.array(COLOURS[name]) // 2).all(-1))[:, 1].mean()
        for name in ("left iris", "right iris")
    }
    assert columns["left iris"] < 240
    assert columns["right iris"] > 270
    assert behind.max() <= 127


def test_other_sizes_are_the_same_picture_resampled():
    head = head_with_landmarks()
    full, strength = condition_image(head, rest(head, 1), view([20.0]))
    for size in (256, 128, 64):
        small, same = condition_image(head, rest(head, 1), view([20.0], 1000), size)
        blocks = full.unflatten(1, (size, -1)).unflatten(3, (size, -1)).mean((2, 4))
        torch.testing.assert_close(small, blocks, rtol=0, atol=0.5 / 255 + 1e-6)
        assert torch.equal(same, strength)
    large, _ = condition_image(head, rest(head, 1), view([20.0]), 768)
    assert large.shape == (1, 768, 768, 3)
    assert abs(large.mean() - full.mean()) < 0.02 * full.mean()


def test_batch_equals_one_by_one():
    head = head_with_landmarks()
    azimuth = torch.tensor([0.0, 30.0, 70.0, -100.0, 180.0])
    pictures, strength = condition_image(head, rest(head, 5), view(azimuth), 64)
    for i in range(5):
        picture, value = condition_image(head, rest(head, 1), view(azimuth[i : i + 1]), 64)
        assert torch.equal(picture[0], pictures[i])
        torch.testing.assert_close(value[0], strength[i])


def test_a_head_without_landmarks_is_named():
    head = synthetic_head(1)
    empty = Landmarks(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 3), np.float32))
    with pytest.raises(UserError, match="synthetic has no face landmarks"):
        condition_image(replace(head, landmarks=empty), rest(head, 1), view([0.0]))


def test_no_gradient_reaches_the_head():
    head = head_with_landmarks()
    pictures, strength = condition_image(head, rest(head, 1).clone().requires_grad_(), view([0.0]))
    assert not pictures.requires_grad
    assert not strength.requires_grad


# Strength


@pytest.mark.parametrize(
    ("azimuth", "expected"),
    [(0, 1), (59, 1), (60, 1), (75, 0.5), (84, 0.2), (90, 0), (91, 0), (180, 0), (-59, 1), (-75, 0.5), (-120, 0)],
)
def test_strength_by_azimuth(azimuth, expected):
    head = synthetic_head(3)
    vertices = rest(head, 1)
    _, centre = face_direction(head, vertices)
    camera = orbit(float(azimuth), 0.0, 0.5, 40.0, 64, centre[0])[None]
    torch.testing.assert_close(
        condition_strength(head, vertices, camera), torch.tensor([float(expected)]), rtol=0, atol=1e-3
    )


def test_elevation_counts_like_azimuth():
    head = synthetic_head(3)
    vertices = rest(head, 1)
    _, centre = face_direction(head, vertices)
    camera = orbit(60.0, 30.0, 0.5, 40.0, 64, centre[0])[None]
    angle = np.degrees(np.arccos(np.cos(np.radians(60)) * np.cos(np.radians(30))))
    expected = torch.tensor([(90 - angle) / 30], dtype=torch.float32)
    torch.testing.assert_close(condition_strength(head, vertices, camera), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("turn", [-50.0, 25.0, 80.0])
def test_a_turned_neck_turns_the_face(turn):
    """Neck and camera turned alike see the same face; the camera alone does not."""
    arrays = synthetic_head(3)
    head = Head(arrays)
    joints = torch.zeros(1, 5, 3)
    joints[0, 1, 1] = np.radians(turn)
    vertices = head(torch.zeros(1, head.expression_size), joints)
    forward, centre = face_direction(arrays, vertices)
    expected = torch.tensor([[np.sin(np.radians(turn)), 0, np.cos(np.radians(turn))]], dtype=torch.float32)
    assert torch.rad2deg(torch.acos((forward * expected).sum(-1).clamp(max=1))) < 3  # the neck's skin lags a little
    for offset in (0.0, 75.0, 120.0):
        camera = orbit(turn + offset, 0.0, 0.5, 40.0, 64, centre[0])[None]
        strength = condition_strength(arrays, vertices, camera).item()
        assert strength == pytest.approx(np.clip((90 - offset) / 30, 0, 1), abs=0.12)


def test_a_turned_head_keeps_the_strength_of_its_view():
    """Any rigid motion of head and camera together leaves it alone."""
    head = synthetic_head(3)
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    basis = (basis * torch.linalg.det(basis).sign()).float()
    shift = torch.tensor([0.3, -0.2, 0.5])
    motion = torch.eye(4)
    motion[:3, :3], motion[:3, 3] = basis, shift
    camera = view(torch.linspace(-100, 100, 9), 64, elevation=20.0)
    moved = replace(camera, world_to_camera=camera.world_to_camera @ torch.linalg.inv(motion))
    torch.testing.assert_close(
        condition_strength(head, rest(head, 9) @ basis.T + shift, moved),
        condition_strength(head, rest(head, 9), camera),
        rtol=0,
        atol=1e-4,
    )


def test_orthographic_cameras_fade_by_their_direction():
    head = synthetic_head(3)
    camera = replace(view([0.0, 75.0, 75.0, 120.0], 64), orthographic=True)
    torch.testing.assert_close(
        condition_strength(head, rest(head, 4), camera), torch.tensor([1.0, 0.5, 0.5, 0.0]), rtol=0, atol=1e-3
    )


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_cuda_draws_the_same():
    head = head_with_landmarks()
    camera = view([0.0, 40.0, 170.0])
    pictures, strength = condition_image(head, rest(head, 3), camera, 64)
    on_gpu, strength_on_gpu = condition_image(head, rest(head, 3).cuda(), camera, 64)
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), pictures)
    torch.testing.assert_close(strength_on_gpu.cpu(), strength, rtol=0, atol=1e-4)
