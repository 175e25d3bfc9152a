"""Teaches the starter prior's text encoder its language: ``python -m headstudio.starter.language --out FOLDER``.

From captions alone, before there is any picture: the encoder learns to tell every attribute of the character that a
caption was written for. A denoiser that reads its embeddings then need not find out what words mean from pictures,
which takes it far longer than to learn what a beard looks like.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..guidance.prompts import VIEW_SUFFIXES
from ..train.checkpoint import Checkpoint, load_checkpoint
from . import vocabulary
from .batches import spoilt_caption
from .caption import caption
from .character import ROLES, Character, sample_character
from .learner import Learner, RunSettings, add_run_arguments, deadline, run, run_settings
from .networks import TextSettings, build_text_encoder
from .tokenizer import END, PADDING, START, TOKENS, build_tokenizer, check_words, token_words

MOODS = ("", *vocabulary.MOODS)


def _attributes() -> dict[str, tuple]:
    """What can be told from a caption, and the values that it may have."""
    flags = (False, True)
    return {
        "sex": ("man", "woman"),
        "age": ("young", "adult", "old"),
        "build": ("thin", "average", "fat"),
        "origin": ("european", "african", "asian"),
        "role": ("", *ROLES),
        "skin": tuple(vocabulary.SKIN),
        "hair": vocabulary.HAIR_STYLES,
        "hair_colour": tuple(vocabulary.HAIR),
        "beard": vocabulary.BEARDS,
        "beard_colour": tuple(vocabulary.HAIR),
        "eye_colour": tuple(vocabulary.EYES),
        "lips": ("", *vocabulary.LIPS),
        "headgear": vocabulary.HEADGEAR,
        "headgear_colour": tuple(vocabulary.COLOURS),
        "eyewear": vocabulary.EYEWEAR,
        "eyewear_colour": tuple(vocabulary.COLOURS),
        "ears": ("round", "pointed"),
        "horns": flags,
        "earrings": flags,
        "red_nose": flags,
        "freckles": flags,
        "mood": MOODS,
        "view": tuple(range(len(VIEW_SUFFIXES))),
        **{f"spoilt_{way}": flags for way in vocabulary.NEGATIVE_WORDS},
    }


ATTRIBUTES = _attributes()
_FIELDS = [field.name for field in fields(Character) if field.name in ATTRIBUTES]


@dataclass(frozen=True)
class LanguageRun(RunSettings):
    """Everything that decides the result, apart from the captions' own rules."""

    steps: int = 3000
    learning_rate: float = 2e-3
    average: float = 0.995
    precision: str = "float32"
    batch: int = 64
    thorough: float = 0.6
    spoilt: float = 0.06
    network: TextSettings = field(default_factory=TextSettings)

    @staticmethod
    def from_json(data: dict) -> LanguageRun:
        return LanguageRun(**{**data, "network": TextSettings(**data["network"])})


class Readings(nn.Module):
    """One linear layer per attribute on the mean over a sentence's tokens; only the training uses it."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in ATTRIBUTES.items()})

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:  # [B, T, D] -> [B, values of the attribute]
        mean = tokens.mean(1)
        return {name: layer(mean) for name, layer in self.layers.items()}


def sentences(
    count: int, rng: np.random.Generator, thorough: float, spoilt: float
) -> tuple[list[str], dict[str, Tensor]]:
    """Captions of random characters, and of each the row of its value in ``ATTRIBUTES`` [B] int64."""
    texts, rows = [], {name: [] for name in ATTRIBUTES}
    for _ in range(count):
        character = sample_character(rng)
        mood = MOODS[rng.integers(1, len(MOODS))] if rng.random() < 0.3 else ""
        view = int(rng.integers(len(VIEW_SUFFIXES)))
        text = caption(character, mood, view, rng, thorough=rng.random() < thorough)
        ways: list[str] = []
        if rng.random() < spoilt:
            ways = list(rng.choice(list(vocabulary.NEGATIVE_WORDS), int(rng.integers(1, 4)), replace=False))
            text = spoilt_caption(text, ways, rng)
        texts.append(text)
        told = {name: getattr(character, name) for name in _FIELDS} | {"mood": mood, "view": view}
        told |= {f"spoilt_{way}": way in ways for way in vocabulary.NEGATIVE_WORDS}
        for name, values in ATTRIBUTES.items():
            rows[name].append(values.index(told[name]))
    return texts, {name: torch.tensor(value) for name, value in rows.items()}


class LanguageTrainer:
    """A ``learner.Trainer``."""

    def __init__(self, settings: LanguageRun):
        self.settings = settings
        self.tokenizer = build_tokenizer()
        self.learner = Learner(self._build, settings)

    def _build(self) -> dict[str, nn.Module]:
        start, end, padding = self.tokenizer.convert_tokens_to_ids([START, END, PADDING])
        special = {"start": start, "end": end, "padding": padding}
        settings = self.settings
        encoder = build_text_encoder(settings.network, len(self.tokenizer), TOKENS, special, settings.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            return {"text_encoder": encoder, "readings": Readings(settings.network.width)}

    def train_step(self) -> float:
        settings = self.settings
        rng = np.random.default_rng([settings.seed, 6, self.learner.step])
        texts, rows = sentences(settings.batch, rng, settings.thorough, settings.spoilt)
        read = self._read(self.learner.networks, texts)
        loss = sum(F.cross_entropy(read[name], rows[name]) for name in ATTRIBUTES) / len(ATTRIBUTES)
        loss.backward()
        self.learner.update()
        return float(loss.detach())

    def _read(self, networks: dict[str, nn.Module], texts: list[str]) -> dict[str, Tensor]:
        tokens = self.tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
        return networks["readings"](networks["text_encoder"](tokens.input_ids).last_hidden_state)

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Share of thorough captions of which each attribute is told rightly, said or not; and their mean."""
        texts, rows = sentences(256, np.random.default_rng([self.settings.seed, 7]), thorough=1.0, spoilt=0.0)
        read = self._read(self.learner.averaged_networks(), texts)
        right = {name: float((read[name].argmax(1) == rows[name]).float().mean()) for name in ATTRIBUTES}
        return {**right, "mean": float(np.mean(list(right.values())))}

    def checkpoint(self) -> Checkpoint:
        return self.learner.checkpoint({"settings": asdict(self.settings), "words": list(token_words())})

    def restore(self, checkpoint: Checkpoint) -> None:
        check_words(checkpoint.state["words"], of="The text encoder")
        self.learner.restore(checkpoint)

    def refresh(self) -> None:
        """There is nothing to take in: captions are made as they are read."""


def taught_text_encoder(run_folder: Path) -> nn.Module:
    """The text encoder of the run's latest checkpoint. Raises ``UserError`` if there is none or its words differ."""
    checkpoint = load_checkpoint(run_folder / "checkpoint", warn=print)
    if checkpoint is None:
        raise UserError(f"There is no text encoder in {run_folder}: teach one first, with headstudio.starter.language.")
    trainer = LanguageTrainer(LanguageRun.from_json(checkpoint.state["settings"]))
    trainer.restore(checkpoint)
    return trainer.learner.averaged_networks()["text_encoder"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser, LanguageRun())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run(LanguageTrainer(LanguageRun(**run_settings(arguments))), arguments.out, until=deadline(arguments))


if __name__ == "__main__":
    main()
