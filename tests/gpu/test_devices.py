"""That the arithmetic of a step makes no tensor on the wrong device, shown without a GPU on torch's meta device.

Tensors there have shapes and types but no numbers, and refuse to be added, multiplied, chosen from or joined with those
of another device as the ones on a GPU do; matrix and cross products alone let it pass. (Guidance at its real size runs
there in tests/guidance/test_full_size.py.)
"""

import pytest
import torch
from headstudio.avatar.binding import bind, triangle_frames
from headstudio.avatar.regularise import regularisation
from headstudio.avatar.rigged import RiggedGaussians
from headstudio.camera import orbit
from headstudio.heads.head import Head
from support.training import arkit_head

META = torch.device("meta")


def test_the_meta_device_refuses_others():
    here, there = torch.ones(3), torch.ones(3, device=META)
    for mix in (lambda: there + here, lambda: here * there, lambda: torch.cat([there, here])):
        with pytest.raises(RuntimeError, match="device"):
            mix()
    with pytest.raises(RuntimeError, match="device"):
        torch.where(there > 0, here, 0.0)


@pytest.mark.parametrize("degree", [0, 3])
def test_head_binding_and_regularisation(degree):
    head = Head(arkit_head(), META)
    shapes = {"offsets": (3,), "log_scales": (3,), "quats": (4,), "opacity_logits": (), "sh": ((degree + 1) ** 2, 3)}
    tensors = {name: torch.empty(20, *shape, device=META) for name, shape in shapes.items()}
    splats = RiggedGaussians(torch.zeros(20, dtype=torch.int64, device=META), **tensors).requires_grad_()
    expression = torch.zeros(1, head.expression_size, device=META)
    joints = torch.zeros(1, head.joint_count, 3, device=META)
    identity = torch.zeros(1, head.identity_size, device=META, requires_grad=True)
    frames = triangle_frames(head(expression, joints, identity)[0], head.triangles)
    posed = bind(frames, splats.triangle, **splats.parameters())
    results = [*vars(posed).values(), *regularisation(splats, frames)]
    assert {result.device for result in results} == {META}
    sum(result.sum() for result in results).backward()
    assert {leaf.grad.device for leaf in (*splats.parameters().values(), identity)} == {META}


def test_cameras():
    camera = orbit(torch.zeros(3), 0.0, 2.0, 50.0, 64).to(META).resized(32, 32)
    pixels, depth = camera.project(torch.zeros(3, 5, 3, device=META))
    assert pixels.device == depth.device == camera.centre.device == META
