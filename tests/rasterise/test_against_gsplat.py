"""Our definition, and our use of gsplat's kernels, against gsplat's own plain torch implementation, without a GPU.

gsplat cannot rasterise on the CPU, but its torch twins of projection, spherical harmonics and tile lists can run there.
"""

from dataclasses import replace

import gsplat
import pytest
import torch
from gsplat.cuda import _torch_impl as twins
from headstudio.rasterise import cuda, reference
from support.splat_scenes import (
    picture_and_gradients,
    random_camera,
    random_gaussians,
    relative_error,
)


def project_by_gsplat(gaussians, camera):
    covariances, _ = twins._quat_scale_to_covar_preci(gaussians.quats, gaussians.scales, compute_preci=False)
    return twins._fully_fused_projection(
        gaussians.means, covariances, camera.world_to_camera, camera.intrinsics, camera.width, camera.height,
        camera_model="ortho" if camera.orthographic else "pinhole",
    )  # fmt: skip


@pytest.mark.parametrize("orthographic", [False, True])
def test_projection(orthographic):
    gaussians = random_gaussians(300, 0, seed=1, size=0.05)
    camera = random_camera(1, (60, 40), (2,), orthographic)
    if not orthographic:
        camera.intrinsics[1, :2, :2] *= 4  # many splats outside the frustum's margin
    radii, centres, depths, conics, _ = project_by_gsplat(gaussians, camera)
    opaque = replace(gaussians, opacities=torch.ones(300, dtype=torch.float64))
    for c in range(2):
        splats = reference.project(
            opaque.means, opaque.quats, opaque.scales, opaque.opacities, opaque.sh, camera.world_to_camera[c],
            camera.intrinsics[c], None, 60, 40, camera.near, orthographic,
        )  # fmt: skip
        drawn = (radii[c] > 0).all(-1).nonzero().squeeze(1)
        # An opaque splat ends at sqrt(2 ln 255) = 3.329 standard deviations; the twin always takes 3.33.
        assert set(splats.index.tolist()) <= set(drawn.tolist())
        assert len(drawn) - len(splats.index) <= 2
        torch.testing.assert_close(splats.centres, centres[c, splats.index])
        torch.testing.assert_close(splats.depths, depths[c, splats.index])
        torch.testing.assert_close(splats.conics, conics[c, splats.index])
        assert (splats.radii - radii[c, splats.index]).abs().max() <= 1


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spherical_harmonics(degree):
    sh = random_gaussians(40, degree, seed=degree).sh
    directions = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(degree))
    expected = (twins._spherical_harmonics(degree, directions, sh) + 0.5).clamp_min(0)
    torch.testing.assert_close(reference.sh_colours(sh, directions), expected, rtol=1e-9, atol=1e-9)


@pytest.fixture
def _gsplat_by_its_twins(monkeypatch):
    def projection(means, covars, quats, scales, viewmats, Ks, width, height, *, opacities, camera_model, **settings):
        assert covars is None
        covariances, _ = twins._quat_scale_to_covar_preci(quats, scales, compute_preci=False)
        radii, *rest = twins._fully_fused_projection(
            means, covariances, viewmats, Ks, width, height, camera_model=camera_model, **settings
        )
        return radii * (opacities >= 1 / 255)[:, None], *rest

    def rasterisation(means2d, conics, colors, opacities, width, height, tile, offsets, flat, backgrounds):
        assert offsets.shape == (len(means2d), -(-height // tile), -(-width // tile))
        pictures = []
        for c in range(len(means2d)):
            drawn = (flat[flat // means2d.shape[1] == c] % means2d.shape[1]).unique()
            order = drawn[colors[c, drawn, 3].argsort()]
            splats = reference.Projected(
                index=order,
                centres=means2d[c, order],
                conics=conics[c, order],
                depths=colors[c, order, 3],
                colours=colors[c, order, :3],
                opacities=opacities[c, order],
                radii=torch.full((len(order), 2), 1e3, dtype=colors.dtype),
            )
            pictures.append(reference.composite(splats, width, height))
        picture = torch.stack(pictures)
        alpha = picture[..., 4:]
        return picture[..., :4] + (1 - alpha) * backgrounds[:, None, None], alpha

    monkeypatch.setattr(gsplat, "fully_fused_projection", projection)
    monkeypatch.setattr(gsplat, "rasterize_to_pixels", rasterisation)
    monkeypatch.setattr(gsplat, "isect_tiles", twins._isect_tiles)
    monkeypatch.setattr(gsplat, "isect_offset_encode", twins._isect_offset_encode)
    monkeypatch.setattr(
        gsplat, "spherical_harmonics", lambda degree, dirs, sh, masks: twins._spherical_harmonics(degree, dirs, sh)
    )
    monkeypatch.setattr(cuda, "_refuse_what_gsplat_cannot_draw", lambda means: None)


@pytest.mark.usefixtures("_gsplat_by_its_twins")
@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("degree", [0, 2])
def test_what_we_ask_of_gsplat_is_the_definition(degree, orthographic):
    gaussians = random_gaussians(40, degree, seed=degree)
    gaussians.means[3, 1] = float("nan")
    gaussians.quats[5] = 0
    camera = random_camera(degree, (37, 29), (2,), orthographic)
    background = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    args = {"dtype": torch.float64, "background": background, "intrinsics_gradient": False}
    render, gradients = picture_and_gradients(gaussians, camera, "gsplat", **args)
    truth, true_gradients = picture_and_gradients(gaussians, camera, "torch", **args)
    for image in ("colour", "alpha", "depth"):
        assert relative_error(getattr(render, image), getattr(truth, image)) < 1e-9, image
    for name, true_gradient in true_gradients.items():
        assert relative_error(gradients[name], true_gradient) < 1e-9, name
    assert (render.visible != truth.visible).sum() <= 2
