"""A splat seen from the turned head equals the turned picture: binding, SH rotation and rasteriser together."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from headstudio.avatar.initialise import super_dense
from headstudio.avatar.rigged import RiggedAvatar, RiggedGaussians
from headstudio.camera import orbit
from headstudio.heads.head import Head, rotation_matrices
from headstudio.rasterise.rasterise import rasterise
from support.synthetic_head import synthetic_head

AXIS = torch.tensor([0.48, -0.6, 0.64], dtype=torch.float64)


@pytest.fixture(scope="module")
def avatar() -> RiggedAvatar:
    """Lopsided, anisotropic, half-transparent splats whose colour changes strongly with the direction."""
    head = Head(synthetic_head(1), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    start = super_dense(head.template, head.triangles, 4, sh_degree=3, generator=generator)
    noise = {name: torch.randn(p.shape, generator=generator).double() for name, p in start.parameters().items()}
    spread = {"offsets": 0.2, "log_scales": 0.6, "quats": 1.0, "opacity_logits": 1.0, "sh": 0.3}
    moved = {name: p + spread[name] * noise[name] for name, p in start.parameters().items()}
    return RiggedAvatar(head, RiggedGaussians(triangle=start.triangle, **moved))


def pictures(avatar: RiggedAvatar, angle: float, backend: str, rotate_colour: bool = True):
    """The head at rest, and the turned head from the camera that turned with it."""
    head, joints = avatar.head, torch.zeros(5, 3).double()
    expression = torch.tensor([0.5, 1, 0, 0]).double()
    camera = orbit(25.0, 10.0, 0.6, 30.0, 64).to(torch.float64)
    still = avatar.pose(expression, joints)
    rotation = rotation_matrices(math.radians(angle) * AXIS)
    root = head.joint_regressor[0] @ head.template
    motion = torch.eye(4).double()
    motion[:3, :3], motion[:3, 3] = rotation, root - rotation @ root
    joints = joints.clone()
    joints[0] = math.radians(angle) * AXIS
    turned = avatar.pose(expression, joints)
    if not rotate_colour:
        turned = replace(turned, sh=still.sh)
    turned_camera = replace(camera, world_to_camera=camera.world_to_camera @ torch.linalg.inv(motion))
    dtype = torch.float64 if backend == "torch" else torch.float32
    return [rasterise(g.to(dtype), c.to(dtype), backend=backend) for g, c in ((still, camera), (turned, turned_camera))]


@pytest.mark.parametrize("angle", [5, 60, 180])
def test_turned_head_in_turned_camera_is_the_same_picture(avatar, angle):
    one, two = pictures(avatar, angle, "torch")
    assert one.alpha.mean() > 0.3
    assert one.colour.std() > 0.1
    # Skin weights are float32: the head itself is rigid to 1e-8 m
    torch.testing.assert_close(two.colour, one.colour, atol=2e-5, rtol=0)
    torch.testing.assert_close(two.alpha, one.alpha, atol=2e-5, rtol=0)


def test_the_same_in_float32_on_the_cpu_kernels(avatar):
    one, two = pictures(avatar, 60, "numba")
    difference = (two.colour - one.colour).abs()
    assert difference.mean() < 1e-5
    assert difference.max() < 0.01  # a splat whose edge crosses the smallest drawn alpha appears or not: 1 / 255


def test_without_rotating_the_colour_it_would_be_another_picture(avatar):
    one, two = pictures(avatar, 60, "torch", rotate_colour=False)
    assert (two.colour - one.colour).abs().mean() > 0.02
