"""The dataset-update strategy: when it paints, what it paints from, and that it goes on where it was."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from headstudio.avatar.file import save_avatar
from headstudio.avatar.initialise import super_dense
from headstudio.camera import orbit
from headstudio.condition.landmarks import face_middle, landmark_points
from headstudio.errors import UserError
from headstudio.heads.head import Head
from headstudio.train import repaint
from headstudio.train.loop import TrainingStopped, likeness, train
from headstudio.train.photometric_metrics import likeness_loss
from headstudio.train.repaint import guidance_scale, noise_level, round_begin, round_of, with_coarse_part
from headstudio.train.settings import TrainSettings, get_preset
from headstudio.train.state import Request, State
from support.painted_avatar import shared_default_head
from support.training import SIX_STEPS, Notes

REPAINT = replace(
    SIX_STEPS, strategy="repaint", repaint_rounds=3, repaint_scenes=2, repaint_steps=2, repaint_tries=2, views=2
)


@pytest.mark.parametrize(("steps", "rounds"), [(6, 3), (7, 3), (10, 4), (5, 5), (450, 7)])
def test_rounds_share_the_run(steps, rounds):
    settings = TrainSettings(steps=steps, repaint_rounds=rounds)
    numbers = [round_of(step, settings) for step in range(steps)]
    assert sorted(set(numbers)) == list(range(rounds))
    assert numbers == sorted(numbers)
    assert [numbers.index(number) for number in range(rounds)] == [round_begin(n, settings) for n in range(rounds)]
    sizes = [numbers.count(number) for number in range(rounds)]
    assert max(sizes) - min(sizes) <= 1


def test_noise_falls_from_the_first_to_the_last_round():
    settings = TrainSettings(repaint_rounds=5, repaint_start=950, repaint_noise=(900, 300))
    assert [noise_level(number, settings) for number in range(5)] == [950, 900, 700, 500, 300]
    assert noise_level(0, replace(settings, repaint_rounds=1)) == 950
    assert noise_level(1, replace(settings, repaint_rounds=2)) == 900
    assert noise_level(4, settings, timesteps=100) == 30


def test_guidance_calms_down_over_the_rounds():
    settings = TrainSettings(guidance_scale=4.0, repaint_rounds=5, repaint_calm=0.5)
    assert [guidance_scale(number, settings) for number in range(5)] == [4.0, 3.5, 3.0, 2.5, 2.0]
    assert guidance_scale(0, replace(settings, repaint_rounds=1)) == 4.0
    assert {guidance_scale(number, replace(settings, repaint_calm=1.0)) for number in range(5)} == {4.0}


def test_pictures_are_painted_once_a_round_from_what_the_avatar_looks_like(head, prior, monkeypatch):
    calls = []
    paint = repaint.paint

    def noted(state, prior, scenes, number, *noise):
        painted = paint(state, prior, scenes, number, *noise)
        calls.append((state.step, number, painted))
        return painted

    monkeypatch.setattr(repaint, "paint", noted)
    notes = Notes()
    train(REPAINT, head, prior, "an orc", reporter=notes)
    assert [(step, number) for step, number, _ in calls] == [(0, 0), (2, 1), (4, 2)]
    assert all(painted.shape == (2, 2, prior.image_size, prior.image_size, 4) for _, _, painted in calls)
    assert all(painted.dtype == torch.uint8 for _, _, painted in calls)
    assert len({painted.numpy().tobytes() for _, _, painted in calls}) == 3
    assert all(set(progress.losses) == {"repaint", "position", "scale"} for progress in notes.progresses)


def test_the_time_left_counts_the_paintings_to_come(head, prior, monkeypatch):
    """On a clock that only paintings move, each by its noise."""
    now = [0.0]
    monkeypatch.setattr(repaint.time, "perf_counter", lambda: now[0])
    paint = repaint.paint

    def slow(state, prior, scenes, number, *noise):
        now[0] += repaint.noise_level(number, state.request.settings)
        return paint(state, prior, scenes, number, *noise)

    monkeypatch.setattr(repaint, "paint", slow)
    notes = Notes()
    train(REPAINT, head, prior, "an orc", reporter=notes)
    levels = [repaint.noise_level(number, REPAINT) for number in range(REPAINT.repaint_rounds)]
    coming = [levels[1 + repaint.round_of(step, REPAINT) :] for step in range(REPAINT.steps)]
    assert [progress.remaining for progress in notes.progresses] == pytest.approx([sum(part) for part in coming])


def test_pictures_painted_in_smaller_groups_are_the_same_and_memory_that_runs_out_makes_them_smaller(
    head, prior, monkeypatch
):
    whole, sizes, encode = [], [], prior.encode_images
    paint = repaint.paint
    monkeypatch.setattr(repaint, "paint", lambda *a: whole.append(paint(*a)) or whole[-1])
    settings = replace(REPAINT, steps=1, repaint_tries=1)
    train(settings, head, prior, "an orc")

    def too_many(pictures, *arguments):
        sizes.append(len(pictures))
        if len(pictures) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(pictures, *arguments)

    monkeypatch.setattr(prior, "encode_images", too_many)
    notes = Notes()
    train(settings, head, prior, "an orc", reporter=notes)
    assert sizes == [2, 1, 1, 1, 1]  # two scenes of two views
    assert len(notes.warnings) == 1
    assert (whole[0].int() - whole[1].int()).abs().max() <= 1


@pytest.mark.parametrize("tries", [1, 3])
def test_all_first_pictures_start_from_the_surest_of_several_noises(head, prior, monkeypatch, tries):
    noises, seen = [], {}

    def surest(prior, latents, text, null, condition, control_scale, generator, at_once):
        seen["text"], seen["latents"] = text, latents
        return 1

    monkeypatch.setattr(repaint, "surest_picture", surest)
    monkeypatch.setattr(prior, "add_noise", lambda latents, noise, t: noises.append(noise) or noise)
    train(replace(REPAINT, steps=1, repaint_tries=tries), head, prior, "an orc")
    if tries == 1:
        assert not seen
        tried, painted = noises[:1], noises
    else:
        tried, painted = noises[:3], noises[3:]
        assert len({noise.numpy().tobytes() for noise in tried}) == 3
        assert seen["latents"].shape == tried[0].expand(3, -1, -1, -1).shape
        assert seen["text"].equal(prior.encode_text(["an orc, front view"])[0])
    assert [len(noise) for noise in painted] == [2, 2]  # scenes of two views
    assert all(view.equal(tried[min(tries - 1, 1)][0]) for noise in painted for view in noise)


def test_close_ups_come_with_the_second_round_count_only_on_the_head_and_carve_nothing(
    head, prior, carving, monkeypatch
):
    rounds, paint = [], repaint.paint

    def noted(state, prior, scenes, *arguments):
        rounds.append((scenes, paint(state, prior, scenes, *arguments)))
        return rounds[-1][1]

    monkeypatch.setattr(repaint, "paint", noted)
    train(replace(REPAINT, views=3, close_ups=1, repaint_carvings=1, initial_opacity=0.95), head, prior, "an orc")
    assert [[scene.close_up.tolist() for scene in scenes] for scenes, _ in rounds] == [
        [[False, False, False]] * 2,
        [[False, False, True]] * 2,
        [[False, False, True]] * 2,
    ]
    for _, painted in rounds:
        assert painted[:, :2, ..., 3].eq(255).all()
    for _, painted in rounds[1:]:
        counts = painted[:, 2, ..., 3]
        assert set(counts.unique().tolist()) == {0, 255}
        assert counts.eq(255).any()
    assert [pictures.shape for pictures in carving] == [rounds[1][1][:, :2, ..., :3].shape]


@pytest.mark.parametrize("shape", [(4, 32, 32), (2, 3, 16, 20), (1, 2, 4, 4)])
def test_coarse_parts_are_exchanged_and_all_else_stays(shape):
    numbers = torch.Generator().manual_seed(0)
    noise, other = torch.randn(2, *shape, generator=numbers, dtype=torch.float64)
    mixed = with_coarse_part(noise, other)
    for top in range(0, shape[-2], 8):
        for left in range(0, shape[-1], 8):
            square = (..., slice(top, top + 8), slice(left, left + 8))
            mean = mixed[square].mean((-2, -1), keepdim=True)
            torch.testing.assert_close(mean, other[square].mean((-2, -1), keepdim=True))
            own = noise[square] - noise[square].mean((-2, -1), keepdim=True)
            torch.testing.assert_close(mixed[square] - mean, own)


def test_later_pictures_share_the_coarse_part_of_the_first_noise_but_for_close_ups(head, prior, monkeypatch):
    noises, add_noise = [], prior.add_noise
    monkeypatch.setattr(
        prior, "add_noise", lambda latents, noise, t: noises.append(noise) or add_noise(latents, noise, t)
    )
    train(replace(REPAINT, steps=4, repaint_rounds=2, repaint_tries=1, views=3, close_ups=1), head, prior, "an orc")
    assert len(noises) == 4  # two rounds of two scenes
    first = noises[0][0]
    assert all(view.equal(first) for noise in noises[:2] for view in noise)
    for noise in noises[2:]:
        shares = [with_coarse_part(view, first).allclose(view, atol=1e-5) for view in noise]
        assert shares == [True, True, False]
    assert not noises[2][0].allclose(noises[3][0], atol=0.5)


def test_eyes_are_found_in_pictures():
    head = shared_default_head()
    body = Head(head)
    settings = replace(get_preset("draft"), splats_per_triangle=1)
    state = State.start(Request(settings, head, "", "", "an orc", "", 0), body)
    vertices = body.rest_vertices(torch.zeros(1, body.identity_size))
    camera = orbit([0.0, 180.0], 0.0, 2.4 * head.unit, 48.0, 128, face_middle(head, vertices))
    scene = SimpleNamespace(camera=camera)
    eyes = repaint._eyes(state.gaussians.pose(vertices[0], body.triangles), scene, state, 64)
    assert eyes.shape == (2, 64, 64)
    places = camera[0].project(landmark_points(head, vertices)[0])[0] / 2
    columns, lines = places.long().T.tolist()
    near = {
        index: eyes[0, line - 1 : line + 2, column - 1 : column + 2].any()
        for index, column, line in zip(head.landmarks.indices.tolist(), columns, lines, strict=True)
    }
    assert near[468]  # the irises
    assert near[473]
    assert not near[13]  # lip
    assert not near[152]  # chin
    assert 4 <= eyes[0].sum() < 64
    assert eyes[1].sum() == 0


def test_the_middle_of_what_covers_counts():
    alpha = torch.zeros(64, 64)
    alpha[10:40, 20:64] = 1.0
    counts = repaint._well_within(alpha, 64)
    expected = torch.zeros(64, 64)
    expected[13:37, 23:64] = 1.0
    assert counts.equal(expected)
    assert repaint._well_within(alpha, 32)[8:16, 20:32].eq(1).all()
    assert repaint._well_within(torch.ones(8, 8), 8).eq(1).all()


def test_a_fit_learns_nothing_where_a_picture_does_not_count(prior):
    size = prior.image_size
    numbers = torch.Generator().manual_seed(0)
    painted = torch.rand(2, size, size, 4, generator=numbers)
    painted[..., 3] = 1.0
    painted[0, :, : size // 2, 3] = 0.0
    colour = torch.rand(2, size, size, 3, generator=numbers).requires_grad_()
    settings = replace(REPAINT, repaint_dssim=0.0)
    likeness(prior, painted, settings)(slice(0, 2), colour, None).backward()
    assert colour.grad[0, :, : size // 2].eq(0).all()
    assert colour.grad[0, :, size // 2 :].ne(0).all()
    assert colour.grad[1].ne(0).all()


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_a_stopped_run_goes_on_to_the_same_avatar(head, prior, tmp_path, stop_after):
    def file(avatar) -> bytes:
        save_avatar(tmp_path / "a.avatar.npz", avatar)
        return (tmp_path / "a.avatar.npz").read_bytes()

    whole = train(REPAINT, head, prior, "an orc", checkpoint_dir=tmp_path / "whole")
    with pytest.raises(TrainingStopped):
        train(REPAINT, head, prior, "an orc", reporter=Notes(stop_after), checkpoint_dir=tmp_path / "parts")
    resumed = train(REPAINT, head, prior, "an orc", checkpoint_dir=tmp_path / "parts", resume=True)
    assert file(resumed) == file(whole)


@pytest.fixture
def carving(monkeypatch):
    """Seven splats are found off the head in the pictures that carving is called with."""
    calls = []

    def carve(head, identity, scenes, pictures, present):
        calls.append(pictures)
        splats = super_dense(head.template, head.triangles, opacity=0.5, count=7)
        splats.offsets += 2.0
        return splats

    monkeypatch.setattr(repaint, "carve", carve)
    return calls


def test_what_is_carved_out_of_the_first_pictures_joins_the_avatar_and_learns(head, prior, carving):
    settings = replace(REPAINT, densify_threshold=1e6, prune_opacity=0.0, prune_scale=1e6)
    plain = train(settings, head, prior, "an orc")
    assert not carving
    more = train(replace(settings, repaint_carvings=1), head, prior, "an orc")
    assert len(carving) == 1  # in the second round, and never again
    assert carving[0].shape[:2] == (2, 2)
    assert 0 <= float(carving[0].min()) < float(carving[0].max()) <= 1
    count = len(plain.splats.triangle)
    assert len(more.splats.triangle) == count + 7
    offset = more.splats.offset[count:]
    assert np.abs(np.linalg.norm(offset, axis=1) - 12**0.5).max() < 1.5  # where they were put
    assert np.ptp(more.splats.opacity[count:]) > 1e-5  # but not just as they were


@pytest.mark.parametrize("densify", [0.33, 0.66], ids=["after densification", "amid its observations"])
def test_a_stopped_run_keeps_what_was_carved(head, prior, carving, tmp_path, densify):
    settings = replace(REPAINT, repaint_carvings=2, densify_from=densify, densify_until=densify, densify_every=1.0)
    whole = train(settings, head, prior, "an orc")
    with pytest.raises(TrainingStopped):
        train(settings, head, prior, "an orc", reporter=Notes(3), checkpoint_dir=tmp_path)
    resumed = train(settings, head, prior, "an orc", checkpoint_dir=tmp_path, resume=True)
    assert np.array_equal(resumed.splats.offset, whole.splats.offset)
    assert len(carving) == 4  # twice by the whole run, once by each part of the other


def test_likeness_is_zero_for_equal_pictures_and_falls_towards_them():
    numbers = np.random.default_rng(0)
    picture, other = (torch.as_tensor(numbers.random((2, 16, 16, 3)), dtype=torch.float32) for _ in range(2))
    assert likeness_loss(picture, picture, 0.2) == pytest.approx(0.0, abs=1e-6)
    near, far = (likeness_loss(picture + share * (other - picture), picture, 0.2) for share in (0.3, 1.0))
    assert 0 < near < far
    only_l1 = likeness_loss(other, picture, 0.0)
    assert only_l1 == pytest.approx(float((other - picture).abs().mean()))


@pytest.mark.parametrize(
    "changes",
    [{"repaint_rounds": 0}, {"repaint_noise": (0, 400)}, {"repaint_noise": (1000, 400)}, {"repaint_dssim": 2.0}],
)
def test_settings_that_make_no_sense_are_named(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        TrainSettings(**changes)
