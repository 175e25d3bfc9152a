"""MP4 files from pictures, through PyAV's bundled FFmpeg."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from ..errors import UserError

# H.264 plays everywhere; some builds of FFmpeg lack an encoder for it, and MPEG-4 part 2 plays nearly everywhere
_CODECS = ("libx264", "libopenh264", "mpeg4")
_OPTIONS = {
    "libx264": {"crf": "17", "preset": "medium"},
    "libopenh264": {"b": "12M"},
    "mpeg4": {"q": "3", "qmin": "2", "qmax": "4"},
}


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],  # each [H, W, 3] uint8, display-referred sRGB, all of one size
    fps: float,
    codec: str | None = None,
) -> int:
    """Writes an MP4 (4:2:0, BT.709, ready to stream) and returns its number of frames.

    A side of odd length gets one more row or column, a copy of the last: the format wants even sides. ``codec`` is a
    name of FFmpeg's; default the best that is there. The file appears whole or not at all, also where ``frames`` raises
    (whose exception passes through). Raises ``UserError`` if it cannot be written, ``ValueError`` if there are no
    frames or one is no picture of the first one's size.
    """
    path = Path(path)
    codec = codec or next(name for name in _CODECS if name in av.codecs_available)
    # Not atomic_write: FFmpeg opens the file a second time to move its index to the front
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        count = _encode(temporary, frames, Fraction(fps).limit_denominator(1001), codec)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (av.error.FFmpegError, OSError) as error:
        reason = error.strerror or str(error)
        raise UserError(f"Cannot write {path}: {reason}. Choose another folder or free some space.") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # already gone when all went well
    return count


def _encode(path: Path, frames: Iterable[np.ndarray], fps: Fraction, codec: str) -> int:
    count, size, stream = 0, None, None
    # Opened before the first frame is made, so that an unwritable folder is known before the work is done
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        for picture in frames:
            if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
                raise ValueError(
                    f"a frame has shape {picture.shape} and type {picture.dtype}, expected [H, W, 3] uint8"
                )
            if stream is None:
                size = picture.shape
                stream = container.add_stream(codec, rate=fps, options=_OPTIONS.get(codec, {}))
                stream.height, stream.width = (side + side % 2 for side in size[:2])
                stream.pix_fmt = "yuv420p"
                context = stream.codec_context
                context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709
                context.color_range = ColorRange.MPEG
            elif picture.shape != size:
                raise ValueError(f"frame {count} has shape {picture.shape}, the first one {size}")
            padded = np.pad(picture, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(padded, "rgb24").reformat(
                format="yuv420p",
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
                dst_colorspace=Colorspace.ITU709,
            )
            frame.pts = count
            frame.time_base = 1 / fps
            container.mux(stream.encode(frame))
            count += 1
        if stream is None:
            raise ValueError("a video needs at least one frame")
        container.mux(stream.encode(None))
    return count
