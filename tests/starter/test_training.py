"""The training script on a tiny model: it learns, it resumes to the same bits, its files are whole."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from headstudio.errors import UserError
from headstudio.guidance.prior import Prior
from headstudio.starter.batches import BatchSettings, make_batch
from headstudio.starter.export import export
from headstudio.starter.networks import NetworkSettings
from headstudio.starter.shards import HELD_OUT, Shard, write_shard
from headstudio.starter.train import StarterSettings, Trainer, settings_from_json, train

TINY = StarterSettings(
    steps=4,
    small_steps=2,
    batch=2,
    small_batch=2,
    warm_up=2,
    precision="float32",
    networks=NetworkSettings(
        size=16,
        channels=(8, 16),
        text_levels=1,
        heads=2,
        groups=4,
        condition_channels=(4, 8),
        text_width=64,  # the pooling of the text has 64 heads
        text_layers=1,
    ),
)


def red_and_green(count: int, seed: int) -> Shard:
    """Plain squares that are red or green, as their captions say."""
    rng = np.random.default_rng(seed)
    pictures = np.zeros((count, 16, 16, 4), np.uint8)
    captions = []
    for row in range(count):
        red = rng.random() < 0.5
        pictures[row, 2:14, 2:14] = (220, 20, 20, 255) if red else (20, 200, 20, 255)
        captions.append("a man with red skin" if red else "a man with green skin")
    return Shard(pictures, np.zeros((count, 32, 32, 3), np.uint8), np.ones(count, np.float32), np.array(captions))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_shard(folder, HELD_OUT, red_and_green(16, 0))
    write_shard(folder, 1, red_and_green(32, 1))
    return folder


def _equal(first: Trainer, second: Trainer) -> None:
    assert first.step == second.step
    for table in ("weights", "averages", "first", "second"):
        for name, value in getattr(first, table).items():
            assert torch.equal(value, getattr(second, table)[name]), (table, name)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(data, tmp_path):
    whole = train(data, tmp_path / "whole", TINY, checkpoint_every=2, report_every=1)
    train(data, tmp_path / "parts", replace(TINY, steps=3), checkpoint_every=1)
    # The length of the run decides the learning rate's fall: the first three steps must not have seen it
    resumed = train(data, tmp_path / "parts", TINY)
    assert whole.step == 4
    flat = replace(TINY, fall=0.0)
    straight = train(data, tmp_path / "straight", flat)
    train(data, tmp_path / "again", replace(flat, steps=3))
    _equal(straight, train(data, tmp_path / "again", flat))
    assert resumed.step == 4


def test_log_and_checkpoints(data, tmp_path):
    train(data, tmp_path / "run", TINY, checkpoint_every=2, report_every=1)
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if "loss" in entry] == [1, 2, 3, 4]
    assert [entry["step"] for entry in entries if "held_out_loss" in entry] == [2, 4]
    assert all(np.isfinite(entry["loss"]) for entry in entries if "loss" in entry)
    folders = sorted(path.name for path in (tmp_path / "run" / "checkpoint").iterdir())
    assert folders == ["step-00000002", "step-00000004"]


def test_a_damaged_checkpoint_is_skipped(data, tmp_path, capsys):
    train(data, tmp_path / "run", TINY, checkpoint_every=2)
    (tmp_path / "run" / "checkpoint" / "step-00000004" / "tensors.safetensors").write_bytes(b"cut off")
    trainer = train(data, tmp_path / "run", replace(TINY, steps=2))
    assert trainer.step == 2
    assert "damaged" in capsys.readouterr().out


def test_checkpoints_of_other_networks_are_refused(data, tmp_path):
    train(data, tmp_path / "run", TINY)
    other = replace(TINY, networks=replace(TINY.networks, channels=(8, 24)))
    with pytest.raises(UserError, match="other networks"):
        train(data, tmp_path / "run", other)


def test_settings_survive_json(data, tmp_path):
    train(data, tmp_path / "run", TINY)
    from headstudio.train.checkpoint import load_checkpoint

    assert settings_from_json(load_checkpoint(tmp_path / "run" / "checkpoint", warn=print).state["settings"]) == TINY


def test_the_update_is_adam():
    trainer = Trainer(
        replace(TINY, warm_up=1, fall=0.0, text_rate=1.0, learning_rate=1e-2, batches=BatchSettings(0, 0, 0))
    )
    names = [name for name, _ in trainer._parameters()]
    reference = {name: torch.nn.Parameter(weight.clone()) for name, weight in trainer.weights.items()}
    optimiser = torch.optim.Adam(reference.values(), lr=1e-2, betas=(0.9, 0.99), eps=1e-8)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for name, parameter in trainer._parameters():
            gradient = torch.randn(parameter.shape, generator=generator) * 1e-4  # below the limit of the norm
            parameter.grad = gradient.clone()
            reference[name].grad = gradient
        trainer._update()
        trainer.step += 1
        optimiser.step()
    for name in names:
        torch.testing.assert_close(trainer.weights[name], reference[name].detach(), rtol=1e-4, atol=1e-6)


def test_a_perfect_prediction_has_no_loss(monkeypatch):
    """The networks' velocity is what ``Prior`` turns back into noise."""
    trainer = Trainer(TINY)
    batch = make_batch(red_and_green(4, 3), 16, BatchSettings(0, 0, 0), np.random.default_rng(0))
    seen = {}

    def predict(noisy, t, batch):
        alpha = trainer.alphas[t][:, None, None, None]
        noise = (noisy - alpha.sqrt() * batch.pixels) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * batch.pixels
        seen["noise"] = alpha.sqrt() * velocity + (1 - alpha).sqrt() * noisy - noise
        return velocity + seen.get("error", 0.0)

    monkeypatch.setattr(trainer, "predict", predict)
    assert trainer.loss(batch, np.random.default_rng(0)) < 1e-6
    assert seen["noise"].abs().max() < 1e-3
    seen["error"] = 0.1
    assert trainer.loss(batch, np.random.default_rng(0)) > 1e-4


