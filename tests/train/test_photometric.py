"""The photometric fit: the proof that rig, colours, rasteriser and density control work together, at a small size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from headstudio.avatar.density import DensitySettings
from headstudio.avatar.initialise import super_dense
from headstudio.avatar.rigged import RiggedAvatar, RiggedGaussians
from headstudio.camera import orbit
from headstudio.heads.head import Head
from headstudio.rasterise.rasterise import rasterise
from headstudio.train.photometric import PhotometricSettings, fit
from headstudio.train.photometric_metrics import psnr
from support.synthetic_head import synthetic_head

QUICK = PhotometricSettings(
    steps=40,
    points=400,
    density=DensitySettings(densify_from=0.3, densify_until=0.6, densify_every=0.3, threshold=0.03, prune_at=(0.8,)),
)


@pytest.mark.slow
def test_fresh_avatar_matches_held_out_views_and_expressions():
    """48 pictures of a known avatar on the default head, 96 pixels; the full-size run is benchmarks/photometric_fit."""
    from benchmarks import photometric_fit

    settings = replace(
        PhotometricSettings(), steps=450, points=9000, density=replace(PhotometricSettings().density, limit=13_000)
    )
    figures, _ = photometric_fit.run(96, settings, truth_points=30_000)
    assert figures["pictures"] == 48
    assert figures["splats"] > 9000  # density control did its part
    assert figures["views"]["mean"] >= 30
    assert figures["views"]["head_mean"] >= 28  # without the black around it
    assert figures["expressions"]["mean"] >= 28
    assert figures["expressions"]["worst"] >= 26
    # Not a matter of course: the same avatar that does not follow its head is far off
    assert figures["still"]["mean"] < figures["expressions"]["mean"] - 10


def scene(size: int = 40, degree: int = 0):
    """A few pictures of a coloured avatar on the synthetic head."""
    head = Head(synthetic_head(1))
    generator = torch.Generator().manual_seed(5)
    gaussians = super_dense(head.template, head.triangles, 4, opacity=0.95, sh_degree=degree)
    gaussians.sh = gaussians.sh + 0.8 * torch.randn(gaussians.sh.shape, generator=generator)
    cameras = orbit(torch.arange(6) * 60.0, 5.0, 0.6, 30.0, size)
    expressions = torch.rand(6, 4, generator=generator)
    joints = 0.1 * torch.randn(6, 5, 3, generator=generator)
    known = RiggedAvatar(head, gaussians)
    images = torch.stack([rasterise(known.pose(expressions[i], joints[i]), cameras[i]).colour for i in range(6)])
    return head, images.clamp(0, 1).detach(), cameras, expressions, joints


def drawn(head: Head, gaussians: RiggedGaussians, cameras, expressions, joints, identity=None):
    avatar = RiggedAvatar(head, gaussians)
    with torch.no_grad():
        return torch.stack(
            [rasterise(avatar.pose(expressions[i], joints[i], identity), cameras[i]).colour for i in range(6)]
        )


def test_same_seed_same_avatar_and_density_control_works():
    inputs = scene()
    counts = []
    runs = [
        fit(*inputs, QUICK, torch.Generator().manual_seed(seed), report=lambda *news: counts.append(news[2]))
        for seed in (3, 3, 4)
    ]
    for name, value in runs[0].parameters().items():
        assert torch.equal(value, runs[1].parameters()[name]), name
        assert not value.requires_grad
    assert not torch.equal(runs[0].sh[:100], runs[2].sh[:100])
    assert max(counts) > 400
    start, end = counts[0], counts[39]
    assert start == 400
    assert end == len(runs[0])


def test_pictures_get_closer_whatever_the_global_generator_says():
    inputs = scene()
    torch.manual_seed(1)
    losses = []
    settings = replace(QUICK, steps=120)
    gaussians = fit(
        *inputs, settings, torch.Generator().manual_seed(0), report=lambda step, loss, count: losses.append(loss)
    )
    assert sum(losses[-6:]) < 0.5 * sum(losses[:6])
    torch.manual_seed(2)
    assert torch.equal(gaussians.offsets, fit(*inputs, settings, torch.Generator().manual_seed(0)).offsets)


def test_view_dependent_colour_explains_what_a_plain_one_cannot():
    """Colours that change with the direction: degree 2 fits them better than degree 0."""
    inputs = scene(degree=2)
    head, images, cameras, expressions, joints = inputs
    scores = []
    for degree in (0, 2):
        settings = replace(QUICK, steps=150, points=1000, sh_degree=degree)
        gaussians = fit(*inputs, settings, torch.Generator().manual_seed(0))
        scores.append(psnr(drawn(head, gaussians, cameras, expressions, joints), images).mean().item())
    assert scores[1] > scores[0] + 0.5, scores


def test_shape_is_learned_and_then_stands_still():
    """Plain pictures of a head with another identity, and splats that cannot move: the shape must explain them."""
    head, _, cameras, expressions, joints = scene(size=64)
    true_shape = torch.tensor([4.0, -2.0, 3.0])
    gaussians = super_dense(head.rest_vertices(true_shape[None])[0], head.triangles, 4, opacity=0.95, colour=0.9)
    images = drawn(head, gaussians, cameras, expressions, joints, true_shape).clamp(0, 1)
    identity = torch.zeros(3)
    history = []
    settings = replace(
        QUICK,
        steps=120,
        points=None,
        per_triangle=4,
        initial_opacity=0.95,
        initial_colour=0.9,
        lr_shape=0.2,
        lr_offset=0.0,
        lr_scale=0.0,
        lr_opacity=0.0,
        lr_colour=0.0,
        shape_freeze=0.75,
        density=DensitySettings(threshold=1.0),
    )
    fit(
        *(head, images, cameras, expressions, joints),
        settings,
        torch.Generator().manual_seed(0),
        identity=identity,
        report=lambda *_: history.append(identity.detach().clone()),
    )
    rest, found, wanted = (head.rest_vertices(s[None].detach()) for s in (0 * true_shape, identity, true_shape))
    assert (found - wanted).norm() < 0.35 * (rest - wanted).norm()
    assert torch.equal(history[90], history[-1])
    assert not torch.equal(history[60], history[80])


def test_a_broken_picture_stops_the_fit_with_the_step():
    head, images, cameras, expressions, joints = scene()
    images[:, 3, 3] = float("nan")
    with pytest.raises(FloatingPointError, match="step 1 "):
        fit(head, images, cameras, expressions, joints, QUICK, torch.Generator().manual_seed(0))


def test_numbers_that_make_no_sense():
    inputs = scene()
    for settings in (replace(QUICK, steps=0), replace(QUICK, pictures=0)):
        with pytest.raises(ValueError, match="steps of"):
            fit(*inputs, settings, torch.Generator().manual_seed(0))
    head, images, cameras, expressions, joints = inputs
    with pytest.raises(AssertionError):
        fit(head, images[:3], cameras, expressions, joints, QUICK, torch.Generator().manual_seed(0))
