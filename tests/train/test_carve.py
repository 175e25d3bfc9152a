"""Splats carved out of painted pictures: of bodies whose shape, colour and motion are known."""

import numpy as np
import pytest
import torch
from headstudio.avatar.binding import triangle_frames
from headstudio.avatar.initialise import super_dense
from headstudio.avatar.rigged import RiggedGaussians
from headstudio.avatar.sh_rotation import SH_C0
from headstudio.camera import orbit
from headstudio.heads.default_head import default_head
from headstudio.heads.head import Head
from headstudio.rasterise import rasterise
from headstudio.train.carve import SPACING, carve
from headstudio.train.scenes import Scene

SIZE = 128
SKIN, HAIR = (0.85, 0.65, 0.55), (0.1, 0.3, 0.8)
BALL, RADIUS = torch.tensor([0.0, 0.13, -0.04]), 0.06  # on the crown: metres


@pytest.fixture(scope="module")
def head():
    return Head(default_head())


@pytest.fixture(scope="module")
def space(head):
    """Metres between the places that are looked at."""
    return SPACING * head.arrays.unit


def scenes(head, turn: float = 0.0) -> list[Scene]:
    """24 views from all sides in six scenes, between which the neck turns up to ``turn`` radians."""
    result = []
    for number in range(6):
        azimuth = torch.arange(4) * 90.0 + number * 15.0
        joints = torch.zeros(head.joint_count, 3)
        joints[1, 1] = turn * (number / 2.5 - 1)
        camera = orbit(azimuth, -15.0 + 9 * number, 3.0 * head.arrays.unit, 50.0, SIZE)
        grey = torch.full((4, 3), 0.5)
        expression, whole = torch.zeros(head.expression_size), torch.zeros(4, dtype=torch.bool)
        result.append(Scene(camera, grey, texts=None, expression=expression, joints=joints, close_up=whole))
    return result


def attached(head, points: torch.Tensor, colour) -> RiggedGaussians:
    """Round splats of 4 mm at ``points`` [K, 3] in the rest pose, carried by the crown's highest triangle."""
    frames = triangle_frames(head.template, head.triangles)
    triangle = torch.full((len(points),), int(frames.centre[:, 1].argmax()))
    size = frames.area.sqrt()[triangle, None]
    away = (points - frames.centre[triangle])[..., None]
    return RiggedGaussians(
        triangle=triangle,
        offsets=(frames.rotation[triangle].transpose(1, 2) @ away).squeeze(-1) / size,
        log_scales=(0.004 / size).log().expand(-1, 3).clone(),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(len(points), 1),
        opacity_logits=torch.full((len(points),), 4.0),
        sh=((torch.tensor(colour) - 0.5) / SH_C0).expand(len(points), 1, 3).clone(),
    )


def pictures(head, shots: list[Scene], worn: RiggedGaussians | None) -> torch.Tensor:  # [G, V, S, S, 3]
    skin = super_dense(head.template, head.triangles, opacity=0.98, count=15_000)
    skin.log_scales -= 0.4  # a sharp outline: that of painted pictures, too, is within a few millimetres of the skin
    skin.sh[:, 0] = (torch.tensor(SKIN) - 0.5) / SH_C0
    parts = [skin] if worn is None else [skin, worn]
    gaussians = RiggedGaussians(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(skin)})
    result = []
    for scene in shots:
        vertices = head(scene.expression[None], scene.joints[None], torch.zeros(1, head.identity_size))[0]
        posed = gaussians.pose(vertices, head.triangles)
        result.append(rasterise(posed, scene.camera, background=scene.background).colour)
    return torch.stack(result).clamp(0, 1)


def carved(head, shots, worn) -> tuple[torch.Tensor, RiggedGaussians]:
    """Points [K, 3] in the rest pose, and the splats."""
    splats = carve(head, torch.zeros(head.identity_size), shots, pictures(head, shots, worn))
    return splats.pose(head.template, head.triangles).means, splats


