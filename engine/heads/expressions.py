"""The expressions that a user knows by name: ARKit's 52, and presets mixed from them (standard library only)."""

from __future__ import annotations

ARKIT_NAMES: tuple[str, ...] = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight",
    "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight",
    "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight",
    "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
"""ARKit's blend shape locations, in alphabetical order; the order of the default head's expression."""

MIRRORED: tuple[tuple[str, str], ...] = tuple(
    (name, name.removesuffix("Left") + "Right") for name in ARKIT_NAMES if name.endswith("Left")
)
"""Pairs (left, right) of which one is the mirror image of the other; "left" is the subject's left."""


def mirrored(name: str) -> str:
    """The ARKit name of the mirror image: itself for a symmetric expression."""
    for left, right in MIRRORED:
        if name in (left, right):
            return right if name == left else left
    return name


def _both(**sliders: float) -> dict[str, float]:
    """Sliders given without a side stand for both sides."""
    result = {}
    for name, value in sliders.items():
        names = [name] if name in ARKIT_NAMES else [f"{name}Left", f"{name}Right"]
        result.update(dict.fromkeys(names, value))
    return result


PRESETS: dict[str, dict[str, float]] = {
    "neutral": {},
    # moods
    "smile": _both(mouthSmile=0.8, cheekSquint=0.45, mouthDimple=0.2, eyeSquint=0.15),
    "laugh": _both(mouthSmile=0.9, jawOpen=0.45, cheekSquint=0.7, eyeSquint=0.5, mouthUpperUp=0.3, browInnerUp=0.15),
    "frown": _both(mouthFrown=0.7, browDown=0.5, mouthShrugLower=0.3, mouthPress=0.2),
    "sadness": _both(browInnerUp=0.85, mouthFrown=0.6, mouthShrugLower=0.3, eyeSquint=0.2, eyeLookDown=0.25),
    "surprise": _both(browInnerUp=0.9, browOuterUp=0.85, eyeWide=0.9, jawOpen=0.5, mouthFunnel=0.15),
    "anger": _both(
        browDown=1.0,
        eyeSquint=0.35,
        noseSneer=0.55,
        mouthPress=0.4,
        mouthFrown=0.3,
        mouthRollLower=0.15,
        jawForward=0.2,
    ),
    "disgust": _both(noseSneer=0.9, mouthUpperUp=0.5, browDown=0.5, eyeSquint=0.5, cheekSquint=0.5, mouthFrown=0.35),
    "fear": _both(
        browInnerUp=0.9, browOuterUp=0.35, browDown=0.2, eyeWide=0.8, mouthStretch=0.6, jawOpen=0.2, mouthLowerDown=0.2
    ),
    # single actions
    "blink": _both(eyeBlink=1.0),
    "wink": {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.5, "mouthSmileLeft": 0.4, "browDownLeft": 0.2},
    "kiss": _both(mouthPucker=1.0, mouthFunnel=0.15, eyeSquint=0.15),
    "puffed cheeks": _both(cheekPuff=1.0, mouthPress=0.3, mouthPucker=0.2),
    "tongue out": _both(tongueOut=1.0, jawOpen=0.45, mouthLowerDown=0.2),
    "open mouth": _both(jawOpen=0.8),
    # visemes, by the sounds they show; "sil" is silence
    "viseme sil": {},
    "viseme PP": _both(mouthPress=0.4, mouthRollLower=0.15, mouthShrugLower=0.35),
    "viseme FF": _both(jawOpen=0.08, mouthRollLower=0.6, mouthUpperUp=0.3, mouthShrugUpper=0.15),
    "viseme TH": _both(jawOpen=0.18, tongueOut=0.3, mouthLowerDown=0.2, mouthUpperUp=0.1),
    "viseme DD": _both(jawOpen=0.14, mouthUpperUp=0.15, mouthLowerDown=0.3, mouthStretch=0.1),
    "viseme kk": _both(jawOpen=0.22, mouthLowerDown=0.2, mouthStretch=0.15, mouthUpperUp=0.1),
    "viseme CH": _both(jawOpen=0.12, mouthFunnel=0.6, mouthPucker=0.15, mouthUpperUp=0.15, mouthLowerDown=0.15),
    "viseme SS": _both(jawOpen=0.06, mouthStretch=0.3, mouthSmile=0.15, mouthLowerDown=0.3, mouthUpperUp=0.1),
    "viseme nn": _both(jawOpen=0.12, mouthLowerDown=0.15, mouthSmile=0.05),
    "viseme RR": _both(jawOpen=0.14, mouthFunnel=0.35, mouthPucker=0.3),
    "viseme aa": _both(jawOpen=0.55, mouthLowerDown=0.2, mouthUpperUp=0.1),
    "viseme E": _both(jawOpen=0.28, mouthStretch=0.35, mouthSmile=0.2, mouthLowerDown=0.25, mouthUpperUp=0.1),
    "viseme I": _both(jawOpen=0.16, mouthSmile=0.45, mouthStretch=0.25, mouthLowerDown=0.15),
    "viseme O": _both(jawOpen=0.35, mouthFunnel=0.65, mouthPucker=0.2),
    "viseme U": _both(jawOpen=0.16, mouthPucker=0.75, mouthFunnel=0.3),
}
"""Named mixes of sliders, each value in 0..1: moods, single actions, and the fifteen visemes of lip synchronisation."""
