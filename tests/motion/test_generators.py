"""The generators against their promises: bounds, continuity, human timing, left-right symmetry, determinism."""

from types import SimpleNamespace

import numpy as np
import pytest
from headstudio.errors import UserError
from headstudio.heads.expressions import ARKIT_NAMES
from headstudio.motion import generators
from headstudio.motion.generators import TURN_LIMITS, MotionSampler, settle
from headstudio.motion.poses import EXPRESSIONS, VISEMES, mirrored
from hypothesis import given, settings
from hypothesis import strategies as st

SLIDERS = ARKIT_NAMES
# Expression component i is slider i: the sampler's output shows the sliders themselves.
HEAD = SimpleNamespace(
    name="sliders",
    joint_names=("root", "neck", "jaw"),
    controls=SimpleNamespace(
        names=SLIDERS,
        to_expression=np.eye(len(SLIDERS), dtype=np.float32),
        to_joints=np.zeros((len(SLIDERS), 3, 3), np.float32),
    ),
)
CURVES = {name: getattr(generators, name) for name in ("visemes", "blinks", "gaze", "expressions")}
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("name", CURVES)
@settings(max_examples=15, deadline=None)
@given(seed=seeds, seconds=st.floats(0.0, 20.0))
def test_curves_stay_within_bounds(name, seed, seconds):
    times = np.linspace(0, seconds, 1 if seconds == 0 else 200)
    curves = CURVES[name](times, np.random.default_rng(seed))
    for slider, curve in curves.items():
        assert slider in SLIDERS
        assert curve.shape == times.shape
        assert curve.min() >= -1e-9, slider
        assert curve.max() <= 1 + 1e-9, slider


# Slider units per second. The fastest is a lid: closed within 60 ms; the minimum-jerk step peaks at 1.875 of its mean.
FASTEST = {"visemes": 1.875 / (2 * generators.COARTICULATION) * 6, "blinks": 32, "gaze": 95, "expressions": 8}


@pytest.mark.parametrize("name", CURVES)
def test_curves_are_continuous(name):
    """At 2 kHz no curve moves faster than its muscles: a jump would show as a speed of thousands."""
    times = np.arange(0, 30, 0.0005)
    for seed in range(3):
        for slider, curve in CURVES[name](times, np.random.default_rng(seed)).items():
            assert np.abs(np.diff(curve)).max() / 0.0005 < FASTEST[name], slider


def test_blinks_close_fully_at_human_intervals():
    times = np.arange(0, 600, 0.01)
    lids = generators.blinks(times, np.random.default_rng(1))["eyeBlinkLeft"]
    closed = lids > 0.99
    starts = np.flatnonzero(closed[1:] & ~closed[:-1])
    assert 9 < len(starts) / 10 < 30  # a minute
    edges = np.flatnonzero(np.diff((lids > 0.01).astype(int)))
    durations = np.diff(edges)[::2] * 0.01
    assert 0.12 < np.median(durations) < 0.4


def test_speech_closes_the_lips_between_open_vowels():
    """p, b, m between two wide vowels: the jaw's curve drops to a fifth at the closure."""
    rng = SimpleNamespace(
        uniform=lambda low, high: {(0.0, 1.5): 0.0, (0.6, 1.1): 1.0, (0.07, 0.16): 0.1, (0.15, 1.0): 9.0}[low, high],
        integers=lambda *args: 3 if len(args) == 2 else order.pop(0),
    )
    names = list(VISEMES)
    order = [names.index("aa"), names.index("PP"), names.index("aa")]
    times = np.arange(0, 0.3, 0.001)
    jaw = generators.visemes(times, rng)["jawOpen"]
    vowel = VISEMES["aa"].pose["jawOpen"]
    assert jaw[50] > 0.95 * vowel
    assert jaw[250] > 0.9 * vowel
    assert jaw[150] < 0.05 * vowel


def test_the_eyes_look_the_same_way_and_the_lids_follow():
    times = np.arange(0, 60, 0.01)
    curves = generators.gaze(times, np.random.default_rng(5))
    assert np.array_equal(curves["eyeLookOutLeft"], curves["eyeLookInRight"])
    assert np.array_equal(curves["eyeLookInLeft"], curves["eyeLookOutRight"])
    assert not np.any((curves["eyeLookOutLeft"] > 0) & (curves["eyeLookInLeft"] > 0))
    assert not np.any((curves["eyeLookUpLeft"] > 0) & (curves["eyeLookDownLeft"] > 0))
    down = curves["eyeLookDownLeft"]
    assert np.corrcoef(down, curves["eyeBlinkLeft"])[0, 1] > 0.999
    assert down.max() > 0.3


