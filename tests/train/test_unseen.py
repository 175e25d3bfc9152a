"""Splats that no picture shows: which they are, by a second way of telling, and whose colours they take."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from headstudio.avatar.sh_rotation import SH_C0
from headstudio.guidance.prompts import PromptEmbeddings
from headstudio.heads.arrays import EYEBALLS, MOUTH
from headstudio.heads.head import Head
from headstudio.rasterise import rasterise
from headstudio.train import repaint
from headstudio.train.loop import train
from headstudio.train.scenes import SceneSampler
from headstudio.train.settings import CameraRanges, get_preset
from headstudio.train.state import Request, State
from headstudio.train.unseen import colour_unseen, shown_pixels
from support.painted_avatar import shared_default_head
from support.training import SIX_STEPS

SETTINGS = replace(get_preset("draft"), splats_per_triangle=1, render_size=64, views=2, close_ups=0)


@pytest.fixture
def state():
    head = shared_default_head()
    return State.start(Request(SETTINGS, head, "", "", "an orc", "", 0), Head(head))


@pytest.fixture
def front(state, prior):
    """A scene that two cameras see from before the face."""
    draw = SceneSampler(SETTINGS, state.head, PromptEmbeddings.encode(prior, "an orc", ""))
    return draw(np.random.default_rng(1), cameras=replace(SETTINGS.cameras, azimuth=(-30.0, 30.0)))


def test_what_a_splat_makes_up_is_what_the_render_gains_with_its_colour(state, front):
    shown = shown_pixels(state, [front, front])
    vertices = state.head(front.expression[None], front.joints[None], state.identity.detach()[None])[0]
    with torch.no_grad():
        posed = state.gaussians.pose(vertices, state.head.triangles)
        grey = rasterise(replace(posed, sh=torch.zeros_like(posed.sh)), front.camera)
        # All splats together make up what the avatar covers
        assert shown.sum() == pytest.approx(2 * float(grey.alpha.sum()), rel=1e-3)
        order = shown.argsort()
        for row in (*order[-3:], order[len(order) // 2], order[0]):
            brighter = torch.zeros_like(posed.sh)
            brighter[row] = 0.25 / SH_C0
            gain = rasterise(replace(posed, sh=brighter), front.camera).colour - grey.colour
            assert shown[row] == pytest.approx(2 * float(gain[..., 0].sum()) / 0.25, abs=1e-2)


def test_the_back_takes_its_colours_from_the_side(state, front):
    """Red above the ears, blue below; what cannot be seen was green everywhere."""
    head, gaussians = state.head, state.gaussians
    red, green, blue = ((torch.eye(3)[channel] - 0.5) / SH_C0 for channel in range(3))
    vertices = head.rest_vertices(state.identity.detach()[None])[0]
    with torch.no_grad():
        places = gaussians.pose(vertices, head.triangles).means
        above = places[:, 1] > places[:, 1].median()
        gaussians.sh[:, 0] = torch.where(above[:, None], red, blue)
        seen = shown_pixels(state, [front]) >= 1
        own = torch.from_numpy(head.arrays.triangles_in((*EYEBALLS, *MOUTH)))[gaussians.triangle]
        gaussians.sh[~seen] = green
    before = gaussians.sh.detach().clone()
    colour_unseen(state, [front])
    sh = gaussians.sh.detach()
    assert sh[seen].equal(before[seen])
    assert sh[own].equal(before[own])
    filled = ~seen & ~own
    assert filled.sum() > 1000
    assert not (sh[filled, 0] - green).abs().amax(1).lt(0.1).any()
    far = (places[:, 1] - places[:, 1].median()).abs() > 0.04  # metres
    wrong = (sh[:, 0] - torch.where(above[:, None], red, blue)).abs().amax(1) > 0.1
    assert wrong[filled & far].float().mean() < 0.02
    colour_unseen(state, [front])
    assert gaussians.sh.equal(sh)


def test_where_nothing_is_seen_nothing_changes(state, front):
    elsewhere = replace(front.camera, world_to_camera=front.camera.world_to_camera + torch.eye(4)[1, :, None] * 100)
    before = state.gaussians.sh.detach().clone()
    colour_unseen(state, [replace(front, camera=elsewhere)])
    assert state.gaussians.sh.equal(before)


@pytest.mark.parametrize(
    ("front", "azimuth", "expected"),
    [(80.0, (-180.0, 180.0), 80.0), (180.0, (-180.0, 180.0), 180.0), (80.0, (-40.0, 40.0), 40.0)],
)
def test_the_first_round_looks_at_the_front(head, prior, monkeypatch, front, azimuth, expected):
    rounds, calls, paint, colour = [], [], repaint.paint, repaint.colour_unseen
    monkeypatch.setattr(repaint, "paint", lambda *a: rounds.append(a[2]) or paint(*a))
    monkeypatch.setattr(repaint, "colour_unseen", lambda state, scenes: calls.append(scenes) or colour(state, scenes))
    cameras = CameraRanges(distance=(1.8, 2.6), azimuth=azimuth)
    settings = replace(
        SIX_STEPS, strategy="repaint", repaint_rounds=3, repaint_scenes=6, repaint_steps=1, repaint_front=front,
        cameras=cameras,
    )  # fmt: skip
    avatar = train(settings, head, prior, "an orc")

    def widest(scenes) -> float:
        offsets = torch.cat([scene.camera.centre for scene in scenes]) - torch.as_tensor(head.centre)
        return float(torch.atan2(offsets[:, 0], offsets[:, 2]).abs().max().rad2deg())

    assert 0.6 * expected < widest(rounds[0]) <= expected + 1e-3
    assert all(0.6 * azimuth[1] < widest(scenes) <= azimuth[1] + 1e-3 for scenes in rounds[1:])
    assert len(calls) == (front < 180)
    for scenes in calls:  # those that the first round was painted in
        assert all(
            a.camera.world_to_camera.equal(b.camera.world_to_camera) for a, b in zip(scenes, rounds[0], strict=True)
        )
    train(settings, head, prior, "an orc", start=avatar)
    assert len(calls) == (front < 180)  # an avatar to start from has a back of its own
