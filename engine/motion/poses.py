"""What the generators choose from: mouth shapes of speech and expressions, as values of ARKit sliders. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

from ..heads.expressions import PRESETS
from ..heads.expressions import mirrored as mirrored_name

Pose = dict[str, float]  # ARKit slider to value in 0..1


@dataclass(frozen=True)
class Viseme:
    """A mouth shape of speech and how firmly it holds against its neighbours: lips that must meet, meet."""

    pose: Pose
    firmness: float


_FIRMNESS = {"PP": 5.0, "FF": 4.0, "CH": 2.0, "SS": 2.0, "TH": 1.5, "U": 1.5, "aa": 1.2, "O": 1.2}

VISEMES: dict[str, Viseme] = {
    name.removeprefix("viseme "): Viseme(pose, _FIRMNESS.get(name.removeprefix("viseme "), 1.0))
    for name, pose in PRESETS.items()
    if name.startswith("viseme ") and pose  # silence is the rest between phrases
}

# At full strength; the generators scale, mix and mirror them. Neutral, blinks and visemes have generators of their own.
EXPRESSIONS: dict[str, Pose] = {
    **{name: pose for name, pose in PRESETS.items() if pose and name != "blink" and not name.startswith("viseme ")},
    # What the named presets do not move, one-sided where faces are
    "smirk": {"mouthSmileLeft": 0.7, "mouthDimpleLeft": 0.3, "cheekSquintLeft": 0.2},
    "doubtful": {"browOuterUpLeft": 0.8, "browDownRight": 0.6, "mouthLeft": 0.3},
    "thinking": {"mouthPucker": 0.3, "mouthLeft": 0.4, "browDownLeft": 0.3, "browDownRight": 0.3},
    "yawn": {"jawOpen": 0.9, "mouthFunnel": 0.3, "eyeBlinkLeft": 0.6, "eyeBlinkRight": 0.6},
    "jaw aside": {"jawLeft": 0.7},
    "jaw forward": {"jawForward": 0.8},
    "lips apart": {"jawOpen": 0.4, "mouthClose": 0.3},
    "lips rolled": {"mouthRollLower": 0.8, "mouthRollUpper": 0.7, "mouthShrugUpper": 0.2},
}


def mirrored(pose: Pose) -> Pose:
    """The pose with the subject's left and right exchanged."""
    return {mirrored_name(name): value for name, value in pose.items()}