def test_long_gradients_are_shortened():
    trainer = Trainer(replace(TINY, warm_up=1))
    for _, parameter in trainer._parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    trainer._update()
    norm = torch.sqrt(sum(first.square().sum() for first in trainer.first.values()))
    assert float(norm) == pytest.approx(0.1, rel=1e-3)  # a tenth of the unit gradient enters the average


def test_pictures_without_control_do_not_depend_on_the_map():
    trainer = Trainer(TINY)
    for weight in trainer.networks["controlnet"].parameters():  # zero convolutions would hide the difference
        weight.data += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    batch = make_batch(red_and_green(2, 3), 16, BatchSettings(0, 0, 0), np.random.default_rng(0))
    noisy, t = torch.zeros(2, 3, 16, 16), torch.tensor([500, 500])
    other = replace(batch, conditions=1 - batch.conditions)
    with torch.no_grad():
        assert (trainer.predict(noisy, t, batch) - trainer.predict(noisy, t, other)).abs().max() > 1e-4
        off = torch.zeros(2)
        same = trainer.predict(noisy, t, replace(batch, control=off)) - trainer.predict(
            noisy, t, replace(other, control=off)
        )
    assert same.abs().max() == 0


@pytest.mark.slow
def test_a_minute_of_training_tells_red_from_green(data, tmp_path):
    settings = replace(
        TINY, steps=300, small_steps=0, batch=8, learning_rate=3e-3, text_rate=1.0, average=0.95, fall=0.3
    )
    trainer = train(data, tmp_path / "run", settings, checkpoint_every=1000)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    assert export(tmp_path / "run", tmp_path / "model") == 300
    prior = Prior.load(tmp_path / "model", device="cpu")
    from headstudio.starter.samples import sample

    prompts = ["a man with red skin"] * 4 + ["a man with green skin"] * 4
    pictures = sample(prior, prompts, torch.zeros(8, 32, 32, 3), torch.ones(8), steps=20, guidance=2.0)
    centre = pictures[:, 5:11, 5:11].mean((1, 2))
    assert trainer.step == 300
    assert (centre[:4, 0] > centre[:4, 1]).float().mean() >= 0.75, centre
    assert (centre[4:, 1] > centre[4:, 0]).float().mean() >= 0.75, centre
