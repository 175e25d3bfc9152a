"""Do the lids cover the eyes, and the lips the mouth? What is behind the lips? Measured on renders, splats and all."""

from __future__ import annotations

import numpy as np
import torch

from ..export.pictures import Stage
from ..heads.arrays import EYEBALLS, MOUTH
from ..rasterise import rasterise
from .colours import srgb_to_lab
from .visible import distance_to, share_picture, visible_area

SIZE = 512  # pixels
COVERED = 0.1  # lids and lips pass when they leave at most this share of what they show when open
DARK, DARKER = 40.0, 8.0  # L* of a mouth's inside at most, and how far below the skin's
LIGHT, WHITE = 55.0, 22.0  # L* of teeth at least, and chroma at most
UNLIKE_SKIN = 15.0  # CIE76
LEAST = 0.2  # square centimetres that open eyes, or an open mouth, show at least


def lids(stage: Stage) -> dict | None:
    """``open_cm2``: eyeball seen from the front at rest; ``closed_cm2``: with both lids down; ``share``: the second
    over the first, null where too little shows to tell; ``passes``.

    None for a head that has no eyeballs of its own or no ``eyeBlink`` controls.
    """
    return _closing(stage, EYEBALLS, {}, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})


def lips(stage: Stage) -> dict | None:
    """``open_cm2``: mouth cavity, teeth and tongue seen from the front with ``jawOpen`` at 1; ``closed_cm2``: at rest;
    ``share`` and ``passes`` as for the lids; ``dark_or_teeth``: how much of what the open mouth shows is dark, like
    teeth, or at least (a tongue) not like skin, null where it shows nothing; ``shows``: whether that is at least half.
    None for a head that lacks these or the control."""
    figures = _closing(stage, MOUTH, {"jawOpen": 1.0}, {})
    if figures is None:
        return None
    behind = dark_or_teeth(stage)
    return figures | {
        "dark_or_teeth": None if behind is None else round(behind, 3),
        "shows": behind is not None and behind >= 0.5 and figures["open_cm2"] >= LEAST,
    }


@torch.no_grad()
def dark_or_teeth(stage: Stage) -> float | None:
    """Share of the pixels behind parted lips that are much darker than the skin, nearly white, or of another
    colour than skin."""
    head = stage.arrays
    gaussians = stage.pose(*head.drive({"jawOpen": 1.0}))
    camera = stage.camera(0.0, SIZE).to(gaussians.means.device)
    chosen = torch.as_tensor(head.triangles_in(MOUTH), device=gaussians.means.device)
    inside = share_picture(gaussians, chosen[stage.model.gaussians.triangle], camera).cpu().numpy() > 0.5
    if not inside.any():
        return None
    colour = rasterise(gaussians, camera).colour.clamp(0, 1).cpu().numpy()
    skin = torch.as_tensor(head.triangles_in(("face",)), device=gaussians.means.device)
    skin = share_picture(gaussians, skin[stage.model.gaussians.triangle], camera).cpu().numpy() > 0.5
    if not skin.any():
        return None
    skin = srgb_to_lab(np.median(colour[skin], 0))
    seen = srgb_to_lab(colour[inside])
    dark = seen[:, 0] < min(DARK, skin[0] - DARKER)
    teeth = (seen[:, 0] > LIGHT) & (np.hypot(seen[:, 1], seen[:, 2]) < WHITE)
    other = np.linalg.norm(seen - skin, axis=1) > UNLIKE_SKIN
    return float((dark | teeth | other).mean())


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
