"""Is there hair, a beard, a hat? Statistics of regions of four portraits, and the thresholds that tell.

The thresholds are those that best part random characters of the starter prior's generator, sharp and blurred; the
generator's words are never read.
"""

from __future__ import annotations

import numpy as np

from ..export.pictures import Stage
from .caption import presence_claims
from .colours import srgb_to_lab
from .portraits import Portrait, portrait

AZIMUTHS = (0.0, 90.0, -90.0, 180.0)  # degrees: front, left, right, back
UNLIKE_SKIN = 14.0  # CIE76
_SOLID = 0.5  # alpha from which on a pixel counts as covered


def features(portraits: dict[float, Portrait]) -> dict[str, float]:
    """What the regions look like, from one portrait per azimuth of ``AZIMUTHS``; distances of colours are CIE76.

    ``crown_distance``: the median of the scalp above the brows against the cheeks' skin; ``crown_spread``: between its
    15th and 85th percentile. ``nape_other``: share of the scalp below that looks unlike skin. ``above_back``,
    ``below_back``: square centimetres beyond the bare head's outline, above the hairline and below the mouth, from
    behind. ``upper_other``: share of the upper forehead that is unlike skin. ``chin`` and ``lip``: medians of the
    beard's and the moustache's region against skin. ``ring`` and ``bridge``: against skin below the eyes, where frames
    are (the lesser of both eyes), and between them. All are 0 where the head shows no such region.
    """
    looks = {azimuth: _Look(portraits[azimuth]) for azimuth in AZIMUTHS}
    front, back = looks[0.0], looks[180.0]
    marks = landmark_places(front.part)
    brow, hairline, mouth, chin = (marks[mark][1] for mark in (105, 10, 13, 152))
    skin = front.skin()
    x, y = front.part.plane

    def away(look: _Look, mask: np.ndarray) -> np.ndarray:
        return np.linalg.norm(look.lab[mask] - skin, axis=1)

    crowns = [(look, look.part.shows("scalp") & (look.part.plane[1] > brow)) for look in looks.values()]
    crown = np.concatenate([look.lab[mask] for look, mask in crowns])
    napes = [
        (look, look.part.shows("scalp") & (look.part.plane[1] < brow - 0.005)) for a, look in looks.items() if a != 0
    ]
    nape = np.concatenate([away(look, mask) for look, mask in napes])
    behind, height = back.solid & (back.part.triangle < 0), back.part.plane[1]
    cell = (x[0, 1] - x[0, 0]) ** 2 * 1e4  # square centimetres of a pixel
    upper = front.part.shows("face", "nose") & (y > brow + 0.6 * (hairline - brow)) & (np.abs(x) < 0.045)
    rings = []
    for eye in (marks[473], marks[468]):
        radius = np.hypot((x - eye[0]) / 1.15, y - eye[1])
        below = (radius > 0.0125) & (radius < 0.027) & (y < eye[1] - 0.004)
        rings.append(_median(away(front, below & front.part.shows("face", "lid", "nose"))))
    level = 0.5 * (marks[473][1] + marks[468][1])
    bridge = front.part.shows("nose", "face") & (np.abs(x) < 0.006) & (np.abs(y - level) < 0.012)
    return {
        "crown_distance": _median(np.linalg.norm(crown - skin, axis=1)),
        "crown_spread": float(np.linalg.norm(np.percentile(crown, 85, 0) - np.percentile(crown, 15, 0)))
        if len(crown)
        else 0.0,
        "nape_other": _share(nape > UNLIKE_SKIN),
        "above_back": float((behind & (height > hairline)).sum() * cell),
        "below_back": float((behind & (height < mouth - 0.01) & (height > chin - 0.07)).sum() * cell),
        "upper_other": _share(away(front, upper) > UNLIKE_SKIN),
        "chin": _median(away(front, front.part.shows("chin_beard"))),
        "lip": _median(away(front, front.part.shows("moustache"))),
        "ring": min(rings),
        "bridge": float(np.percentile(away(front, bridge), 85)) if bridge.any() else 0.0,
    }


def present(found: dict[str, float]) -> dict[str, bool]:
    """From ``features``: which of hair, long hair, beard, moustache, headgear and glasses (or a mask) there are."""
    headgear = found["upper_other"] > 0.8 or found["crown_spread"] > 26.5
    # A hat is volume and colour above the head, too: under one only the nape tells
    loose = found["above_back"] > 37.4 or found["crown_distance"] > 15.8
    hair = found["nape_other"] > 0.6 if headgear else loose
    return {
        "hair": bool(hair),
        "long hair": bool(found["below_back"] > 90),
        "beard": bool(found["chin"] > 4.9 and found["lip"] > 7.9),
        "moustache": bool(found["lip"] > 12.4),
        "headgear": bool(headgear),
        "glasses": bool(found["ring"] > 5.8 and found["bridge"] > 9.9),
    }


def attributes(stage: Stage, prompt: str) -> dict | None:
    """``seen``: what there is (``present``), and ``found``: the figures that say so; ``claims``: a list of
    ``attribute``, ``said`` and ``agrees`` for what the prompt says; ``agreeing`` of ``of``. None for a head whose
    regions are not the default head's."""
    if not {"scalp", "chin_beard", "moustache", "face"} <= set(stage.arrays.region_names):
        return None
    gaussians = stage.pose()
    found = features({azimuth: portrait(stage.arrays, gaussians, azimuth) for azimuth in AZIMUTHS})
    seen = present(found)
    claims = [
        {"attribute": name, "said": said, "agrees": seen[name] == said}
        for name, said in presence_claims(prompt).items()
    ]
    return {
        "seen": seen,
        "found": {name: round(value, 2) for name, value in found.items()},
        "claims": claims,
        "agreeing": sum(claim["agrees"] for claim in claims),
        "of": len(claims),
    }


class _Look:
    """A portrait with what is derived from its colours."""

    def __init__(self, part: Portrait):
        self.part = part
        self.solid = part.alpha > _SOLID
        colour = part.colour / np.maximum(part.alpha, 1e-3)[..., None]
        self.lab = srgb_to_lab(np.clip(colour, 0, 1))

    def skin(self) -> np.ndarray:  # [3] L*a*b*
        """The cheeks' colour, from the front: the median of face and nose between eyes and mouth."""
        marks = landmark_places(self.part)
        y = self.part.plane[1]
        low, high = marks[13][1], min(marks[473][1], marks[468][1]) - 0.02
        cheeks = self.part.shows("face", "nose") & (y > low + 0.005) & (y < high)
        return np.median(self.lab[cheeks], 0) if cheeks.any() else np.zeros(3)


def landmark_places(part: Portrait) -> dict[int, np.ndarray]:
    """MediaPipe index to plane coordinates [2]."""
    table = part.head.landmarks
    corners = part.head.vertices[part.head.triangles[table.triangles]]
    return dict(
        zip(table.indices.tolist(), part.place(np.einsum("lk,lkj->lj", table.barycentric, corners)), strict=True)
    )


def _share(mask: np.ndarray) -> float:
    return float(mask.mean()) if mask.size else 0.0


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else 0.0
