import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from headstudio.errors import UserError
from headstudio.train.cameras import CLOSE_UP, CLOSE_UP_AZIMUTH, CameraRanges, sample_cameras, sample_close_ups
from hypothesis import given, settings
from hypothesis import strategies as st

HEAD = SimpleNamespace(unit=0.17, centre=np.array([0.01, 1.6, 0.03], np.float32))


def angles(camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance in units, elevation and azimuth in degrees, measured from the cameras' own centres."""
    offset = camera.centre.double().numpy() - HEAD.centre
    distance = np.linalg.norm(offset, axis=1)
    azimuth = np.degrees(np.arctan2(offset[:, 0], offset[:, 2]))
    return distance / HEAD.unit, np.degrees(np.arcsin(offset[:, 1] / distance)), azimuth


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 24), seed=st.integers(0, 2**32 - 1))
def test_every_camera_lies_in_the_ranges_and_looks_at_the_centre(count, seed):
    ranges = CameraRanges()
    camera, azimuth = sample_cameras(count, HEAD, 64, ranges, np.random.default_rng(seed))
    assert len(camera) == count
    assert azimuth.shape == (count,)
    distance, elevation, measured = angles(camera)
    assert np.all((distance > 1.5 - 1e-3) & (distance < 2.0 + 1e-3))
    assert np.all(np.abs(elevation) < 30 + 1e-3)
    turn = (azimuth.numpy() - measured + 180) % 360 - 180
    assert np.abs(turn).max() < 1e-2
    fov = 2 * torch.atan(32 / camera.intrinsics[:, 1, 1]) * 180 / math.pi
    assert fov.min() > 40 - 1e-3
    assert fov.max() < 70 + 1e-3
    pixels, depth = camera.project(torch.as_tensor(HEAD.centre)[None])
    assert torch.allclose(pixels, torch.full_like(pixels, 32.0), atol=1e-2)
    assert depth.min() > 0


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 32), seed=st.integers(0, 2**32 - 1))
def test_each_slice_of_azimuth_holds_one_camera(count, seed):
    _, azimuth = sample_cameras(count, HEAD, 8, CameraRanges(), np.random.default_rng(seed))
    slices = np.floor((azimuth.double().numpy() + 180) / 360 * count * (1 - 1e-7)).astype(int)
    assert sorted(slices) == list(range(count))


def test_focus_brings_cameras_before_the_face():
    """|azimuth| < 45 degrees has probability 0.25 ** (1 / focus)."""
    rng = np.random.default_rng(0)
    for focus in (1.0, 1.5, 2.0):
        _, azimuth = sample_cameras(4000, HEAD, 8, CameraRanges(focus=focus), rng)
        assert (azimuth.abs() < 45).double().mean() == pytest.approx(0.25 ** (1 / focus), abs=0.002)
        assert azimuth.abs().max() <= 180


def test_same_seed_same_cameras_and_other_seed_other_cameras():
    one, _ = sample_cameras(4, HEAD, (40, 20), CameraRanges(), np.random.default_rng(3))
    two, _ = sample_cameras(4, HEAD, (40, 20), CameraRanges(), np.random.default_rng(3))
    three, _ = sample_cameras(4, HEAD, (40, 20), CameraRanges(), np.random.default_rng(4))
    assert (one.width, one.height) == (40, 20)
    assert torch.equal(one.world_to_camera, two.world_to_camera)
    assert not torch.equal(one.world_to_camera, three.world_to_camera)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 12), seed=st.integers(0, 2**32 - 1), turn=st.floats(-90, 90))
def test_close_ups_stand_where_others_do_and_show_less_around_the_face(count, seed, turn):
    face, ranges = torch.tensor([0.3, 1.2, -0.4]), CameraRanges(fov_y=(50.0, 50.0))
    camera, azimuth = sample_close_ups(count, face, turn, HEAD.unit, (64, 48), ranges, np.random.default_rng(seed))
    assert len(camera) == len(azimuth) == count
    distance = (camera.centre - face).norm(dim=1) / HEAD.unit
    assert ((distance > 1.5 - 1e-3) & (distance < 2.0 + 1e-3)).all()
    pixels, _ = camera.project(face[None])
    torch.testing.assert_close(pixels[:, 0], torch.tensor([32.0, 24.0]).expand(count, 2), atol=1e-2, rtol=0)
    shown = 24 / camera.intrinsics[:, 1, 1] / math.tan(math.radians(25))  # of what 50 degrees show
    assert ((shown > CLOSE_UP[0] - 1e-3) & (shown < CLOSE_UP[1] + 1e-3)).all()
    assert camera.intrinsics[:, 0, 0].equal(camera.intrinsics[:, 1, 1])
    # Each in a slice of its own of what is before the face
    place = (azimuth.double().numpy() - turn) / CLOSE_UP_AZIMUTH
    assert sorted(np.floor((place + 1) / 2 * count * (1 - 1e-6)).astype(int)) == list(range(count))


@pytest.mark.parametrize(
    "field",
    [
        {"distance": (0.0, 1.0)},
        {"fov_y": (70.0, 40.0)},
        {"elevation": (-95.0, 0.0)},
        {"azimuth": (0, 900)},
        {"focus": 0.0},
    ],
)
def test_impossible_ranges_are_refused(field):
    with pytest.raises(UserError, match=next(iter(field))):
        CameraRanges(**field)
