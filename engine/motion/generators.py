"""Built-in motion without any recording: speech-like mouth shapes, blinks, gaze, expressions and head turns.

Every generator draws poses (see ``poses.py``) and a schedule that moves between them, and returns curves over the
given times. The numbers are people's: a blink lasts 0.2-0.4 s and comes every 2-6 s, the eyes hold a target for
0.3-2.5 s and jump to the next within 0.1 s, a phone lasts 70-160 ms and its mouth shape reaches 50 ms into its
neighbours. numpy only.
"""

from __future__ import annotations

import itertools

import numpy as np

from ..errors import UserError
from ..heads.arrays import HeadArrays
from .motion import Motion
from .poses import EXPRESSIONS, VISEMES, Pose, mirrored

Curves = dict[str, np.ndarray]  # ARKit slider to its values [T] in 0..1

# What the generated necks do, degrees either way: about half of what a neck can, beyond which people turn their
# shoulders. Pitch is positive looking down, yaw towards the subject's left, roll towards the subject's right shoulder.
TURN_LIMITS = np.array([25.0, 40.0, 15.0])  # pitch, yaw, roll
TURN_SPREAD = np.array([7.0, 14.0, 5.0])  # standard deviations of the targets
GAZE_SPREAD = np.array([0.35, 0.25])  # standard deviations of the targets, horizontal and vertical, of full deflection
COARTICULATION = 0.05  # seconds that a mouth shape reaches into its neighbours on either side


def ease(x: np.ndarray) -> np.ndarray:
    """Minimum-jerk step from 0 (x <= 0) to 1 (x >= 1): how muscles go from one point of rest to another."""
    x = np.clip(x, 0.0, 1.0)
    return x**3 * (10 - 15 * x + 6 * x**2)


def pulse(
    times: np.ndarray,  # [T] seconds
    start: float,
    attack: float,
    hold: float,
    release: float,
) -> np.ndarray:  # [T] in 0..1
    """Rises within ``attack`` seconds from ``start``, stays at 1 for ``hold``, falls within ``release``."""
    return ease((times - start) / attack) * (1 - ease((times - start - attack - hold) / release))


def walk(
    times: np.ndarray,  # [T] seconds
    targets: list[tuple[float, float, np.ndarray]],  # (start, duration, target [D]), in order of time
) -> np.ndarray:  # [T, D]
    """From one target to the next along minimum-jerk steps with rests between; before the first one, the first."""
    value = np.repeat(targets[0][2][None], len(times), 0)
    for (_, _, before), (start, duration, target) in itertools.pairwise(targets):
        value = value + ease((times - start) / duration)[:, None] * (target - before)
    return value


def add(curves: Curves, pose: Pose, weight: np.ndarray) -> None:
    """``curves`` += ``weight`` [T] times ``pose``, in place."""
    for name, value in pose.items():
        curves[name] = curves.get(name, 0.0) + value * weight


def visemes(times: np.ndarray, rng: np.random.Generator) -> Curves:
    """Speech-like: phrases of mouth shapes with pauses between.

    Neighbours overlap; where they do, each shape counts by its weight times its firmness, so that the lips still meet
    between two open vowels. A phrase has a loudness, which scales its shapes.
    """
    names = list(VISEMES)
    shapes: list[tuple[Pose, float, np.ndarray]] = []
    now = times[0] - rng.uniform(0.0, 1.5)
    while now <= times[-1]:
        loudness = rng.uniform(0.6, 1.1)
        for _ in range(rng.integers(4, 22)):
            duration = rng.uniform(0.07, 0.16)
            viseme = VISEMES[names[rng.integers(len(names))]]
            # Rises around the phone's start and falls around its end: with its neighbour's rise that sums to one.
            weight = ease((times - now) / (2 * COARTICULATION) + 0.5)
            weight = weight * (1 - ease((times - now - duration) / (2 * COARTICULATION) + 0.5))
            pose = {name: min(value * loudness, 1.0) for name, value in viseme.pose.items()}
            shapes.append((pose, viseme.firmness, weight))
            now += duration
        now += rng.uniform(0.15, 1.0)
    total = sum(firmness * weight for _, firmness, weight in shapes)
    # Where one shape alone fades out, the remainder of its weight is rest, not a share for the others.
    present = np.minimum(sum(weight for _, _, weight in shapes), 1.0)
    curves: Curves = {}
    for pose, firmness, weight in shapes:
        add(curves, pose, present * firmness * weight / np.maximum(total, 1e-9))
    return curves


