"""Is the head opaque wherever its mesh is?"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from ..camera import Camera
from ..export.pictures import Stage
from ..rasterise import rasterise

SIZE = 192  # pixels
# The 26 directions from the middle of a cube to its faces, edges and corners, as (azimuth, elevation) in degrees. The
# poles are a degree short, where "up" has a meaning.
DIRECTIONS = (
    *((float(azimuth), elevation) for elevation in (-45.0, 0.0, 45.0) for azimuth in range(0, 360, 45)),
    (0.0, 89.0),
    (0.0, -89.0),
)


def silhouette(vertices: np.ndarray, triangles: np.ndarray, camera: Camera) -> np.ndarray:  # [N, 3], [M, 3]
    """[H, W] bool: pixels that the mesh covers, on the rasteriser's pixel grid."""
    pixels, depth = camera.project(torch.as_tensor(vertices, dtype=torch.float32))
    seen = (depth.numpy()[triangles] > camera.near).all(1)
    fraction = 4  # bits after the point
    # cv2's pixel (i, j) has its centre at (i, j)
    corners = np.rint((pixels.numpy() - 0.5) * 2**fraction).astype(np.int32)[triangles[seen]]
    picture = np.zeros((camera.height, camera.width), np.uint8)
    for corner in corners:
        cv2.fillConvexPoly(picture, corner, 1, cv2.LINE_8, fraction)
    return picture.astype(bool)


@torch.no_grad()
def coverage(stage: Stage) -> dict:
    """``mean`` and ``least`` alpha over the head's silhouette (its outermost pixels left out) at rest, over 26 views;
    ``least_view`` is the [azimuth, elevation] in degrees of the least one."""
    gaussians = stage.pose()
    device = gaussians.means.device
    inner = np.ones((3, 3), np.uint8)
    means = []
    for azimuth, elevation in DIRECTIONS:
        camera = stage.camera(azimuth, SIZE, elevation)
        mask = cv2.erode(silhouette(stage.arrays.vertices, stage.arrays.triangles, camera).astype(np.uint8), inner)
        alpha = rasterise(gaussians, camera.to(device)).alpha.cpu().numpy()
        means.append(float(alpha[mask > 0].mean()))
    least = int(np.argmin(means))
    return {
        "mean": round(float(np.mean(means)), 4),
        "least": round(means[least], 4),
        "least_view": list(DIRECTIONS[least]),
    }
