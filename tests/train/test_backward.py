"""The gradients that a step leaves: equal to plain autograd through the whole loss, and zero on the prior."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from headstudio.avatar.binding import triangle_frames
from headstudio.avatar.regularise import regularisation
from headstudio.avatar.sh_rotation import SH_C0
from headstudio.condition.picture import condition_image, face_direction
from headstudio.guidance.distil import distillation_loss, get_strategy
from headstudio.guidance.prompts import PromptEmbeddings
from headstudio.heads.head import Head
from headstudio.rasterise import rasterise
from headstudio.train import loop
from headstudio.train.cameras import face_azimuth
from headstudio.train.scenes import SceneSampler
from headstudio.train.state import Request, State
from support.training import SIX_STEPS


def setting_up(head_arrays, prior, settings):
    request = Request(settings, head_arrays, prior.name, prior.revision, "an orc", "ugly", 0)
    head = Head(head_arrays)
    state = State.start(request, head)
    with torch.no_grad():
        # Away from the start, where splats are round and their rotations have no gradient
        for parameter in (state.identity, state.gaussians.offsets, state.gaussians.log_scales, state.gaussians.quats):
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    rng, generator = np.random.default_rng(4), torch.Generator().manual_seed(4)
    draw = SceneSampler(settings, head, PromptEmbeddings.encode(prior, "an orc", "ugly"))
    noise = torch.randn(settings.views, 3, prior.latent_size, prior.latent_size, generator=generator)
    return state, draw(rng), torch.tensor([30, 300, 700]), noise


@pytest.mark.parametrize("strategy", ["nfsd", "sds"])
@pytest.mark.parametrize("at_once", [3, 2, 1])
def test_gradients_equal_autograd_through_the_whole_loss(head, prior, strategy, at_once):
    settings = replace(SIX_STEPS, sparsity_weight=0.7, position_weight=0.3, scale_weight=0.2)
    state, scene, t, noise = setting_up(head, prior, settings)
    state.views_at_once = at_once
    loss_of = loop.distillation(state.head, prior, get_strategy(strategy), scene, t, noise, settings)
    losses = loop.backward(state, scene, loss_of)
    parameters = {**state.gaussians.parameters(), "identity": state.identity}
    found = {name: parameter.grad.clone() for name, parameter in parameters.items()}
    assert state.gradients_are_finite()

    state.optimiser.zero_grad()
    vertices = state.head(scene.expression[None], scene.joints[None], state.identity[None])[0]
    posed = state.gaussians.pose(vertices, state.head.triangles)
    render = rasterise(posed, scene.camera, background=scene.background)
    condition, facing = condition_image(head, vertices.detach().expand(3, -1, -1), scene.camera, prior.condition_size)
    distilled = distillation_loss(
        get_strategy(strategy), prior, prior.encode_images(render.colour), t, noise, scene.texts,
        condition, settings.control_scale * facing, settings,
    )  # fmt: skip
    position, scale = regularisation(state.gaussians, triangle_frames(vertices, state.head.triangles))
    (distilled + 0.3 * position + 0.2 * scale + 0.7 * posed.opacities.mean()).backward()
    for name, parameter in parameters.items():
        error = (found[name] - parameter.grad).abs().max() / parameter.grad.abs().max()
        assert error < 1e-4, (name, error)
    assert losses["distil"] == pytest.approx(distilled.item(), rel=1e-4)
    assert losses["position"] == pytest.approx(position.item(), rel=1e-6)
    assert all(p.grad is None for module in (prior.unet, prior.controlnet) for p in module.parameters())


def test_mean_colours_stay_displayable_and_keep_their_gradient(head):
    state = State.start(Request(SIX_STEPS, head, "", "", "an orc", "", 0), Head(head))
    with torch.no_grad():
        state.gaussians.sh[:100, 0] = -9.0
        state.gaussians.sh[100:200, 0] = 9.0
        inside = state.gaussians.sh[200:].clone()
    state.clamp_colours()
    colour = 0.5 + SH_C0 * state.gaussians.sh[:, 0]
    assert torch.allclose(colour[:100], torch.tensor(1 / 255), atol=1e-6)
    assert torch.allclose(colour[100:200], torch.tensor(254 / 255), atol=1e-6)
    assert torch.equal(state.gaussians.sh[200:], inside)
    colour.clamp_min(0).sum().backward()
    assert (state.gaussians.sh.grad[:, 0] != 0).all()


def test_learning_rates_fall_along_a_cosine_and_the_shape_stops(head, prior):
    settings = replace(SIX_STEPS, steps=100, shape_freeze=0.8, final_lr=0.1)
    state = State.start(Request(settings, head, "", "", "an orc", "", 0), Head(head))
    rates = {}
    for state.step in (0, 50, 79, 80, 99):
        state.set_rates()
        rates[state.step] = {group["name"]: group["lr"] for group in state.optimiser.param_groups}
        assert state.identity.requires_grad == (state.step < 80)
    assert rates[0]["sh"] == settings.lr_colour
    assert rates[50]["offsets"] == pytest.approx(0.55 * settings.lr_offset)
    assert rates[99]["quats"] == pytest.approx(0.1 * settings.lr_rotation, rel=0.01)
    assert rates[0]["identity"] == settings.lr_shape
    assert [group["name"] for group in state.optimiser.param_groups if group["params"]] == [
        "offsets", "log_scales", "quats", "opacity_logits", "sh",
    ]  # fmt: skip


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.2, 0.6, -0.1), (-0.4, -0.9, 0.3), (0.1, 2.6, 0.0)])
def test_face_azimuth_agrees_with_the_posed_skull(turn):
    """Against the rotation that carries the rest skull onto the posed one."""
    from support.synthetic_head import synthetic_head

    head = synthetic_head(correctives=False)
    joints = np.zeros((5, 3), np.float32)
    joints[1] = turn
    joints[0] = (0.0, 0.1, 0.0)
    vertices = Head(head)(torch.zeros(1, len(head.expression_names)), torch.as_tensor(joints)[None])
    forward, _ = face_direction(head, vertices)
    expected = np.degrees(np.arctan2(forward[0, 0], forward[0, 2]))
    assert abs((face_azimuth(head, joints) - expected + 180) % 360 - 180) < 4.0
    joints[1] = 0
    assert face_azimuth(head, joints) == pytest.approx(np.degrees(0.1), abs=1e-4)
