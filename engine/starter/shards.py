"""Shards: training pictures on disk, a few hundred to a file, each with its caption and landmark map."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..avatar.atomic import atomic_write
from ..errors import UserError

HELD_OUT = 0
"""The shard that training never sees: the loss on it is the figure to watch."""


@dataclass(frozen=True)
class Shard:
    """K pictures of S x S pixels, and who is in them.

    Background and caption are left out, so that training can put another one behind each, and say it in other words.
    """

    pictures: np.ndarray  # [K, S, S, 4] uint8: sRGB over black, and coverage
    conditions: np.ndarray  # [K, S, S, 3] uint8: landmark maps from all sides (``draw_all_round_map``)
    characters: np.ndarray  # [K] str: ``Character.to_json``
    moods: np.ndarray  # [K] str: a key of ``vocabulary.MOODS`` or ""
    views: np.ndarray  # [K] int64: row of ``VIEW_SUFFIXES``

    def __post_init__(self) -> None:
        k, size = self.pictures.shape[:2]
        assert self.pictures.shape == (k, size, size, 4), self.pictures.shape
        assert self.conditions.shape == (k, size, size, 3), self.conditions.shape
        for column in (self.characters, self.moods, self.views):
            assert column.shape == (k,), column.shape

    def __len__(self) -> int:
        return len(self.pictures)

    def rows(self, indices: np.ndarray) -> Shard:  # [B]
        return Shard(**{field.name: getattr(self, field.name)[indices] for field in fields(Shard)})


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.npz"


def write_shard(folder: Path, number: int, shard: Shard) -> Path:
    """Writes one shard whole or not at all: a trainer may be reading the folder."""
    path = shard_path(folder, number)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{field.name: getattr(shard, field.name) for field in fields(Shard)})
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
    return path


def read_shard(path: Path) -> Shard:
    """Raises ``UserError`` for a file that is no shard."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Shard(**{field.name: arrays[field.name] for field in fields(Shard)})
    except (OSError, EOFError, BadZipFile, ValueError, KeyError, AssertionError) as error:
        raise UserError(f"{path} is no shard of training pictures ({error}): delete it and make it again.") from error


class ShardFolder:
    """All training shards of a folder, held in memory; ``refresh`` takes in those that have come since.

    ``held_out`` is the shard that training never sees, if it is there.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        path = shard_path(folder, HELD_OUT)
        self.held_out = read_shard(path) if path.exists() else None
        self._read: dict[str, Shard] = {}
        self.refresh()

    def refresh(self) -> None:
        held_out = shard_path(self.folder, HELD_OUT).name
        for path in sorted(self.folder.glob("shard-*.npz")):
            if path.name not in self._read and path.name != held_out:
                self._read[path.name] = read_shard(path)
        shards = [self._read[name] for name in sorted(self._read)]
        if not shards:
            raise UserError(
                f"There are no training pictures in {self.folder}: make some with headstudio.starter.dataset."
            )
        self._shards = shards
        self._ends = np.cumsum([len(shard) for shard in shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def rows(self, indices: np.ndarray) -> Shard:
        """The pictures at ``indices`` [B] as one shard."""
        parts = []
        for index in indices:
            place = int(np.searchsorted(self._ends, index, side="right"))
            parts.append((self._shards[place], int(index) - int(self._ends[place] - len(self._shards[place]))))
        return Shard(**{f.name: np.stack([getattr(shard, f.name)[row] for shard, row in parts]) for f in fields(Shard)})
