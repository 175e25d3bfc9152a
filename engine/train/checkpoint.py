"""Checkpoints: the whole state of a run on disk, never half-written.

``CHECKPOINT/step-00000100/`` holds ``tensors.safetensors`` and ``state.json``, which has the digest of both. A
checkpoint is written under another name, flushed to the disk and renamed; only then is the one before the previous one
removed. So there is always a complete one, and a second in case the first is damaged.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import UserError

FORMAT = 1
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """State after ``step`` steps."""

    step: int
    tensors: dict[str, Tensor]
    state: dict  # JSON values


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the checkpoint and removes all but the latest two.

    A full disk or an unwritable folder raises ``UserError``; the checkpoints that were there stay untouched.
    """
    target = folder / f"step-{checkpoint.step:08d}"
    partial = folder / f".partial-{target.name}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        # Serialised in memory, so that a full disk is an OSError here and not an abort in another language's library
        data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()})
        state = {"format": FORMAT, "step": checkpoint.step, "state": checkpoint.state}
        state["sha256"] = _digest(data, state)
        write_durably(partial / "tensors.safetensors", data)
        write_durably(partial / "state.json", json.dumps(state).encode())
        _flush_folder(partial)
        if target.exists():  # a damaged one of the same step, from before a restart
            shutil.rmtree(target)
        partial.rename(target)
        _flush_folder(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        last = _folders(folder)
        kept = f"The last good checkpoint is {last[0]}." if last else "There is no checkpoint yet."
        raise UserError(
            f"The checkpoint cannot be written to {folder}: {error.strerror or error}. {kept} "
            "Make room there and go on with --resume."
        ) from error
    for old in _folders(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The latest readable checkpoint, on the CPU; None where there is none at all.

    A damaged one is named in a warning and the one before it is taken. If all are damaged: ``UserError``.
    """
    folders = _folders(folder)
    for path in folders:
        try:
            state = json.loads((path / "state.json").read_bytes())
            if state["format"] != FORMAT:
                raise UserError(
                    f"The checkpoint {path} was written by another version of HeadStudio (format {state['format']}, "
                    f"this version reads {FORMAT}). Start again without --resume."
                )
            data = (path / "tensors.safetensors").read_bytes()
            if state.pop("sha256") != _digest(data, state):
                raise ValueError("its contents do not match their digest")
            return Checkpoint(int(state["step"]), safetensors.torch.load(data), state["state"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            warn(f"The checkpoint {path} is damaged ({error}); the one before it is used.")
    if folders:
        raise UserError(f"Every checkpoint in {folder} is damaged. Start again without --resume.")
    return None


def clear_checkpoints(folder: Path) -> None:
    """Removes the checkpoints of an earlier run: they must not be taken for this one's."""
    for path in [*_folders(folder), *folder.glob(".partial-step-*")]:
        shutil.rmtree(path)


def write_durably(path: Path, data: bytes) -> None:
    """Writes a new file and waits until the disk has it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _digest(tensors: bytes, state: dict) -> str:
    return hashlib.sha256(tensors + json.dumps(state, sort_keys=True).encode()).hexdigest()


def _folders(folder: Path) -> list[Path]:
    """Complete checkpoints, latest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def _flush_folder(folder: Path) -> None:
    """A rename is on the disk only once its folder is. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
