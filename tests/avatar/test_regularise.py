"""Eq. 8-9 against a literal evaluation, splat by splat, and its gradients."""

from __future__ import annotations

import math

import pytest
import torch
from headstudio.avatar.binding import triangle_frames
from headstudio.avatar.initialise import super_dense
from headstudio.avatar.regularise import regularisation
from headstudio.heads.head import Head
from support.synthetic_head import synthetic_head


@pytest.fixture
def setting():
    head = Head(synthetic_head(0), dtype=torch.float64)
    gaussians = super_dense(head.template, head.triangles, 2)
    generator = torch.Generator().manual_seed(2)
    gaussians.offsets = torch.randn(gaussians.offsets.shape, generator=generator).double()
    gaussians.log_scales = torch.randn(gaussians.log_scales.shape, generator=generator).double()
    return head, gaussians.requires_grad_()


def literal(head: Head, gaussians, unit: float) -> tuple[float, float]:
    """The equations with plain numbers, the head scaled to another unit of length."""
    position = scale = 0.0
    for k in range(len(gaussians)):
        corners = (head.template / unit)[head.triangles[gaussians.triangle[k]]]
        centre = corners.mean(0)
        tau = max(math.dist(centre.tolist(), corner.tolist()) for corner in corners)
        root = math.sqrt(0.5 * torch.linalg.cross(corners[1] - corners[0], corners[2] - corners[0]).norm().item())
        distance = root * gaussians.offsets[k].norm().item()
        position += (max(distance, 0.5 * tau) / root) ** 2
        for log_scale in gaussians.log_scales[k].tolist():
            scale += (max(root * math.exp(log_scale), 0.5 * tau) / root) ** 2
    return math.sqrt(position), math.sqrt(scale)


@pytest.mark.parametrize("unit", [1.0, 0.154])
def test_equations_8_and_9_in_any_unit_of_length(setting, unit):
    head, gaussians = setting
    losses = regularisation(gaussians, triangle_frames(head.template, head.triangles))
    assert [loss.item() for loss in losses] == pytest.approx(literal(head, gaussians, unit), rel=1e-12)


def test_only_what_is_outside_the_tolerance_is_pulled(setting):
    head, gaussians = setting
    frames = triangle_frames(head.template, head.triangles)
    limit = (0.5 * frames.radius / frames.area.sqrt())[gaussians.triangle]
    sum(regularisation(gaussians, frames)).backward()
    far = gaussians.offsets.detach().norm(dim=1) > limit
    large = gaussians.log_scales.detach().exp() > limit.unsqueeze(1)
    assert far.any()
    assert not far.all()
    assert torch.equal(gaussians.offsets.grad.norm(dim=1) > 0, far)
    assert torch.equal(gaussians.log_scales.grad > 0, large)
    cosine = torch.nn.functional.cosine_similarity(gaussians.offsets.grad, gaussians.offsets.detach())
    torch.testing.assert_close(cosine[far], torch.ones_like(cosine[far]))  # straight back to the triangle


def test_finite_differences(setting):
    head, gaussians = setting
    frames = triangle_frames(head.template, head.triangles)

    def losses(offsets, log_scales):
        gaussians.offsets, gaussians.log_scales = offsets, log_scales
        return regularisation(gaussians, frames)

    assert torch.autograd.gradcheck(losses, (gaussians.offsets, gaussians.log_scales))


def test_offsets_of_zero_have_a_gradient(setting):
    head, gaussians = setting
    with torch.no_grad():
        gaussians.offsets.zero_()
    sum(regularisation(gaussians, triangle_frames(head.template, head.triangles))).backward()
    assert not gaussians.offsets.grad.any()


def test_the_heads_shape_is_not_pulled(setting):
    head, gaussians = setting
    vertices = head.template.clone().requires_grad_()
    sum(regularisation(gaussians, triangle_frames(vertices, head.triangles))).backward()
    assert vertices.grad is None or not vertices.grad.any()
