"""The default head's face: lids, lips, gaze, the regions that get painted, and MediaPipe's landmarks."""

from __future__ import annotations

import numpy as np
import pytest
from headstudio.heads.arrays import JOINT_NAMES, HeadArrays
from headstudio.heads.skinning import skin

LEFT_EYE = ([263, 249, 390, 373, 374, 380, 381, 382, 362], [263, 466, 388, 387, 386, 385, 384, 398, 362])
RIGHT_EYE = ([33, 7, 163, 144, 145, 153, 154, 155, 133], [33, 246, 161, 160, 159, 158, 157, 173, 133])
LEFT_BROW = ([276, 283, 282, 295, 285], [300, 293, 334, 296, 336])
RIGHT_BROW = ([46, 53, 52, 65, 55], [70, 63, 105, 66, 107])
LIPS_OUTER = ([61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291], [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291])
LIPS_INNER = ([78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308], [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308])
OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149,
        150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]  # fmt: skip
EVERY = {*OVAL, 468, 473}.union(*LEFT_EYE, *RIGHT_EYE, *LEFT_BROW, *RIGHT_BROW, *LIPS_OUTER, *LIPS_INNER)


def pose(head: HeadArrays, **sliders: float) -> np.ndarray:
    return skin(head, *head.drive(sliders))


def landmarks(head: HeadArrays, vertices: np.ndarray) -> dict[int, np.ndarray]:
    table = head.landmarks
    points = np.einsum("lk,lkc->lc", table.barycentric, vertices[head.triangles[table.triangles]])
    return dict(zip(table.indices.tolist(), points, strict=True))


