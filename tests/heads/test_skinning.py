"""The same skinning twice: numpy against torch, and torch's derivatives against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from headstudio.heads import skinning
from headstudio.heads.head import Head, rotation_matrices
from scipy.spatial.transform import Rotation
from support.synthetic_head import synthetic_head

SMALL = synthetic_head(levels=1)


def test_rotations_agree_with_scipy_at_every_size():
    rng = np.random.default_rng(0)
    axis = rng.normal(size=(60, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    vectors = axis * np.concatenate([np.zeros(1), 10.0 ** rng.uniform(-9, 0, 49), rng.uniform(1, 9, 10)])[:, None]
    truth = Rotation.from_rotvec(vectors).as_matrix()
    np.testing.assert_allclose(skinning.rotation_matrices(vectors), truth, atol=1e-14)
    np.testing.assert_allclose(rotation_matrices(torch.from_numpy(vectors)), truth, atol=1e-12)
    single = rotation_matrices(torch.from_numpy(vectors).float()).double()
    np.testing.assert_allclose(single, truth, atol=2e-6)


@pytest.mark.parametrize("which", ["synthetic", "default"])
def test_numpy_and_torch_pose_alike(which, request):
    arrays = SMALL if which == "synthetic" else request.getfixturevalue("default_head")
    rng = np.random.default_rng(1)
    e, j, s = len(arrays.expression_names), len(arrays.joint_names), len(arrays.identity_names)
    expression, joints = rng.uniform(0, 1, (3, e)), rng.normal(size=(3, j, 3)) * 0.4
    identity = rng.normal(size=(3, s)) * (0.3 if which == "synthetic" else 0.05)
    head = Head(arrays, dtype=torch.float64)
    posed = head(*(torch.from_numpy(x) for x in (expression, joints, identity)))
    for row in range(3):
        expected = skinning.skin(arrays, expression[row], joints[row], identity[row])
        np.testing.assert_allclose(posed[row], expected, atol=2e-7)
    neutral = head(torch.zeros(1, e, dtype=torch.float64), torch.zeros(1, j, 3, dtype=torch.float64))[0]
    np.testing.assert_allclose(neutral, arrays.vertices, atol=1e-9)


def test_drive_is_the_same_map_in_both():
    rng = np.random.default_rng(2)
    values = rng.uniform(size=len(SMALL.controls.names))
    expression, joints = SMALL.drive(dict(zip(SMALL.controls.names, values, strict=True)))
    torch_expression, torch_joints = Head(SMALL).drive(torch.from_numpy(values).float()[None])
    np.testing.assert_allclose(torch_expression[0], expression, atol=1e-6)
    np.testing.assert_allclose(torch_joints[0], joints, atol=1e-6)
    with pytest.raises(KeyError):
        SMALL.drive({"noSuchSlider": 1.0})


def test_gradient_at_the_zero_pose_is_finite_and_right():
    head = Head(SMALL, dtype=torch.float64)
    expression = torch.zeros(1, head.expression_size, dtype=torch.float64, requires_grad=True)
    joints = torch.zeros(1, head.joint_count, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.from_numpy(np.random.default_rng(3).normal(size=SMALL.vertices.shape))
    (head(expression, joints)[0] * weight).sum().backward()
    assert torch.isfinite(joints.grad).all()
    assert torch.isfinite(expression.grad).all()
    step = 1e-5
    for joint in range(head.joint_count):
        for axis in range(3):
            moved = torch.zeros(2, head.joint_count, 3, dtype=torch.float64)
            moved[0, joint, axis], moved[1, joint, axis] = step, -step
            ahead, behind = head(expression.detach().expand(2, -1), moved)
            slope = float(((ahead - behind) * weight).sum() / (2 * step))
            assert float(joints.grad[0, joint, axis]) == pytest.approx(slope, rel=1e-5, abs=1e-9)
    single = Head(SMALL)
    joints = torch.zeros(1, single.joint_count, 3, requires_grad=True)
    single(torch.zeros(1, single.expression_size), joints).square().sum().backward()
    assert torch.isfinite(joints.grad).all()
    assert joints.grad.abs().max() > 0


def test_gradcheck_in_everything():
    arrays = synthetic_head(levels=0)
    head = Head(arrays, dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)

    def random(*shape: int) -> torch.Tensor:
        return (0.3 * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_()

    inputs = random(2, head.expression_size), random(2, head.joint_count, 3), random(2, head.identity_size)
    assert torch.autograd.gradcheck(head, inputs)


def test_root_rotation_is_rigid():
    head = Head(SMALL, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    expression = torch.rand(1, head.expression_size, generator=generator, dtype=torch.float64)
    joints = 0.3 * torch.randn(1, head.joint_count, 3, generator=generator, dtype=torch.float64)
    joints[:, 0] = 0
    turned = joints.clone()
    turned[0, 0] = torch.tensor([0.4, -1.1, 0.7])
    still, moved = head(expression, joints)[0], head(expression, turned)[0]
    rotation = torch.from_numpy(Rotation.from_rotvec(turned[0, 0].numpy()).as_matrix())
    pivot = head.joint_regressor[0] @ head.template
    # every vertex hangs on the root through its chain, so the whole head turns about the root joint
    np.testing.assert_allclose(moved, (still - pivot) @ rotation.T + pivot, atol=1e-9)
