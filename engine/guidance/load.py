"""Reads the parts of a prior from a diffusers folder: safetensors only, checked before and after loading.

A weight that a file lacks would otherwise be left at random, and a damaged file would end in a library's traceback.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import UserError

_PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def read_config(path: Path) -> dict:
    """A JSON object of the prior's folder. Missing or damaged raises ``UserError``."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: this is not a complete diffusers folder.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it is not valid JSON. Download the prior again.") from error
    if not isinstance(config, dict) or not config:
        raise UserError(f"{path} is damaged: it holds no settings. Download the prior again.")
    return config


def weight_files(folder: Path, stem: str) -> tuple[list[Path], str | None]:
    """The safetensors files of one part, each with an intact header, and the diffusers variant ("fp16" or None)."""
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: this is not a complete diffusers folder.")
    for variant in (None, "fp16"):
        middle = f".{variant}" if variant else ""
        single = folder / f"{stem}{middle}.safetensors"
        index = folder / f"{stem}.safetensors.index{middle}.json"
        if single.is_file():
            files = [single]
        elif index.is_file():
            files = _shards(index)
        else:
            continue
        for file in files:
            _check(file)
        return files, variant
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
    if pickled:
        raise UserError(
            f"{folder} holds only pickled weights ({pickled[0]}), which can run code when they are opened. "
            f"HeadStudio reads {stem}.safetensors: download that file, or convert the model with diffusers."
        )
    raise UserError(f"{folder / (stem + '.safetensors')} is missing: download the prior again.")


def _shards(index: Path) -> list[Path]:
    table = read_config(index).get("weight_map")
    names = set(table.values()) if isinstance(table, dict) else set()
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise UserError(f"{index} is damaged: it names no weight files. Download the prior again.")
    return [index.parent / name for name in sorted(names)]


def _check(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except FileNotFoundError as error:
        raise UserError(f"{file} is missing: download the prior again.") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}): download it again.") from error


def load_diffusers(model_class: type, folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """A diffusers model of ``model_class`` from its own folder (config.json and weights)."""
    read_config(folder / "config.json")
    files, variant = weight_files(folder, "diffusion_pytorch_model")
    return _load(model_class, folder, files, {"torch_dtype": dtype, "variant": variant, "low_cpu_mem_usage": True})


def load_transformers(model_class: type, folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """A transformers model of ``model_class`` from its own folder (config.json and weights)."""
    read_config(folder / "config.json")
    files, variant = weight_files(folder, "model")
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar per part of the prior would only disturb the caller's own
    try:
        return _load(model_class, folder, files, {"dtype": dtype, "variant": variant})
    finally:
        if bars:
            logging.enable_progress_bar()


def _load(model_class: type, folder: Path, files: list[Path], options: dict) -> torch.nn.Module:
    try:
        model, report = model_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, NotImplementedError, SafetensorError) as error:
        raise UserError(f"{files[0]} does not fit {folder / 'config.json'}: {_first_line(error)}") from error
    for problem in ("missing_keys", "mismatched_keys"):
        if report.get(problem):
            key = min(str(key) for key in report[problem])
            raise UserError(
                f"{files[0]} does not fit {folder / 'config.json'}: the weight {key} is missing or another size."
            )
    return model


def load_tokenizer(folder: Path):
    """The tokenizer of the text encoder."""
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise UserError(f"{folder} is missing: this is not a complete diffusers folder.")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
        raise UserError(f"{folder} holds no readable tokenizer: {_first_line(error)}") from error


def read_vocabulary(path: Path) -> frozenset[str] | None:
    """The words that the prior knows, from its vocabulary.json (a JSON list of words); None if it has none."""
    if not path.exists():
        return None
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it is not valid JSON.") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError(f"{path} must be a JSON list of words.")
    return frozenset(word.lower() for word in words)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
