"""Do the lids cover the eyes, and the lips the mouth? What is behind the lips? Measured on renders, splats and all."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch

from ..export.pictures import Stage
from ..heads.arrays import EYEBALLS, MOUTH
from ..heads.skinning import skin
from ..rasterise import rasterise
from .colours import srgb_to_lab
from .portraits import nearest_triangles
from .visible import distance_to, pixel_area, share_picture

SIZE = 512  # pixels
COVERED = 0.1  # lids and lips pass when they leave at most this share of what they show when open
DARK, DARKER = 40.0, 8.0  # L* of a mouth's inside at most, and how far below the skin's
LIGHT, WHITE = 55.0, 22.0  # L* of teeth at least, and chroma at most
UNLIKE_SKIN = 15.0  # CIE76
LEAST = 0.2  # square centimetres that open eyes, or an open mouth, show at least
BESIDE = 0.005  # metres around the opening on the mesh that lids and lips are answerable for


def lids(stage: Stage) -> dict | None:
    """``open_cm2``: eyeball seen from the front at rest; ``closed_cm2``: with both lids down; ``share``: the second
    over the first, null where too little shows to tell; ``passes``; ``clear``: the first over what the head's mesh,
    without splats, shows; ``through_cm2``: eyeball that shows with both lids down away from the opening.

    The first two are summed over the opening on the mesh and 5 mm around it. Nearly opaque skin lets a hundredth
    through, which nobody sees, but over all the cavities that lie behind a face it adds up to a seventh of an open
    mouth.

    None for a head that has no eyeballs of its own or no ``eyeBlink`` controls.
    """
    return _closing(stage, EYEBALLS, {}, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})


def lips(stage: Stage) -> dict | None:
    """``open_cm2``: mouth cavity, teeth and tongue seen from the front with ``jawOpen`` at 1; ``closed_cm2``: at rest;
    the others of the lids' figures alike; ``dark_or_teeth``: how much of what the open mouth shows is dark, like
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
    face = torch.as_tensor(head.triangles_in(("face",)), device=gaussians.means.device)
    face = share_picture(gaussians, face[stage.model.gaussians.triangle], camera).cpu().numpy() > 0.5
    if not face.any():
        return None
    complexion = srgb_to_lab(np.median(colour[face], 0))
    seen = srgb_to_lab(colour[inside])
    dark = seen[:, 0] < min(DARK, complexion[0] - DARKER)
    teeth = (seen[:, 0] > LIGHT) & (np.hypot(seen[:, 1], seen[:, 2]) < WHITE)
    other = np.linalg.norm(seen - complexion, axis=1) > UNLIKE_SKIN
    return float((dark | teeth | other).mean())


def _closing(stage: Stage, words: tuple[str, ...], opened: dict, closed: dict) -> dict | None:
    head = stage.arrays
    triangles = head.triangles_in(words)
    if not triangles.any() or not {*opened, *closed} <= set(head.controls.names):
        return None
    chosen = torch.as_tensor(triangles, device=stage.model.head.device)[stage.model.gaussians.triangle]
    camera = stage.camera(0.0, SIZE)
    middle = head.vertices[head.triangles[triangles]].reshape(-1, 3).mean(0)
    pixel = pixel_area(camera, distance_to(camera, torch.as_tensor(middle)))
    drives = [head.drive(sliders) for sliders in (opened, closed)]
    nearest = [nearest_triangles(skin(head, *drive), head.triangles, camera) for drive in drives]
    bare = [(picture >= 0) & triangles[picture] for picture in nearest]
    radius = math.ceil(BESIDE * 100 / math.sqrt(pixel))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    around = cv2.dilate((bare[0] | bare[1]).astype(np.uint8), disc) > 0
    seen = [share_picture(stage.pose(*drive), chosen, camera).cpu().numpy().astype(np.float64) for drive in drives]
    areas = [float(picture[around].sum() * pixel) for picture in seen]
    opening = float(bare[0].sum() * pixel)
    share = areas[1] / areas[0] if areas[0] >= LEAST else None
    return {
        "open_cm2": round(areas[0], 3),
        "closed_cm2": round(areas[1], 3),
        "share": None if share is None else round(share, 4),
        "passes": share is not None and share <= COVERED,
        "clear": round(areas[0] / opening, 3) if opening else None,
        "through_cm2": round(float(seen[1][~around].sum() * pixel), 3),
    }
