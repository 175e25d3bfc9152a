import subprocess
import sys

import numpy as np
import pytest
from headstudio.motion.motion import Motion
from hypothesis import given, settings
from hypothesis import strategies as st


def ramp(frames: int, fps: float = 10.0) -> Motion:
    values = np.arange(frames, dtype=np.float32)
    return Motion(values[:, None].repeat(3, 1), values[:, None, None] * np.ones((1, 2, 3), np.float32), fps)


@settings(max_examples=50, deadline=None)
@given(frames=st.integers(1, 40), second=st.floats(-2, 10))
def test_at_is_linear_between_frames_and_held_at_the_ends(frames, second):
    expression, joints = ramp(frames).at(second)
    expected = np.interp(second * 10, np.arange(frames), np.arange(frames))
    assert np.allclose(expression, expected, atol=1e-4)
    assert np.allclose(joints, expected, atol=1e-4)


def test_length():
    assert len(ramp(25)) == 25
    assert ramp(25).seconds == 2.5
    with pytest.raises(ValueError, match="without frames"):
        ramp(0).at(0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((4, 3)), np.zeros((5, 2, 3)), 30), "joints"),
        ((np.zeros((4, 3)), np.zeros((4, 2)), 30), "joints"),
        ((np.zeros(4), np.zeros((4, 2, 3)), 30), "expression"),
        ((np.full((4, 3), np.nan), np.zeros((4, 2, 3)), 30), "finite"),
        ((np.zeros((4, 3)), np.zeros((4, 2, 3)), 0), "fps"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Motion(*arguments)


def test_motion_needs_no_torch():
    blocked = "import sys; sys.modules['torch'] = None; import headstudio.motion.generators"
    subprocess.run([sys.executable, "-c", blocked], check=True)
