"""Densify and prune: what is cloned, split, removed and protected, and Adam's state through it all."""

from __future__ import annotations

import pytest
import torch
from headstudio.avatar.binding import triangle_frames
from headstudio.avatar.density import DensityControl, DensitySettings, replace_rows
from headstudio.avatar.initialise import super_dense
from headstudio.heads.head import Head
from hypothesis import given, settings
from hypothesis import strategies as st
from support.synthetic_head import synthetic_head

UNIT = synthetic_head().unit
EVERY_STEP = DensitySettings(densify_from=0.1, densify_until=1.0, densify_every=0.1, prune_at=(0.5,))


@pytest.fixture
def setting():
    """Gaussians on a small head, an Adam that has made one step, and the head's frames at rest."""
    head = Head(synthetic_head(1))
    gaussians = super_dense(head.template, head.triangles, 3).requires_grad_()
    frames = triangle_frames(head.template, head.triangles)
    shape = torch.zeros(3, requires_grad=True)
    groups = [{"params": [p], "name": name, "lr": 1e-3} for name, p in gaussians.parameters().items()]
    optimiser = torch.optim.Adam([*groups, {"params": [shape], "name": "identity"}], lr=1e-3)
    generator = torch.Generator().manual_seed(3)
    loss = sum((p * torch.randn(p.shape, generator=generator)).sum() for p in [*gaussians.parameters().values(), shape])
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    return gaussians, optimiser, frames


def pull(control: DensityControl, count: int, rows: list[int]) -> None:
    """One picture whose gradient lies on the given Gaussians alone."""
    gradient = torch.zeros(1, count, 2)
    gradient[0, rows] = torch.tensor([3.0, 4.0])
    control.observe(gradient, torch.ones(1, count, dtype=torch.bool))


def moments(optimiser, gaussians) -> dict[str, torch.Tensor]:
    return {name: optimiser.state[p]["exp_avg"].clone() for name, p in gaussians.parameters().items()}


def test_schedule_is_the_published_one():
    control = DensityControl(DensitySettings(), 10_000, UNIT)
    assert sorted(control.densify_steps) == [600, 900, 1200, 1500, 1800]
    assert sorted(control.prune_steps) == [2700, 3000]


def test_schedule_survives_a_short_run():
    control = DensityControl(DensitySettings(), 7, UNIT)
    assert control.densify_steps <= set(range(1, 8))
    assert control.prune_steps == {2}


def test_nothing_happens_off_schedule(setting):
    gaussians, optimiser, frames = setting
    control = DensityControl(DensitySettings(), 10_000, UNIT)
    pull(control, len(gaussians), [1])
    assert control.step(601, gaussians, optimiser, frames, torch.Generator()) is None


def test_gradients_are_normalised_per_picture_and_averaged_over_the_pictures_that_show_a_gaussian():
    control = DensityControl(DensitySettings(), 10, UNIT)
    gradient = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]], [[0.0, 0.02], [0.0, 0.0], [0.0, 0.0]]])
    visible = torch.tensor([[True, True, False], [True, False, True]])
    control.observe(gradient, visible)
    state = control.state_dict()
    torch.testing.assert_close(state["gradient"], torch.tensor([3 / 5 + 1, 4 / 5, 0]))
    torch.testing.assert_close(state["seen"], torch.tensor([2.0, 1.0, 1.0]))


def test_a_picture_without_or_with_broken_gradient_is_left_out():
    control = DensityControl(DensitySettings(), 10, UNIT)
    gradient = torch.tensor([[[0.0, 0.0]], [[float("nan"), 0.0]], [[float("inf"), 0.0]], [[1.0, 0.0]]])
    control.observe(gradient, torch.ones(4, 1, dtype=torch.bool))
    assert control.state_dict()["gradient"].tolist() == [1.0]
    assert control.state_dict()["seen"].tolist() == [1.0]


def test_small_gaussians_are_cloned_with_their_triangle(setting):
    gaussians, optimiser, frames = setting
    with torch.no_grad():
        gaussians.log_scales.fill_(-8.0)
    before = {name: p.detach().clone() for name, p in gaussians.parameters().items()}
    triangle, old = gaussians.triangle.clone(), moments(optimiser, gaussians)
    k = len(gaussians)
    control = DensityControl(EVERY_STEP, 10, UNIT)
    pull(control, k, [5, 17])
    assert control.step(1, gaussians, optimiser, frames, torch.Generator()) == (2, 0, 0)
    assert len(gaussians) == k + 2
    assert torch.equal(gaussians.triangle, torch.cat([triangle, triangle[[5, 17]]]))
    for name, p in gaussians.parameters().items():
        assert torch.equal(p, torch.cat([before[name], before[name][[5, 17]]])), name
        assert p.requires_grad
        assert p.is_leaf
        new = optimiser.state[p]["exp_avg"]
        assert torch.equal(new[:k], old[name]), name
        assert not new[k:].any()