def first_hits(head: HeadArrays, vertices: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The triangle that a ray along -z meets first at each (x, y) [K], or -1, and z there (brute force)."""
    points = vertices[head.triangles].astype(np.float64)
    a, b, c = points[:, 0], points[:, 1], points[:, 2]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    near = (points[..., 0].max(1) >= x.min()) & (points[..., 0].min(1) <= x.max())
    near &= (points[..., 1].max(1) >= y.min()) & (points[..., 1].min(1) <= y.max()) & (np.abs(area) > 1e-14)
    rows = np.flatnonzero(near)
    a, b, c, area = a[rows], b[rows], c[rows], area[rows]
    hits, front = np.full(len(x), -1), np.full(len(x), -np.inf)
    for k, (px, py) in enumerate(zip(x, y, strict=True)):
        v = ((px - a[:, 0]) * (c[:, 1] - a[:, 1]) - (py - a[:, 1]) * (c[:, 0] - a[:, 0])) / area
        w = ((b[:, 0] - a[:, 0]) * (py - a[:, 1]) - (b[:, 1] - a[:, 1]) * (px - a[:, 0])) / area
        depth = np.where((v >= 0) & (w >= 0) & (v + w <= 1), a[:, 2] + v * (b - a)[:, 2] + w * (c - a)[:, 2], -np.inf)
        front[k] = depth.max()
        if np.isfinite(front[k]):
            hits[k] = rows[int(np.argmax(depth))]
    return hits, front


def seen(head: HeadArrays, vertices: np.ndarray, box: tuple[float, float, float, float], step: float) -> dict[str, int]:
    """How many rays along -z on a grid over (x0, x1, y0, y1) meet each region first."""
    x, y = np.meshgrid(np.arange(box[0], box[1], step), np.arange(box[2], box[3], step))
    hits, _ = first_hits(head, vertices, x.ravel(), y.ravel())
    counts = np.bincount(head.region[hits[hits >= 0]], minlength=len(head.region_names))
    return {name: int(count) for name, count in zip(head.region_names, counts, strict=True) if count}


# Lids and lips


@pytest.mark.parametrize(("side", "eye"), [("Left", LEFT_EYE), ("Right", RIGHT_EYE)])
def test_full_blink_closes_the_lids_and_hides_the_eye(default_head, side, eye):
    closed = pose(default_head, **{f"eyeBlink{side}": 1.0})
    open_, shut = landmarks(default_head, default_head.vertices), landmarks(default_head, closed)

    def gaps(points: dict[int, np.ndarray]) -> np.ndarray:
        """Height of the opening in millimetres at places between the corners."""
        lower, upper = (np.array([points[i] for i in chain]) for chain in eye)
        lower, upper = (line[np.argsort(line[:, 0])] for line in (lower, upper))
        x = np.linspace(max(lower[0, 0], upper[0, 0]), min(lower[-1, 0], upper[-1, 0]), 15)[1:-1]
        return 1000 * (np.interp(x, upper[:, 0], upper[:, 1]) - np.interp(x, lower[:, 0], lower[:, 1]))

    assert 7 < gaps(open_).max() < 12
    assert np.abs(gaps(shut)).max() < 0.5
    centre = landmarks(default_head, default_head.vertices)[473 if side == "Left" else 468]
    box = (centre[0] - 0.016, centre[0] + 0.016, centre[1] - 0.014, centre[1] + 0.010)
    parts = [f"{part}_{side.lower()}" for part in ("eyeball", "iris", "pupil")]
    before, after = (seen(default_head, v, box, 0.0005) for v in (default_head.vertices, closed))
    assert all(before.get(part, 0) > 20 for part in parts)
    assert sum(after.get(part, 0) for part in parts) == 0
    assert after[f"lid_{side.lower()}"] > 300


def test_lids_do_not_dive_into_the_eye_half_way(default_head):
    """At every stage of a blink the eye is seen between the lids and nowhere else: not through the upper lid."""
    for value in (0.25, 0.5, 0.75):
        vertices = pose(default_head, eyeBlinkLeft=value)
        points = landmarks(default_head, vertices)
        lower, upper = (np.array([points[i] for i in chain])[::-1] for chain in LEFT_EYE)
        x, y = np.meshgrid(np.arange(0.019, 0.041, 0.0005), np.arange(0.026, 0.048, 0.0005))
        x, y = x.ravel(), y.ravel()
        hits, _ = first_hits(default_head, vertices, x, y)
        names = np.array(default_head.region_names)[default_head.region[hits]]
        eye = np.isin(names, ["eyeball_left", "iris_left", "pupil_left"])
        above = np.interp(x, upper[:, 0], upper[:, 1])
        below = np.interp(x, lower[:, 0], lower[:, 1])
        assert eye.sum() > 30
        assert not (eye & ((y > above + 0.0015) | (y < below - 0.0015))).any(), value


def test_lips_meet_at_rest_and_part_under_jaw_open(default_head):
    rest = landmarks(default_head, default_head.vertices)
    for top, bottom in zip(LIPS_INNER[1][1:-1], LIPS_INNER[0][1:-1], strict=True):
        assert -0.0005 < rest[top][1] - rest[bottom][1] < 0.002  # the groove between the lips, seen from the front
    box = (-0.028, 0.028, -0.040, -0.015)
    inside = ("teeth_upper", "teeth_lower", "tongue", "mouth_cavity")
    at_rest = seen(default_head, default_head.vertices, box, 0.0007)
    assert at_rest["lips"] > 500
    assert not any(part in at_rest for part in inside)
    opened = pose(default_head, jawOpen=1.0)
    points = landmarks(default_head, opened)
    assert 0.02 < points[13][1] - points[14][1] < 0.06
    wide = seen(default_head, opened, (-0.028, 0.028, -0.075, -0.015), 0.001)
    assert sum(wide.get(part, 0) for part in inside) > 300


def test_tongue_comes_out(default_head):
    vertices = pose(default_head, tongueOut=1.0, jawOpen=0.4)
    tongue = np.unique(default_head.triangles[default_head.region == default_head.region_names.index("tongue")])
    lip = landmarks(default_head, vertices)[17]
    assert vertices[tongue, 2].max() > lip[2]


@pytest.mark.parametrize(("side", "iris", "out"), [("Left", 473, 1), ("Right", 468, -1)])
def test_eyes_turn_the_right_way_and_rigidly(default_head, side, iris, out):
    rest = landmarks(default_head, default_head.vertices)[iris]
    joint = JOINT_NAMES.index(f"eye_{side.lower()}")
    ball = np.flatnonzero(default_head.skin_weights[:, joint] == 1)
    lids = np.unique(
        default_head.triangles[default_head.region == default_head.region_names.index(f"lid_{side.lower()}")]
    )
    for name, axis, sign in (("Out", 0, out), ("In", 0, -out), ("Up", 1, 1), ("Down", 1, -1)):
        vertices = pose(default_head, **{f"eyeLook{name}{side}": 1.0})
        moved = landmarks(default_head, vertices)[iris] - rest
        assert sign * moved[axis] > 0.002, name
        assert abs(moved[1 - axis]) < 0.3 * abs(moved[axis]), name
        before, after = (v[ball].astype(np.float64) for v in (default_head.vertices, vertices))
        np.testing.assert_allclose(
            np.linalg.norm(before[:, None] - before[:40], axis=-1),
            np.linalg.norm(after[:, None] - after[:40], axis=-1),
            atol=2e-6,
        )
        angle = np.degrees(np.linalg.norm(default_head.drive({f"eyeLook{name}{side}": 1.0})[1][joint]))
        assert 8 < angle < 30
        assert np.linalg.norm(vertices[lids] - default_head.vertices[lids], axis=1).max() > 5e-4


# Regions


def test_regions_are_all_there_and_where_they_belong(default_head):
    names = default_head.region_names
    sided = {
        f"{n}_{s}" for n in ("ear", "brow", "eyeball", "iris", "pupil", "lid", "socket") for s in ("left", "right")
    }
    inner = {"mouth_cavity", "teeth_upper", "teeth_lower", "tongue"}
    assert set(names) == sided | inner | {
        "face",
        "lips",
        "scalp",
        "chin_beard",
        "moustache",
        "nose",
        "neck",
        "neck_cap",
    }
    assert (np.bincount(default_head.region, minlength=len(names)) > 0).all()
    middle = {n: default_head.vertices[default_head.triangles[default_head.region == k]].mean((0, 1)) for k, n in
              enumerate(names)}  # fmt: skip
    for name, at in middle.items():
        side = name.rpartition("_")[2]
        if side in ("left", "right"):
            assert (at[0] > 0.02) == (side == "left")
            assert (at[0] < -0.02) == (side == "right")
        else:
            assert abs(at[0]) < 1e-5, name
    order = ["scalp", "brow_left", "iris_left", "nose", "moustache", "lips", "chin_beard", "neck"]
    heights = [middle[name][1] for name in order]
    assert heights == sorted(heights, reverse=True)
    assert middle["teeth_upper"][1] > middle["teeth_lower"][1]


def test_painted_regions_are_in_one_piece(default_head):
    edges: dict[tuple[int, int], list[int]] = {}
    for row, (a, b, c) in enumerate(default_head.triangles.tolist()):
        for u, v in ((a, b), (b, c), (c, a)):
            edges.setdefault((min(u, v), max(u, v)), []).append(row)
    beside: dict[int, set[int]] = {}
    for rows in edges.values():
        for row in rows:
            beside.setdefault(row, set()).update(rows)
    for name in ("lips", "scalp", "nose", "neck", "brow_left", "lid_right", "ear_left", "iris_left", "chin_beard"):
        left = set(np.flatnonzero(default_head.region == default_head.region_names.index(name)).tolist())
        stack = [min(left)]
        left.discard(stack[0])
        while stack:
            fresh = beside[stack.pop()] & left
            left -= fresh
            stack += fresh
        assert not left, name


# Landmarks


def test_table_holds_every_landmark_once_on_sound_triangles(default_head):
    table = default_head.landmarks
    assert table.indices.tolist() == sorted(EVERY)
    assert len(EVERY) == 130
    np.testing.assert_allclose(table.barycentric.sum(1), 1, atol=1e-6)
    assert table.barycentric.min() >= 0


def test_landmarks_are_mirrored_and_on_their_side(default_head):
    points = landmarks(default_head, default_head.vertices)
    pairs = [(473, 468), *zip(OVAL[1:18], OVAL[:18:-1], strict=True)]
    for left, right in ((LEFT_EYE, RIGHT_EYE), (LEFT_BROW, RIGHT_BROW)):
        pairs += [pair for a, b in zip(left, right, strict=True) for pair in zip(a, b, strict=True)]
    for chains in (LIPS_OUTER, LIPS_INNER):
        pairs += [(chain[-1 - k], chain[k]) for chain in chains for k in range(5)]
    for left, right in pairs:
        assert points[left][0] > 0.004, left
        np.testing.assert_allclose(points[left], points[right] * [-1, 1, 1], atol=1e-6)
    for index in (10, 152, 0, 13, 14, 17):
        assert abs(points[index][0]) < 1e-6


def test_landmarks_come_in_mediapipes_order(default_head):
    points = landmarks(default_head, default_head.vertices)
    for eye, sign in ((LEFT_EYE, -1), (RIGHT_EYE, 1)):  # outer corner to inner corner
        for chain in eye:
            assert (sign * np.diff([points[i][0] for i in chain]) > 0).all()
        lower, upper = ([points[i][1] for i in chain[1:-1]] for chain in eye)
        assert (np.array(upper) > np.array(lower) + 0.001).all()
    for brow, sign in ((LEFT_BROW, -1), (RIGHT_BROW, 1)):
        for chain in brow:
            assert (sign * np.diff([points[i][0] for i in chain]) > 0).all()
        assert all(points[u][1] > points[low][1] for low, u in zip(*brow, strict=True))
        assert min(points[i][1] for chain in brow for i in chain) > points[386][1] + 0.003
    for ring in (LIPS_OUTER, LIPS_INNER):
        for chain in ring:
            assert (np.diff([points[i][0] for i in chain]) > 0).all()
    for chain, inner, sign in ((1, 1, 1), (0, 0, -1)):
        for outside, inside in zip(LIPS_OUTER[chain][1:-1], LIPS_INNER[inner][1:-1], strict=True):
            assert sign * (points[outside][1] - points[inside][1]) > 0.001
    # the oval runs clockwise as the viewer sees it, from the forehead over the subject's left side, without a kink
    oval = np.array([points[i][:2] for i in OVAL])
    centre = np.array([0, 0.5 * (oval[0, 1] + oval[18, 1])])
    angle = np.unwrap(np.arctan2(*(oval - centre).T))
    assert (np.diff(angle) > np.radians(3)).all()
    assert angle[-1] - angle[0] < 2 * np.pi
    steps = np.diff(np.concatenate([oval, oval[:1]]), axis=0)
    after = np.roll(steps, -1, 0)
    assert (steps[:, 0] * after[:, 1] - steps[:, 1] * after[:, 0] < 1e-6).all()  # turns to the right only


def test_landmarks_are_seen_from_the_front(default_head):
    points = landmarks(default_head, default_head.vertices)
    lids = set().union(*LEFT_EYE, *RIGHT_EYE)
    for index, point in points.items():
        _, front = first_hits(default_head, default_head.vertices, point[:1], point[1:2])
        # the upper lid hangs over a little, the oval turns over the edge of the jaw; all else is in full view
        allowed = 0.0015 if index in lids else 0.003 if index in OVAL else 1e-4
        assert front[0] - point[2] < allowed, index


@pytest.mark.parametrize("sliders", [{"jawOpen": 0.8}, {"mouthFunnel": 1.0}, {"jawLeft": 1.0}])
def test_lips_and_chin_stay_in_view(default_head, sliders):
    vertices = pose(default_head, **sliders)
    points = landmarks(default_head, vertices)
    lips = set().union(*LIPS_OUTER, *LIPS_INNER)
    for index in (*OVAL[14:23], *sorted(lips)):
        _, front = first_hits(default_head, vertices, points[index][:1], points[index][1:2])
        assert front[0] - points[index][2] < (0.005 if index in lips else 0.002), index  # pursed lips fold a little


def test_proportions_are_a_face(default_head):
    """Measures of the map that the ControlNet was trained on, loosely: no group is stretched or out of place."""
    p = landmarks(default_head, default_head.vertices)
    eye_width = p[263][0] - p[362][0]
    width, height = p[454][0] - p[234][0], p[10][1] - p[152][1]
    assert 1.1 < height / width < 1.4
    assert 0.15 < eye_width / width < 0.21
    assert 0.30 < (p[291][0] - p[61][0]) / width < 0.40
    assert 0.30 < (p[473][0] - p[468][0]) / width < 0.50
    below = (p[473][1] - p[152][1]) / height
    assert 0.60 < below < 0.72  # eyes a third down from the top of the oval
    assert 0.20 < (p[13][1] - p[152][1]) / height < 0.32
