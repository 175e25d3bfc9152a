"""Do the lids cover the eyes, and do the lips cover the mouth? Measured on renders, splats and all."""

from __future__ import annotations

import torch

from ..export.pictures import Stage
from ..heads.arrays import EYEBALLS, MOUTH
from .visible import distance_to, visible_area

SIZE = 512  # pixels
COVERED = 0.1  # lids and lips pass when they leave at most this share of what they show when open
LEAST = 0.2  # square centimetres that open eyes, or an open mouth, show at least


def lids(stage: Stage) -> dict | None:
    """``open_cm2``: eyeball seen from the front at rest; ``closed_cm2``: with both lids down; ``share``: the second
    over the first, null where too little shows to tell; ``passes``.

    None for a head that has no eyeballs of its own or no ``eyeBlink`` controls.
    """
    return _closing(stage, EYEBALLS, {}, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})


def lips(stage: Stage) -> dict | None:
    """``open_cm2``: mouth cavity, teeth and tongue seen from the front with ``jawOpen`` at 1; ``closed_cm2``: at rest;
    ``share`` and ``passes`` as for the lids. None for a head that lacks these or the control."""
    return _closing(stage, MOUTH, {"jawOpen": 1.0}, {})


def _closing(stage: Stage, words: tuple[str, ...], opened: dict, closed: dict) -> dict | None:
    head = stage.arrays
    triangles = head.triangles_in(words)
    if not triangles.any() or not {*opened, *closed} <= set(head.controls.names):
        return None
    chosen = torch.as_tensor(triangles, device=stage.model.head.device)[stage.model.gaussians.triangle]
    camera = stage.camera(0.0, SIZE)
    middle = head.vertices[head.triangles[triangles]].reshape(-1, 3).mean(0)
    depth = distance_to(camera, torch.as_tensor(middle))
    areas = [visible_area(stage.pose(*head.drive(sliders)), chosen, camera, depth) for sliders in (opened, closed)]
    share = areas[1] / areas[0] if areas[0] >= LEAST else None
    return {
        "open_cm2": round(areas[0], 3),
        "closed_cm2": round(areas[1], 3),
        "share": None if share is None else round(share, 4),
        "passes": share is not None and share <= COVERED,
    }
