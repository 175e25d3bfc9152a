"""Does the back of the head look like a face? Distillation that mistakes the view paints one there."""

from __future__ import annotations

import cv2
import numpy as np

from ..export.pictures import Stage
from .colours import srgb_to_lab
from .portraits import SIZE, WINDOW, Portrait, portrait
from .presence import landmark_places

LIKENESS = 0.63  # the back's correlation with the front, from which on it is a face
_SHIFT = 0.024  # metres that a second face may lie higher, lower or aside
_FINE, _COARSE = 0.003, 0.014  # metres: eyes and mouth lie between these sizes


def second_face(stage: Stage) -> dict | None:
    """``likeness``: the highest correlation, -1 to 1, of the face's features with what the back shows at about the
    same height, mirrored or not; ``passes``: below 0.63. None for a head without the face's landmarks."""
    if not {10, 13, 152, 468, 473} <= set(stage.arrays.landmarks.indices.tolist()):
        return None
    gaussians = stage.pose()
    value = likeness(*(portrait(stage.arrays, gaussians, azimuth) for azimuth in (0.0, 180.0)))
    return {"likeness": round(value, 3), "passes": value < LIKENESS}


def likeness(front: Portrait, back: Portrait) -> float:
    """Normalised correlation of band-passed CIELAB: the box round eyes and mouth of the front over the back."""
    marks = landmark_places(front)
    top = max(marks[468][1], marks[473][1]) + 0.018
    box = np.array([[-0.052, top], [0.052, marks[13][1] - 0.02]])
    pixels = np.rint(SIZE / 2 + box * [1, -1] * (SIZE / WINDOW)).astype(int)
    (left, high), (right, low) = pixels.tolist()
    shift = round(_SHIFT * SIZE / WINDOW)
    features = _bands(front)[high:low, left:right]
    around = _bands(back)[high - shift : low + shift, left - shift : right + shift]
    if features.std() < 1e-6 or around.std() < 1e-6:
        return 0.0
    return max(
        float(cv2.matchTemplate(around, np.ascontiguousarray(view), cv2.TM_CCORR_NORMED).max())
        for view in (features, features[:, ::-1])
    )


def _bands(part: Portrait) -> np.ndarray:  # [H, W, 3] float32
    """CIELAB over mid grey, between the two sizes."""
    lab = srgb_to_lab(part.colour + 0.5 * (1 - part.alpha[..., None])).astype(np.float32)
    pixel = WINDOW / SIZE
    return cv2.GaussianBlur(lab, (0, 0), _FINE / pixel) - cv2.GaussianBlur(lab, (0, 0), _COARSE / pixel)
