"""Reading and writing of ``.npz`` archives that may come from anywhere (numpy and the standard library only).

``np.load`` would allocate whatever a header asks for, and reports damage as any of a dozen exceptions. Here every
member is checked before it is unpacked, every fault is a ``UserError`` with the file's name, and nothing is unpickled.
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np

from ..errors import UserError
from .atomic import atomic_write

MAX_BYTES = 1 << 30  # unpacked, all members together: fifty times the largest avatar that we know how to make
_KINDS = "biufU"  # booleans, integers, floats and text; never objects


def write_archive(path: str | os.PathLike[str], arrays: dict[str, np.ndarray]) -> None:
    """Writes a deflated ``.npz`` atomically. The same arrays give the same bytes: no dates are stored."""
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
            archive.writestr(member, buffer.getvalue())


def read_archive(path: str | os.PathLike[str], what: str) -> dict[str, np.ndarray]:
    """All arrays of a ``.npz``; ``what`` names the kind of file in messages ("avatar file").

    Raises ``UserError`` if the file is missing, unreadable, damaged, or unpacks to more than ``MAX_BYTES``.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, not an {what}.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > MAX_BYTES:
                raise UserError(f"{path} unpacks to more than {MAX_BYTES >> 30} GiB: this is not an {what} of ours.")
            return {_name(member): _read_member(archive, member) for member in members}
    except FileNotFoundError as error:
        raise UserError(f"There is no {what} at {path}.") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and numpy's header parser report damage as a dozen unrelated classes
        raise UserError(f"{path} is damaged or not an {what}: {error}. Take another copy or make it anew.") from error


def _name(member: zipfile.ZipInfo) -> str:
    if not member.filename.endswith(".npy"):
        raise ValueError(f"it holds {member.filename[:80]!r}, which is no array")
    return member.filename.removesuffix(".npy")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    # zipfile stops at the declared size, whose sum is bounded, and compares the checksum when it gets there
    data = archive.read(member)
    buffer = io.BytesIO(data)
    version = np.lib.format.read_magic(buffer)
    if version != (1, 0):
        raise ValueError(f"{member.filename} has numpy's format {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    if dtype.kind not in _KINDS or dtype.hasobject or dtype.names:
        raise ValueError(f"{member.filename} holds {dtype}")
    if any(side < 0 for side in shape):
        raise ValueError(f"{member.filename} has shape {shape}")
    size = dtype.itemsize
    for side in shape:
        size *= side
    if size != len(data) - buffer.tell():
        raise ValueError(f"{member.filename} is not as long as its shape {shape} says")
    array = np.frombuffer(data, dtype, offset=buffer.tell()) if size else np.empty(0, dtype)
    return array.reshape(shape, order="F" if fortran else "C")