def ball(count: int = 3000) -> torch.Tensor:  # [K, 3] on its surface
    step = torch.arange(count) + 0.5
    height, turn = 1 - 2 * step / count, step * np.pi * (3 - 5**0.5)
    ring = (1 - height**2).sqrt()
    return BALL + RADIUS * torch.stack([ring * turn.cos(), height, ring * turn.sin()], 1)


@pytest.mark.parametrize("turn", [0.0, 0.4], ids=["still", "turning neck"])
def test_a_ball_on_the_crown_is_found_where_it_is_in_its_colour(head, space, turn):
    surface = ball()
    points, splats = carved(head, scenes(head, turn), attached(head, surface, HAIR))
    distance = (torch.linalg.vector_norm(points - BALL, dim=1) - RADIUS).abs()
    # Two layers are filled, from a splat's own radius outside the surface inwards
    assert float((distance < 2 * space).float().mean()) > 0.97
    skin = torch.cdist(surface, triangle_frames(head.template, head.triangles).centre).amin(1)
    out = surface[(skin > 0.032) & (surface[:, 1] > 0.15)]
    assert len(out) > 400
    assert float((torch.cdist(out, points).amin(1) < 1.5 * space).float().mean()) > 0.95
    colour = splats.sh[:, 0] * SH_C0 + 0.5
    assert torch.allclose(colour.median(0).values, torch.tensor(HAIR), atol=0.05)
    # They hide what is behind them, and are as large as the gaps between them
    assert float(splats.opacity_logits.sigmoid().min()) > 0.85
    scale = splats.pose(head.template, head.triangles).scales
    assert torch.allclose(scale, torch.full_like(scale, 0.6 * space), rtol=1e-3)


def test_what_is_carved_moves_with_the_skull(head):
    """Between two poses of the head its splats move as one body."""
    shots = scenes(head, 0.4)
    _, splats = carved(head, shots, attached(head, ball(), HAIR))
    identity = torch.zeros(1, head.identity_size)
    moved = []
    for scene in (shots[0], shots[-1]):
        expression = torch.rand(1, head.expression_size, generator=torch.Generator().manual_seed(0))
        vertices = head(expression, scene.joints[None], identity)[0]
        moved.append(splats.pose(vertices, head.triangles).means)
    a, b = (torch.cdist(points[::7], points[::7]) for points in moved)
    assert float((a - b).abs().max()) < 0.004


def test_nothing_is_carved_before_or_around_a_bare_head(head):
    assert len(carved(head, scenes(head), None)[0]) == 0


def test_what_curtains_of_hair_hide_from_the_side_stays_hollow(head):
    """From every side the face and the throat are within the outline; only their colours tell that they lie back."""
    line, up = torch.meshgrid(torch.linspace(-0.06, 0.12, 46), torch.linspace(-0.14, 0.06, 51), indexing="ij")
    sides = [torch.stack([torch.full_like(line, side * 0.115), up, line], -1).reshape(-1, 3) for side in (-1, 1)]
    curtains = attached(head, torch.cat(sides), HAIR)
    points, _ = carved(head, scenes(head), curtains)
    hair = (points[:, 0].abs() - 0.115).abs() < 0.025
    assert int(hair.sum()) > 300
    before = (points[:, 2] > 0.06) & (points[:, 0].abs() < 0.06)
    assert int(before.sum()) <= 0.02 * len(points)


def test_what_is_there_already_is_not_added_again(head):
    shots = scenes(head)
    shown = pictures(head, shots, attached(head, ball(), HAIR))
    identity = torch.zeros(head.identity_size)
    first = carve(head, identity, shots, shown)
    again = carve(head, identity, shots, shown, first)
    assert len(first) > 300
    assert len(again) < 0.05 * len(first)


def test_pictures_without_an_outline_carve_nothing(head):
    shots = scenes(head)
    noise = torch.rand(6, 4, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    assert len(carve(head, torch.zeros(head.identity_size), shots, noise)) == 0