def test_head_turns_stay_within_human_limits_and_move_smoothly():
    times = np.arange(0, 120, 0.001)
    turns = generators.head_turns(times, np.random.default_rng(2))
    assert np.all(np.abs(turns) <= TURN_LIMITS + 1e-6)
    assert np.all(np.abs(turns).max(0) > 0.3 * TURN_LIMITS)
    assert np.abs(np.diff(turns, axis=0)).max() / 0.001 < 250  # degrees per second


def test_mirrored_exchanges_the_sides_and_undoes_itself():
    for pose in EXPRESSIONS.values():
        assert mirrored(mirrored(pose)) == pose
        for name, value in pose.items():
            swap = {"Left": "Right", "Right": "Left"}
            other = next((name.replace(a, b) for a, b in swap.items() if name.endswith(a)), name)
            assert mirrored(pose)[other] == value


def test_training_poses_treat_both_sides_alike_and_cover_what_is_rare():
    sampler = MotionSampler(HEAD)
    rng = np.random.default_rng(0)
    draws = [sampler.sample(rng) for _ in range(4000)]
    sliders = np.stack([expression for expression, _ in draws])
    assert sliders.shape == (4000, len(SLIDERS))
    assert sliders.dtype == np.float32
    assert sliders.min() >= 0
    assert sliders.max() <= 1
    mean = dict(zip(SLIDERS, sliders.mean(0), strict=True))
    error = dict(zip(SLIDERS, sliders.std(0) / np.sqrt(4000), strict=True))
    for name in SLIDERS:
        if name.endswith("Left"):
            other = name[:-4] + "Right"
            assert abs(mean[name] - mean[other]) < 5 * (error[name] + error[other]) + 1e-4, name
    column = {name: sliders[:, i] for i, name in enumerate(SLIDERS)}
    assert (column["eyeBlinkLeft"] > 0.99).mean() > 0.1
    assert (column["jawOpen"] > 0.4).mean() > 0.05
    assert all((curve > 0.1).mean() > 0.001 for curve in column.values())
    turns = np.degrees(np.stack([joints[1] for _, joints in draws]))
    assert np.abs(turns.mean(0)).max() < 1.0
    assert np.all(np.abs(turns) <= TURN_LIMITS + 1e-3)


def test_a_closed_lid_is_neither_wide_nor_squinting():
    full = {
        "eyeBlinkLeft": np.ones(1),
        "eyeWideLeft": np.ones(1),
        "eyeSquintLeft": np.ones(1),
        "eyeWideRight": np.ones(1),
    }
    settled = settle(full, {"eyeBlinkRight": np.zeros(1)})
    assert settled["eyeWideLeft"] == 0
    assert settled["eyeSquintLeft"] == 0
    assert settled["eyeWideRight"] == 1


@settings(max_examples=10, deadline=None)
@given(seed=seeds, seconds=st.floats(0.1, 8.0), fps=st.sampled_from([12, 24, 30, 60]))
def test_sequences_fit_the_head_and_repeat_with_their_seed(seed, seconds, fps):
    sampler = MotionSampler(HEAD)
    motion = sampler.sequence(seconds, fps, np.random.default_rng(seed))
    again = sampler.sequence(seconds, fps, np.random.default_rng(seed))
    assert motion.expression.shape == (max(round(seconds * fps), 1), len(SLIDERS))
    assert motion.joints.shape == (len(motion), 3, 3)
    assert motion.fps == fps
    assert motion.expression.min() >= 0
    assert motion.expression.max() <= 1
    assert np.array_equal(motion.expression, again.expression)
    assert np.array_equal(motion.joints, again.joints)


def test_what_cannot_be_made_is_refused():
    with pytest.raises(UserError, match="no frames"):
        MotionSampler(HEAD).sequence(0.0, 30, np.random.default_rng(0))
    names = tuple(name for name in SLIDERS if name != "jawOpen")
    lacking = SimpleNamespace(**{**vars(HEAD), "controls": SimpleNamespace(names=names)})
    with pytest.raises(UserError, match="jawOpen"):
        MotionSampler(lacking)
    with pytest.raises(UserError, match="neck"):
        MotionSampler(SimpleNamespace(**{**vars(HEAD), "joint_names": ("root", "jaw")}))
