"""The ControlNet's picture of a posed head (landmark map), and how far a view can be trusted to it.

Pixels follow the render: landmark coordinates are continuous, pixel (column i, row j) covers [i, i + 1) x [j, j + 1),
so a landmark is drawn at its coordinates rounded down, which is also what MediaPipe's own drawing does.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from ..camera import Camera
from ..errors import UserError
from ..heads.arrays import HeadArrays
from .landmarks import landmark_points, visible_landmarks
from .topology import GROUPS, IRISES, LANDMARK_INDICES

DRAWN_SIZE = 512
"""Side in pixels at which maps are drawn: line widths belong to this size."""

FULL_WITHIN = 60.0
"""Degrees between the face's direction and the camera up to which the map has its full strength."""
NONE_BEYOND = 90.0
"""Degrees from which on it has none: the ControlNet never saw a face from behind."""


def draw_landmark_map(
    pixels: np.ndarray,  # [L, 2] continuous pixel coordinates (x, y)
    visible: np.ndarray,  # [L] bool
    indices: np.ndarray,  # [L] MediaPipe index of each row
    size: int = DRAWN_SIZE,
    picture: np.ndarray | None = None,  # [size, size, 3] uint8 to draw on, changed in place; default black
) -> np.ndarray:
    """The landmark map: RGB uint8 [size, size, 3].

    An edge is skipped if one of its ends is hidden, outside the picture, or not among ``indices``.
    """
    if picture is None:
        picture = np.zeros((size, size, 3), np.uint8)
    place = {
        int(index): (int(np.floor(x)), int(np.floor(y)))
        for index, (x, y), seen in zip(indices, pixels, visible, strict=True)
        if seen and 0 <= x < size and 0 <= y < size
    }
    for group in GROUPS:
        for start, end in group.edges:
            if start in place and end in place:
                cv2.line(picture, place[start], place[end], group.colour, thickness=2, lineType=cv2.LINE_8)
    for iris in IRISES:
        if iris.index in place:
            x, y = place[iris.index]
            picture[max(y - 2, 0) : y + 2, max(x - 2, 0) : x + 2] = iris.colour
    return picture


def draw_all_round_map(
    pixels: np.ndarray,  # [L, 2] continuous pixel coordinates (x, y)
    visible: np.ndarray,  # [L] bool
    indices: np.ndarray,  # [L] MediaPipe index of each row
    size: int = DRAWN_SIZE,
) -> np.ndarray:
    """The landmark map with what is hidden shining through at half its brightness: RGB uint8 [size, size, 3].

    From behind it is the face's mirror image, so that every view tells where the head is and how it is turned.
    """
    whole = draw_landmark_map(pixels, np.ones_like(visible), indices, size) // 2
    return draw_landmark_map(pixels, visible, indices, size, whole)


@torch.no_grad()
def condition_image(
    arrays: HeadArrays,
    vertices: Tensor,  # [B, N, 3] posed, metres
    cameras: Camera,  # a batch of B with square pictures
    size: int = DRAWN_SIZE,  # pixels: the prior's condition_size
    all_round: bool = False,  # the prior's all_round
) -> tuple[Tensor, Tensor]:
    """Landmark maps [B, size, size, 3] in 0..1 and the share [B] of the ControlNet's scale that each view deserves.

    Where the share is 0 the map is black. For a ControlNet that learnt maps from all sides (``draw_all_round_map``) the
    share is always 1. Both are on the vertices' device. Raises ``UserError`` for a head without landmarks.
    """
    assert vertices.ndim == 3, vertices.shape
    assert len(cameras) == len(vertices), (len(cameras), len(vertices))
    assert cameras.width == cameras.height, (cameras.width, cameras.height)
    if not np.isin(arrays.landmarks.indices, LANDMARK_INDICES).any():
        raise UserError(
            f"The head {arrays.name} has no face landmarks, which guide the prior: use another head, or one with a "
            "landmark table."
        )
    cameras = cameras.to(vertices.device)
    strength = condition_strength(arrays, vertices, cameras)
    visible = torch.zeros(len(vertices), len(arrays.landmarks.indices), dtype=torch.bool, device=vertices.device)
    facing = strength.nonzero().squeeze(1)
    visible[facing] = visible_landmarks(arrays, vertices[facing], cameras[facing])
    pixels, _ = cameras.resized(DRAWN_SIZE, DRAWN_SIZE).project(landmark_points(arrays, vertices))
    drawing = draw_all_round_map if all_round else draw_landmark_map
    maps = [
        _resample(drawing(p, v, arrays.landmarks.indices), size)
        for p, v in zip(pixels.cpu().numpy(), visible.cpu().numpy(), strict=True)
    ]
    pictures = torch.from_numpy(np.stack(maps)).to(vertices.device, torch.float32) / 255
    return pictures, torch.ones_like(strength) if all_round else strength


def _resample(picture: np.ndarray, size: int) -> np.ndarray:  # [S, S, 3] -> [size, size, 3]
    if size == len(picture):
        return picture
    shrinks = size < len(picture)
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def condition_strength(
    arrays: HeadArrays,
    vertices: Tensor,  # [B, N, 3]
    cameras: Camera,  # a batch of B
) -> Tensor:
    """1 where the posed face looks towards the camera within 60 degrees, falling evenly to 0 at 90: [B]."""
    forward, centre = face_direction(arrays, vertices)
    if cameras.orthographic:
        towards = -cameras.world_to_camera[:, 2, :3].to(vertices)
    else:
        towards = cameras.centre.to(vertices) - centre
    angle = torch.rad2deg(torch.acos(torch.cosine_similarity(forward, towards, dim=-1).clamp(-1, 1)))
    return ((NONE_BEYOND - angle) / (NONE_BEYOND - FULL_WITHIN)).clamp(0, 1)


def face_direction(
    arrays: HeadArrays,
    vertices: Tensor,  # [B, N, 3]
) -> tuple[Tensor, Tensor]:
    """Where the posed face looks, a unit vector [B, 3], and the middle of the skull [B, 3] in metres.

    The rotation that carries the rest skull best onto the posed one (Kabsch), so that it needs no joint angles and a
    turned neck counts. The skull is what follows the neck joint; jaw and eyes are left out.
    """
    weight = torch.tensor(arrays.skin_weights[:, arrays.joint_names.index("neck")]).to(vertices)  # [N]
    weight = weight.square() / weight.square().sum()
    rest = torch.tensor(arrays.vertices).to(vertices)
    rest = rest - weight @ rest
    centre = torch.einsum("n,bnk->bk", weight, vertices)
    covariance = torch.einsum("n,nk,bnl->bkl", weight, rest, vertices - centre[:, None])
    u, _, vh = torch.linalg.svd(covariance)
    sign = torch.ones_like(centre)
    sign[:, 2] = torch.linalg.det(u @ vh)  # a rotation, never a mirror
    # R maps rest to posed: R = V diag(sign) U^T, and the rest face looks along +z
    forward = torch.einsum("bjk,bj,bj->bk", vh, sign, u[:, 2])
    return forward, centre
