"""What the generators choose from: mouth shapes of speech and expressions, as values of ARKit sliders. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

Pose = dict[str, float]  # ARKit slider to value in 0..1


@dataclass(frozen=True)
class Viseme:
    """A mouth shape of speech and how firmly it holds against its neighbours: lips that must meet, meet."""

    pose: Pose
    firmness: float = 1.0


def both(name: str, value: float) -> Pose:
    """The same value for the left and the right slider of a pair."""
    return {name + "Left": value, name + "Right": value}


VISEMES: dict[str, Viseme] = {
    "PP": Viseme({**both("mouthPress", 0.5), "mouthRollLower": 0.15, "mouthRollUpper": 0.1}, 5.0),
    "FF": Viseme({"jawOpen": 0.06, "mouthRollLower": 0.55, **both("mouthUpperUp", 0.25), "mouthShrugLower": 0.1}, 4.0),
    "TH": Viseme({"jawOpen": 0.16, **both("mouthLowerDown", 0.2), "tongueOut": 0.25}, 1.5),
    "DD": Viseme({"jawOpen": 0.14, **both("mouthLowerDown", 0.25), **both("mouthStretch", 0.1)}),
    "kk": Viseme({"jawOpen": 0.2, **both("mouthLowerDown", 0.2), **both("mouthUpperUp", 0.1)}),
    "CH": Viseme({"jawOpen": 0.1, "mouthFunnel": 0.45, "mouthPucker": 0.15}, 2.0),
    "SS": Viseme({"jawOpen": 0.04, **both("mouthStretch", 0.3), **both("mouthLowerDown", 0.25)}, 2.0),
    "nn": Viseme({"jawOpen": 0.12, **both("mouthLowerDown", 0.15), **both("mouthUpperUp", 0.1)}),
    "RR": Viseme({"jawOpen": 0.14, "mouthFunnel": 0.25, "mouthPucker": 0.2}),
    "aa": Viseme({"jawOpen": 0.55, **both("mouthLowerDown", 0.2), **both("mouthUpperUp", 0.1)}, 1.2),
    "E": Viseme({"jawOpen": 0.28, **both("mouthStretch", 0.25), **both("mouthSmile", 0.15)}),
    "ih": Viseme({"jawOpen": 0.18, **both("mouthStretch", 0.2), **both("mouthSmile", 0.25)}),
    "oh": Viseme({"jawOpen": 0.35, "mouthFunnel": 0.45, "mouthPucker": 0.2}, 1.2),
    "ou": Viseme({"jawOpen": 0.15, "mouthPucker": 0.65, "mouthFunnel": 0.2}, 1.5),
}

# At full strength; the generators scale, mix and mirror them.
EXPRESSIONS: dict[str, Pose] = {
    "smile": {**both("mouthSmile", 0.8), **both("cheekSquint", 0.4), **both("mouthDimple", 0.2)},
    "laugh": {"jawOpen": 0.45, **both("mouthSmile", 0.9), **both("cheekSquint", 0.7), **both("mouthUpperUp", 0.3)},
    "smirk": {"mouthSmileLeft": 0.7, "mouthDimpleLeft": 0.3, "cheekSquintLeft": 0.2},
    "sad": {**both("mouthFrown", 0.7), "browInnerUp": 0.7, "mouthShrugLower": 0.3},
    "angry": {**both("browDown", 0.9), **both("noseSneer", 0.4), **both("mouthPress", 0.4), **both("eyeSquint", 0.4)},
    "surprised": {"browInnerUp": 0.8, **both("browOuterUp", 0.8), **both("eyeWide", 0.8), "jawOpen": 0.35},
    "afraid": {"browInnerUp": 0.9, **both("eyeWide", 0.7), **both("mouthStretch", 0.6), "jawOpen": 0.15},
    "disgusted": {**both("noseSneer", 0.9), **both("mouthUpperUp", 0.5), **both("browDown", 0.5)},
    "doubtful": {"browOuterUpLeft": 0.8, "browDownRight": 0.6, "mouthLeft": 0.3},
    "thinking": {"mouthPucker": 0.3, "mouthLeft": 0.4, "browDownLeft": 0.3, "browDownRight": 0.3},
    "kiss": {"mouthPucker": 0.9, "mouthFunnel": 0.2},
    "puffed": {"cheekPuff": 0.9, **both("mouthPress", 0.4)},
    "yawn": {"jawOpen": 0.9, "mouthFunnel": 0.3, **both("eyeSquint", 0.6), **both("eyeBlink", 0.4)},
    "jaw aside": {"jawLeft": 0.7},
    "jaw forward": {"jawForward": 0.8},
    "tongue": {"tongueOut": 1.0, "jawOpen": 0.3},
    "pressed": {**both("mouthPress", 0.9), **both("mouthDimple", 0.3)},
    "lips rolled": {"mouthRollLower": 0.8, "mouthRollUpper": 0.7},
    "wink": {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.5, "mouthSmileLeft": 0.3},
}


def mirrored(pose: Pose) -> Pose:
    """The pose with the subject's left and right exchanged."""

    def other(name: str) -> str:
        if "Left" in name:
            return name.replace("Left", "Right")
        return name.replace("Right", "Left")

    return {other(name): value for name, value in pose.items()}
