"""Writes the trained model as an ordinary diffusers folder: ``python -m headstudio.starter.export --run FOLDER``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from ..avatar.atomic import atomic_write
from ..errors import UserError
from ..train.checkpoint import load_checkpoint
from . import model_folder
from .learner import Learner
from .networks import build_denoiser, noise_scheduler
from .tokenizer import build_tokenizer, check_words, known_words
from .train import StarterSettings, load_encoders

_CLASSES = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "controlnet": ["diffusers", "ControlNetModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "vae": ["diffusers", "AutoencoderTiny"],
}


def export(run: Path, folder: Path) -> int:
    """Writes the averaged weights of the run's latest checkpoint in half precision; returns its step."""
    checkpoint = load_checkpoint(run / "checkpoint", warn=print)
    if checkpoint is None:
        raise UserError(f"There is no checkpoint in {run / 'checkpoint'}: train first, with headstudio.starter.train.")
    check_words(checkpoint.state["words"], of=str(run))
    settings = StarterSettings.from_json(checkpoint.state["settings"])
    learner = Learner(lambda: build_denoiser(settings.networks, settings.seed), settings)
    learner.restore(checkpoint)
    vae, text_encoder = load_encoders(run)
    networks = {**learner.averaged_networks(), "vae": vae, "text_encoder": text_encoder}
    for name, network in networks.items():
        network.to(torch.float16).save_pretrained(folder / name)
    build_tokenizer().save_pretrained(folder / "tokenizer")
    noise_scheduler().save_pretrained(folder / "scheduler")
    _write_json(
        folder / "model_index.json",
        {"_class_name": "StableDiffusionControlNetPipeline", "all_round_landmark_maps": True, **_CLASSES},
    )
    _write_json(folder / "vocabulary.json", known_words())
    return checkpoint.step


def _write_json(path: Path, value) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder that headstudio.starter.train wrote")
    parser.add_argument("--out", type=Path, default=model_folder(), help="default: the package's own model")
    arguments = parser.parse_args()
    print(f"Step {export(arguments.run, arguments.out)} written to {arguments.out}")


if __name__ == "__main__":
    main()
