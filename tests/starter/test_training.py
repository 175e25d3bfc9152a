"""The three trainings on tiny networks: they learn, they resume to the same bits, their files are whole."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from headstudio.errors import UserError
from headstudio.guidance.prior import Prior
from headstudio.starter.autoencoder import (
    LIKE,
    AutoencoderRun,
    AutoencoderTrainer,
    kept_autoencoder,
    trained_autoencoder,
)
from headstudio.starter.batches import BatchSettings, irises, make_batch
from headstudio.starter.character import Character
from headstudio.starter.export import export
from headstudio.starter.language import ATTRIBUTES, LanguageRun, LanguageTrainer, sentences, taught_text_encoder
from headstudio.starter.learner import Learner, run
from headstudio.starter.networks import AutoencoderSettings, NetworkSettings, TextSettings
from headstudio.starter.samples import sample
from headstudio.starter.shards import HELD_OUT, Shard, ShardFolder, write_shard
from headstudio.starter.train import DenoiserTrainer, StarterSettings, keep_encoders, load_encoders
from headstudio.train.checkpoint import load_checkpoint

SIZE = 32  # pixels: a quarter of the real side
AUTOENCODER = AutoencoderRun(
    steps=4, batch=2, crop=16, warm_up=2, precision="float32", network=AutoencoderSettings(16, (0, 0, 1), (0, 0, 1), 4)
)
LANGUAGE = LanguageRun(steps=4, batch=4, warm_up=2, network=TextSettings(width=64, layers=1, heads=2))
TINY = StarterSettings(
    steps=4,
    small_steps=2,
    batch=2,
    small_batch=2,
    warm_up=2,
    precision="float32",
    networks=NetworkSettings(
        size=SIZE // 4,
        latent_channels=4,
        channels=(16, 32),
        heads=2,
        groups=4,
        condition_channels=(4, 8, 8),
        text_width=64,  # the pooling of the text has 64 heads
    ),
)


def red_and_green(count: int, seed: int) -> Shard:
    """Plain squares that are red or green, as the skin of the characters."""
    rng = np.random.default_rng(seed)
    red = rng.random(count) < 0.5
    pictures = np.zeros((count, SIZE, SIZE, 4), np.uint8)
    pictures[:, 4:-4, 4:-4] = np.where(red[:, None], (220, 20, 20, 255), (20, 200, 20, 255))[:, None, None]
    return Shard(
        pictures,
        np.zeros((count, SIZE, SIZE, 3), np.uint8),
        np.array([Character(seed=0, skin="red" if is_red else "green").to_json() for is_red in red]),
        np.full(count, ""),
        np.zeros(count, np.int64),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_shard(folder, HELD_OUT, red_and_green(16, 0))
    write_shard(folder, 1, red_and_green(32, 1))
    return folder


@pytest.fixture(scope="module")
def encoders(folder, tmp_path_factory):
    """A run's folder with an autoencoder that has learnt a little, and a text encoder that has learnt a little."""
    runs = tmp_path_factory.mktemp("runs")
    data = ShardFolder(folder)
    run(
        AutoencoderTrainer(replace(AUTOENCODER, steps=200, batch=8, average=0.9, learning_rate=5e-3), data),
        runs / "autoencoder",
    )
    run(LanguageTrainer(replace(LANGUAGE, steps=200, batch=16, average=0.9, learning_rate=3e-3)), runs / "language")
    keep_encoders(runs / "denoiser", runs / "autoencoder", runs / "language", data)
    return runs


def denoiser(settings, folder, encoders) -> DenoiserTrainer:
    return DenoiserTrainer(settings, ShardFolder(folder), *load_encoders(encoders / "denoiser"))


def _equal(first: Learner, second: Learner) -> None:
    assert first.step == second.step
    for table in ("weights", "averages", "first", "second"):
        for name, value in getattr(first, table).items():
            assert torch.equal(value, getattr(second, table)[name]), (table, name)