def test_large_gaussians_are_split_into_two_smaller_ones_around_the_parent(setting):
    gaussians, optimiser, frames = setting
    with torch.no_grad():
        gaussians.log_scales.copy_(torch.tensor([0.5, -4.0, -4.0]).expand_as(gaussians.log_scales))
        half = torch.tensor([1.0, 0.0, 0.0, 1.0])  # a quarter turn about z: the long axis becomes y
        gaussians.quats.copy_(half.expand_as(gaussians.quats))
    parent = gaussians.offsets[8].detach().clone()
    triangle, k = gaussians.triangle.clone(), len(gaussians)
    control = DensityControl(EVERY_STEP, 10, UNIT)
    pull(control, k, [8])
    assert control.step(1, gaussians, optimiser, frames, torch.Generator().manual_seed(0)) == (0, 1, 0)
    assert len(gaussians) == k + 1
    assert gaussians.triangle[-2:].tolist() == [int(triangle[8])] * 2
    shrunk = torch.tensor([0.5, -4.0, -4.0]) - torch.log(torch.tensor(1.6))
    torch.testing.assert_close(gaussians.log_scales[-2:].detach(), shrunk.expand(2, 3))
    moved = (gaussians.offsets[-2:] - parent).detach()
    assert moved[:, 1].abs().min() > 0.02  # along the long axis ...
    assert moved[:, [0, 2]].abs().max() < 0.1  # ... and hardly across it
    assert not torch.equal(moved[0], moved[1])


def test_children_of_many_splits_keep_the_parents_spread(setting):
    """Offsets are drawn from the parent's own Gaussian: their covariance is R diag(s^2) R^T."""
    gaussians, optimiser, frames = setting
    k = len(gaussians)
    scale = torch.tensor([1.5, 0.6, 0.8])
    quat = torch.nn.functional.normalize(torch.tensor([0.8, 0.3, -0.4, 0.2]), dim=0)
    with torch.no_grad():
        rows = torch.zeros(4000, dtype=torch.int64)
        replace_rows(gaussians, optimiser, rows)
        gaussians.offsets.zero_()
        gaussians.log_scales.copy_(scale.log().expand(4000, 3))
        gaussians.quats.copy_(quat.expand(4000, 4))
    assert k != 4000
    control = DensityControl(EVERY_STEP, 10, UNIT)
    pull(control, 4000, list(range(4000)))
    assert control.step(1, gaussians, optimiser, frames, torch.Generator().manual_seed(1)).split == 4000
    w, x, y, z = quat.tolist()
    rotation = torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    expected = rotation @ torch.diag(scale**2) @ rotation.T
    torch.testing.assert_close(torch.cov(gaussians.offsets.detach().T), expected, atol=0.1, rtol=0)


def test_limit_takes_the_strongest_first(setting):
    gaussians, optimiser, frames = setting
    with torch.no_grad():
        gaussians.log_scales.fill_(-8.0)
        gaussians.opacity_logits.copy_(torch.arange(len(gaussians)) * 1e-3)
    k = len(gaussians)
    control = DensityControl(DensitySettings(densify_from=0.1, densify_until=0.1, limit=k + 3), 10, UNIT)
    gradient = torch.zeros(1, k, 2)
    gradient[0, 10:20, 0] = torch.arange(1, 11.0)
    control.observe(gradient, torch.ones(1, k, dtype=torch.bool))
    assert control.step(1, gaussians, optimiser, frames, torch.Generator()) == (3, 0, 0)
    torch.testing.assert_close(gaussians.opacity_logits[-3:].detach(), torch.tensor([17, 18, 19]) * 1e-3)
    pull(control, k + 3, [1])
    assert control.step(1, gaussians, optimiser, frames, torch.Generator()) == (0, 0, 0)


def test_prune_removes_the_faint_and_the_outsized_but_never_the_last_of_a_triangle(setting):
    gaussians, optimiser, frames = setting
    size = frames.area.sqrt()[gaussians.triangle].unsqueeze(1)
    with torch.no_grad():
        gaussians.opacity_logits.fill_(2.0)
        gaussians.log_scales.copy_((0.01 * UNIT / size).log().expand(-1, 3))
        rows = {triangle: (gaussians.triangle == triangle).nonzero().squeeze(1) for triangle in (0, 1, 2, 3)}
        gaussians.opacity_logits[rows[0][0]] = -6.0  # 0.0025: goes
        gaussians.opacity_logits[rows[1]] = torch.tensor([-7.0, -6.0, -6.0])  # the first -6 stays
        gaussians.log_scales[rows[2][1], 2] = (0.13 * UNIT / size[rows[2][1], 0]).log()  # goes
        gaussians.log_scales[rows[3], 0] = (0.13 * UNIT / size[rows[3], 0]).log()  # one of three stays
    triangles, k = set(gaussians.triangle.tolist()), len(gaussians)
    control = DensityControl(EVERY_STEP, 10, UNIT)
    assert control.step(5, gaussians, optimiser, frames, torch.Generator()).pruned == 6
    assert len(gaussians) == k - 6
    assert set(gaussians.triangle.tolist()) == triangles
    left = gaussians.opacity_logits[gaussians.triangle == 1]
    assert left.tolist() == [-6.0]
    assert (gaussians.triangle == 0).sum() == 2
    assert (gaussians.triangle == 2).sum() == 2
    assert (gaussians.triangle == 3).sum() == 1