def blinks(times: np.ndarray, rng: np.random.Generator) -> Curves:
    """Both lids close fully and open more slowly than they closed; one blink in eight comes twice."""
    lids = np.zeros(len(times))
    now = times[0] - rng.uniform(0.0, 2.0)
    while now < times[-1]:
        for _ in range(2 if rng.random() < 0.125 else 1):
            closing, closed, opening = rng.uniform(0.06, 0.1), rng.uniform(0.03, 0.08), rng.uniform(0.12, 0.22)
            lids = np.maximum(lids, pulse(times, now, closing, closed, opening))
            now += closing + closed + opening
        now += rng.uniform(1.8, 5.5)
    return {"eyeBlinkLeft": lids, "eyeBlinkRight": lids.copy()}


def gaze_curves(direction: np.ndarray) -> Curves:
    """Sliders of both eyes for a direction [T, 2] in -1..1: to the subject's left, and up. The lids follow the eyes."""
    left, up = np.clip(direction, -1.0, 1.0).T
    to_left, to_right = np.maximum(left, 0), np.maximum(-left, 0)
    curves: Curves = {
        "eyeLookOutLeft": to_left,
        "eyeLookInRight": to_left,
        "eyeLookInLeft": to_right,
        "eyeLookOutRight": to_right,
    }
    for side in ("Left", "Right"):
        curves["eyeLookUp" + side] = np.maximum(up, 0)
        curves["eyeLookDown" + side] = np.maximum(-up, 0)
        curves["eyeWide" + side] = 0.25 * np.maximum(up, 0)
        curves["eyeBlink" + side] = 0.35 * np.maximum(-up, 0)
    return curves


def gaze_target(rng: np.random.Generator) -> np.ndarray:  # [2]
    return np.clip(rng.normal(0.0, GAZE_SPREAD), -1.0, 1.0)


def gaze(times: np.ndarray, rng: np.random.Generator) -> Curves:
    """Jumps between targets, mostly near the middle; every third one is back at the viewer."""
    targets = [(times[0], 0.0, gaze_target(rng))]
    now = times[0]
    while now < times[-1]:
        now += 0.3 + min(rng.exponential(0.7), 2.2)
        target = np.zeros(2) if rng.random() < 0.33 else gaze_target(rng)
        # The longer the jump, the longer it takes: about 20 ms and 40 ms more for a full deflection.
        targets.append((now, 0.02 + 0.04 * float(np.linalg.norm(target - targets[-1][2])), target))
    return gaze_curves(walk(times, targets))


def expression_pose(rng: np.random.Generator) -> Pose:
    """One to three expressions mixed, each mirrored half the time, one side of the face a little stronger."""
    pose: Pose = {}
    names = list(EXPRESSIONS)
    count = int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
    for name in rng.choice(names, count, replace=False):
        part = EXPRESSIONS[name] if rng.random() < 0.5 else mirrored(EXPRESSIONS[name])
        strength = rng.uniform(0.3, 1.0) if count == 1 else rng.uniform(0.2, 0.8)
        weaker = "Left" if rng.random() < 0.5 else "Right"
        balance = rng.uniform(0.6, 1.0)
        for slider, value in part.items():
            side = balance if slider.endswith(weaker) else 1.0
            pose[slider] = min(pose.get(slider, 0.0) + value * strength * side, 1.0)
    return pose


def expressions(times: np.ndarray, rng: np.random.Generator) -> Curves:
    """Expressions that come within half a second, stay, and go, with rests between."""
    curves: Curves = {}
    now = times[0] - rng.uniform(0.0, 2.0)
    while now < times[-1]:
        attack, hold, release = rng.uniform(0.25, 0.6), rng.uniform(0.5, 2.0), rng.uniform(0.4, 0.9)
        add(curves, expression_pose(rng), pulse(times, now, attack, hold, release))
        now += attack + hold + release + rng.uniform(0.3, 2.5)
    return curves


def turn_target(rng: np.random.Generator) -> np.ndarray:  # [3] degrees: pitch, yaw, roll
    return np.clip(rng.normal(0.0, TURN_SPREAD), -TURN_LIMITS, TURN_LIMITS)