@pytest.mark.parametrize("kind", ["autoencoder", "language", "denoiser"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(kind, folder, encoders, tmp_path):
    def trainer(**changes):
        if kind == "autoencoder":
            return AutoencoderTrainer(replace(AUTOENCODER, fall=0.0, **changes), ShardFolder(folder))
        if kind == "language":
            return LanguageTrainer(replace(LANGUAGE, fall=0.0, **changes))
        return denoiser(replace(TINY, fall=0.0, **changes), folder, encoders)

    whole, part, rest = trainer(), trainer(steps=3), trainer()
    run(whole, tmp_path / "whole", checkpoint_every=2, report_every=1)
    run(part, tmp_path / "parts", checkpoint_every=1)
    run(rest, tmp_path / "parts")
    assert part.learner.step == 3
    _equal(whole.learner, rest.learner)


def test_log_and_checkpoints(folder, encoders, tmp_path):
    run(denoiser(TINY, folder, encoders), tmp_path, checkpoint_every=2, report_every=1)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if "loss" in entry] == [1, 2, 3, 4]
    assert [entry["step"] for entry in entries if "held_out_loss" in entry] == [2, 4]
    assert all(np.isfinite(entry["loss"]) for entry in entries if "loss" in entry)
    assert entries[0]["minutes_left"] >= 0
    folders = sorted(path.name for path in (tmp_path / "checkpoint").iterdir())
    assert folders == ["step-00000002", "step-00000004"]


def test_a_damaged_checkpoint_is_skipped(folder, encoders, tmp_path, capsys):
    run(denoiser(TINY, folder, encoders), tmp_path, checkpoint_every=2)
    (tmp_path / "checkpoint" / "step-00000004" / "tensors.safetensors").write_bytes(b"cut off")
    trainer = denoiser(replace(TINY, steps=2), folder, encoders)
    run(trainer, tmp_path)
    assert trainer.learner.step == 2
    assert "damaged" in capsys.readouterr().out


def test_checkpoints_of_other_networks_are_refused(folder, encoders, tmp_path):
    run(denoiser(TINY, folder, encoders), tmp_path)
    other = replace(TINY, networks=replace(TINY.networks, channels=(16, 48)))
    with pytest.raises(UserError, match="other networks"):
        run(denoiser(other, folder, encoders), tmp_path)


def test_runs_without_their_encoders_say_what_to_train(folder, tmp_path):
    with pytest.raises(UserError, match=r"headstudio\.starter\.autoencoder"):
        trained_autoencoder(tmp_path, ShardFolder(folder))
    with pytest.raises(UserError, match=r"headstudio\.starter\.language"):
        taught_text_encoder(tmp_path)
    with pytest.raises(UserError, match="no autoencoder"):
        load_encoders(tmp_path)


def test_settings_survive_json(folder, encoders, tmp_path):
    run(denoiser(TINY, folder, encoders), tmp_path)
    saved = load_checkpoint(tmp_path / "checkpoint", warn=print).state["settings"]
    assert StarterSettings.from_json(saved) == TINY


def test_the_update_is_adam(folder, encoders):
    learner = denoiser(replace(TINY, warm_up=1, fall=0.0, learning_rate=1e-2), folder, encoders).learner
    reference = {name: torch.nn.Parameter(weight.clone()) for name, weight in learner.weights.items()}
    optimiser = torch.optim.Adam(reference.values(), lr=1e-2, betas=(0.9, 0.99), eps=1e-8)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for name, parameter in learner._parameters():
            gradient = torch.randn(parameter.shape, generator=generator) * 1e-4  # below the limit of the norm
            parameter.grad = gradient.clone()
            reference[name].grad = gradient
        learner.update()
        optimiser.step()
    for name, weight in learner.weights.items():
        torch.testing.assert_close(weight, reference[name].detach(), rtol=1e-4, atol=1e-6)


def test_long_gradients_are_shortened(folder, encoders):
    learner = denoiser(replace(TINY, warm_up=1), folder, encoders).learner
    for _, parameter in learner._parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    learner.update()
    norm = torch.sqrt(sum(first.square().sum() for first in learner.first.values()))
    assert float(norm) == pytest.approx(0.1, rel=1e-3)  # a tenth of the unit gradient enters the average


def test_a_perfect_prediction_has_no_loss(folder, encoders, monkeypatch):
    """The networks' velocity is what ``Prior`` turns back into noise."""
    trainer = denoiser(TINY, folder, encoders)
    batch = make_batch(red_and_green(4, 3), SIZE, BatchSettings(0, 0, 0), np.random.default_rng(0))
    clean = trainer.latents(batch.pixels)
    seen = {}

    def predict(noisy, t, batch):
        alpha = trainer.alphas[t][:, None, None, None]
        noise = (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        seen["noise"] = alpha.sqrt() * velocity + (1 - alpha).sqrt() * noisy - noise
        return velocity + seen.get("error", 0.0)

    monkeypatch.setattr(trainer, "predict", predict)
    assert trainer.loss(batch, np.random.default_rng(0)) < 1e-6
    assert seen["noise"].abs().max() < 1e-3
    seen["error"] = 0.1
    plain = trainer.loss(batch, np.random.default_rng(0))
    assert plain > 1e-4
    batch.conditions[:, 0, 8:10, 8:10] = 1.0  # an iris, in 4 of the 8 x 8 latents that its surroundings touch
    cells = float(F.adaptive_max_pool2d(irises(batch.conditions), SIZE // 4).mean())
    assert cells == 4 / 64
    assert trainer.loss(batch, np.random.default_rng(0)) / plain == pytest.approx(1 + TINY.eye_weight * cells, rel=1e-3)


def test_pictures_without_control_do_not_depend_on_the_map(folder, encoders):
    trainer = denoiser(TINY, folder, encoders)
    for weight in trainer.learner.networks["controlnet"].parameters():  # zero convolutions would hide the difference
        weight.data += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    batch = make_batch(red_and_green(2, 3), SIZE, BatchSettings(0, 0, 0), np.random.default_rng(0))
    noisy, t = torch.zeros(2, 4, SIZE // 4, SIZE // 4), torch.tensor([500, 500])
    other = replace(batch, conditions=1 - batch.conditions)
    with torch.no_grad():
        assert (trainer.predict(noisy, t, batch) - trainer.predict(noisy, t, other)).abs().max() > 1e-4
        off = torch.zeros(2)
        same = trainer.predict(noisy, t, replace(batch, control=off)) - trainer.predict(
            noisy, t, replace(other, control=off)
        )
    assert same.abs().max() == 0


def test_latents_have_unit_variance(folder, encoders):
    trainer = denoiser(TINY, folder, encoders)
    pixels = make_batch(red_and_green(16, 5), SIZE, BatchSettings(0, 0, 0), np.random.default_rng(0)).pixels
    assert 0.7 < float(trainer.latents(pixels).std()) < 1.4


def test_the_autoencoder_learns_to_copy(folder, encoders):
    trained = trained_autoencoder(encoders / "autoencoder", ShardFolder(folder))
    fresh = AutoencoderTrainer(AUTOENCODER, ShardFolder(folder))
    pixels, _ = fresh._held_out_pictures()

    def error(vae):
        return float((vae.decode(vae.encode(pixels).latents).sample - pixels).square().mean())

    assert error(trained) < 0.4 * error(fresh.learner.averaged_networks()["vae"])


def test_an_autoencoder_that_is_like_another_keeps_its_latents(folder, encoders, tmp_path):
    data = ShardFolder(folder)
    model = trained_autoencoder(encoders / "autoencoder", data)
    model.save_pretrained(tmp_path / LIKE)
    settings = replace(AUTOENCODER, steps=60, batch=8, average=0.9, learning_rate=5e-3)
    pixels, _ = AutoencoderTrainer(AUTOENCODER, data)._held_out_pictures()
    before = model.encode(pixels).latents

    def distance(like_weight: float, out) -> float:
        trainer = AutoencoderTrainer(
            replace(settings, like_weight=like_weight), data, kept_autoencoder(tmp_path / LIKE)
        )
        assert torch.equal(trainer.finished().encode(pixels).latents, before)
        run(trainer, out)
        return float((trainer.finished().encode(pixels).latents - before).abs().mean())

    assert distance(10.0, tmp_path) < 0.3 * distance(0.0, tmp_path / "free")
    # The run's folder is all that is needed to finish it, and a denoiser's scale stays the same
    assert trained_autoencoder(tmp_path, data).config.scaling_factor == model.config.scaling_factor


def test_a_decoder_may_learn_alone(folder, encoders, tmp_path):
    data = ShardFolder(folder)
    trained_autoencoder(encoders / "autoencoder", data).save_pretrained(tmp_path / LIKE)
    settings = replace(AUTOENCODER, steps=40, batch=8, average=0.9, learning_rate=5e-3, keep_latents=True)
    trainer = AutoencoderTrainer(settings, data, kept_autoencoder(tmp_path / LIKE))
    before, psnr = trainer.finished().state_dict(), trainer.held_out()["psnr"]
    run(trainer, tmp_path)
    after = trained_autoencoder(tmp_path, data).state_dict()
    assert {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])} == {"decoder"}
    assert trainer.held_out()["psnr"] > psnr


def test_sentences_say_what_their_rows_mean():
    texts, rows = sentences(200, np.random.default_rng(0), thorough=1.0, spoilt=0.5)
    assert all(rows[name].max() < len(values) for name, values in ATTRIBUTES.items())
    for text, has_glasses, noisy in zip(texts, rows["eyewear"], rows["spoilt_noise"], strict=True):
        if " sunglasses" in text:
            assert ATTRIBUTES["eyewear"][has_glasses] == "sunglasses"
        if "noisy" in text:
            assert noisy == 1
    assert rows["spoilt_noise"].any()


def test_the_text_encoder_learns_its_language(encoders):
    checkpoint = load_checkpoint(encoders / "language" / "checkpoint", warn=print)
    trained = LanguageTrainer(LanguageRun.from_json(checkpoint.state["settings"]))
    fresh = LanguageTrainer(trained.settings).held_out()["mean"]
    trained.restore(checkpoint)
    assert trained.held_out()["mean"] > fresh + 0.15


@pytest.mark.slow
def test_a_minute_of_training_tells_red_from_green(folder, encoders, tmp_path):
    settings = replace(TINY, steps=500, small_steps=0, batch=8, learning_rate=3e-3, average=0.95, fall=0.3)
    keep_encoders(tmp_path / "run", encoders / "autoencoder", encoders / "language", ShardFolder(folder))
    trainer = denoiser(settings, folder, encoders)
    run(trainer, tmp_path / "run", checkpoint_every=1000)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    assert export(tmp_path / "run", tmp_path / "model") == 500
    prior = Prior.load(tmp_path / "model", device="cpu")
    prompts = ["a man with red skin"] * 4 + ["a man with green skin"] * 4
    pictures = sample(prior, prompts, torch.zeros(8, SIZE, SIZE, 3), torch.ones(8), steps=20, guidance=2.0)
    centre = pictures[:, 10:-10, 10:-10].mean((1, 2))
    assert (centre[:4, 0] > centre[:4, 1]).float().mean() >= 0.75, centre
    assert (centre[4:, 1] > centre[4:, 0]).float().mean() >= 0.75, centre