def test_everything_faint_still_leaves_one_per_triangle(setting):
    gaussians, optimiser, frames = setting
    with torch.no_grad():
        gaussians.opacity_logits.fill_(-9.0)
    control = DensityControl(EVERY_STEP, 10, UNIT)
    control.step(5, gaussians, optimiser, frames, torch.Generator())
    assert gaussians.triangle.tolist() == list(range(frames.area.shape[0]))


def test_adam_goes_on_as_if_untouched_rows_had_never_been_rearranged(setting):
    """Rows that survive take the same step that they take without any density control."""
    gaussians, optimiser, _ = setting
    twin = gaussians.to("cpu").requires_grad_()
    twin_groups = [{"params": [p], "name": name, "lr": 1e-3} for name, p in twin.parameters().items()]
    twin_optimiser = torch.optim.Adam(twin_groups, lr=1e-3)
    for name, p in twin.parameters().items():
        source = optimiser.state[gaussians.parameters()[name]]
        twin_optimiser.state[p] = {key: value.clone() for key, value in source.items()}
    rows = torch.cat([torch.arange(2, len(gaussians)), torch.tensor([7])])
    replace_rows(gaussians, optimiser, rows, fresh=1)
    for which, solver in ((gaussians, optimiser), (twin, twin_optimiser)):
        sum((p**2).sum() for p in which.parameters().values()).backward()
        solver.step()
    for name, p in gaussians.parameters().items():
        assert torch.equal(p[:-1], twin.parameters()[name][2:]), name
        assert not torch.equal(p[-1], twin.parameters()[name][7]), name
    assert optimiser.param_groups[-1]["name"] == "identity"
    assert len(optimiser.state) == 6


def test_same_generator_same_result_and_state_survives_a_checkpoint(setting):
    gaussians, _optimiser, frames = setting
    with torch.no_grad():
        gaussians.log_scales.fill_(0.3)
    results = []
    for interrupted in (False, True):
        copy = gaussians.to("cpu").requires_grad_()
        solver = torch.optim.Adam([{"params": [p], "name": n} for n, p in copy.parameters().items()])
        control = DensityControl(EVERY_STEP, 10, UNIT)
        pull(control, len(copy), [1, 2, 3])
        if interrupted:
            state = {key: value.clone() for key, value in control.state_dict().items()}
            control = DensityControl(EVERY_STEP, 10, UNIT)
            control.load_state_dict(state)
        pull(control, len(copy), [4])
        control.step(1, copy, solver, frames, torch.Generator().manual_seed(9))
        results.append(copy)
    for name, p in results[0].parameters().items():
        assert torch.equal(p, results[1].parameters()[name]), name
    assert len(results[0]) == len(gaussians) + 4


def test_empty_state_survives_a_checkpoint():
    control = DensityControl(EVERY_STEP, 10, UNIT)
    control.load_state_dict(control.state_dict())
    assert control.state_dict() == {}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), limit=st.integers(200, 400), prune=st.booleans(), densify=st.booleans())
def test_whatever_comes_every_triangle_keeps_a_gaussian_and_adam_fits(seed, limit, prune, densify):
    """Random gradients, opacities and sizes over several rounds with optimiser steps between them."""
    head = Head(synthetic_head(1))
    gaussians = super_dense(head.template, head.triangles, 3).requires_grad_()
    frames = triangle_frames(head.template, head.triangles)
    optimiser = torch.optim.Adam([{"params": [p], "name": n} for n, p in gaussians.parameters().items()], lr=1e-2)
    rng = torch.Generator().manual_seed(seed)
    every = 0.1 if densify else 0.0
    control = DensityControl(
        DensitySettings(0.1, 0.3, every, (0.2, 0.3) if prune else (), threshold=0.05, limit=limit), 10, UNIT
    )
    for step in (1, 2, 3):
        with torch.no_grad():
            gaussians.opacity_logits.add_(4 * torch.randn(len(gaussians), generator=rng) - 3)
            gaussians.log_scales.add_(1.5 * torch.randn(len(gaussians), 3, generator=rng))
        sum((p * torch.randn(p.shape, generator=rng)).sum() for p in gaussians.parameters().values()).backward()
        optimiser.step()
        gradient = torch.randn(2, len(gaussians), 2, generator=rng)
        control.observe(gradient, torch.rand(2, len(gaussians), generator=rng) > 0.3)
        before = len(gaussians)
        change = control.step(step, gaussians, optimiser, frames, rng)
        if change is not None:
            assert len(gaussians) == before + change.cloned + change.split - change.pruned
        assert len(gaussians) <= max(limit, before)
        assert set(gaussians.triangle.tolist()) == set(range(len(head.triangles)))
        assert len(optimiser.state) == 5
        for group in optimiser.param_groups:
            (p,) = group["params"]
            assert p is gaussians.parameters()[group["name"]]
            assert p.isfinite().all()
            assert optimiser.state[p]["exp_avg"].shape == optimiser.state[p]["exp_avg_sq"].shape == p.shape
            p.grad = None