def head_turns(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # [T, 3] degrees: pitch, yaw, roll
    """Turns between targets around the middle, slower the farther they go, with rests between."""
    targets = [(times[0], 0.0, turn_target(rng))]
    now = times[0]
    while now < times[-1]:
        now += rng.uniform(0.4, 2.0)
        target = turn_target(rng)
        duration = 0.3 + 0.015 * float(np.abs(target - targets[-1][2]).max())
        targets.append((now, duration, target))
        now += duration
    return walk(times, targets)


def speech_pose(rng: np.random.Generator) -> Pose:
    """One mouth shape, or a moment between two."""
    names = list(VISEMES)
    first, second = (VISEMES[names[i]].pose for i in rng.integers(len(names), size=2))
    share, loudness = ease(rng.uniform(-0.5, 1.5)), rng.uniform(0.6, 1.1)
    pose: Pose = {}
    for part, weight in ((first, 1 - share), (second, share)):
        for name, value in part.items():
            pose[name] = pose.get(name, 0.0) + float(min(value * loudness, 1.0) * weight)
    return pose


def settle(*layers: Curves) -> Curves:
    """Layers added up and brought back into 0..1. A closed lid neither widens nor squints, whatever the face does."""
    curves: Curves = {}
    for layer in layers:
        add(curves, layer, 1.0)
    curves = {name: np.clip(curve, 0.0, 1.0) for name, curve in curves.items()}
    for side in ("Left", "Right"):
        blink = curves.get("eyeBlink" + side)
        for name in ("eyeWide" + side, "eyeSquint" + side):
            if blink is not None and name in curves:
                curves[name] = curves[name] * (1 - blink)
    return curves


class MotionSampler:
    """Random motion of one head: single poses for training, sequences for previews.

    Raises ``UserError`` for a head that lacks an ARKit control that the generators use, or a neck.
    """

    def __init__(self, arrays: HeadArrays):
        self.arrays = arrays
        self._rows = {name: row for row, name in enumerate(arrays.controls.names)}
        poses = [viseme.pose for viseme in VISEMES.values()] + list(EXPRESSIONS.values())
        used = set(gaze_curves(np.zeros((1, 2)))).union(*poses)
        missing = sorted(used - set(self._rows))
        if missing or "neck" not in arrays.joint_names:
            lacking = f"the controls {', '.join(missing)}" if missing else "the joint neck"
            raise UserError(f"The head {arrays.name!r} lacks {lacking}, which the built-in motion needs.")
        self._neck = arrays.joint_names.index("neck")

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One random pose: (expression [E], joints [J, 3] in radians), float32.

        What people rarely do is drawn as often as what they do all day, so that training sees it: speech in four of ten
        draws, expressions in five, lids partly or fully closed in three.
        """
        mouth = rng.random()
        face = speech_pose(rng) if mouth < 0.4 else expression_pose(rng) if mouth < 0.9 else {}
        lids = {}
        if rng.random() < 0.3:
            closed = float(min(rng.uniform(0.2, 1.6), 1.0))  # half of them fully
            lids = {"eyeBlinkLeft": closed, "eyeBlinkRight": closed}
        eyes = gaze_curves(gaze_target(rng)[None])
        curves = settle(*({name: np.full(1, value) for name, value in layer.items()} for layer in (face, lids)), eyes)
        motion = self._drive(curves, turn_target(rng)[None], 1.0)
        return motion.expression[0], motion.joints[0]

    def sequence(self, seconds: float, fps: float, rng: np.random.Generator) -> Motion:
        """Talking, blinking, looking around, with expressions and turns of the head, all at once."""
        frames = round(seconds * fps)
        if frames < 1:
            raise UserError(f"A motion of {seconds:g} seconds at {fps:g} frames per second has no frames.")
        times = np.arange(frames) / fps
        # A speaking mouth shows an expression only faintly: it has work to do.
        face = {
            name: curve * (0.35 if name.startswith(("mouth", "jaw", "tongue")) else 1.0)
            for name, curve in expressions(times, rng).items()
        }
        curves = settle(visemes(times, rng), face, blinks(times, rng), gaze(times, rng))
        return self._drive(curves, head_turns(times, rng), fps)

    def _drive(self, curves: Curves, turns: np.ndarray, fps: float) -> Motion:
        """Curves of sliders and turns of the neck [T, 3] in degrees through the head's controls."""
        controls = self.arrays.controls
        sliders = np.zeros((len(turns), len(controls.names)))
        for name, curve in curves.items():
            sliders[:, self._rows[name]] = curve
        joints = np.tensordot(sliders, controls.to_joints, 1)
        joints[:, self._neck] += np.radians(turns)
        return Motion((sliders @ controls.to_expression).astype(np.float32), joints.astype(np.float32), fps)
