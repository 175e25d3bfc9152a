"""MP4 files, read back by FFmpeg."""

from __future__ import annotations

import av
import numpy as np
import pytest
from headstudio.errors import UserError
from headstudio.export.video import write_video

CODECS = [name for name in ("libx264", "libopenh264", "mpeg4") if name in av.codecs_available]


def read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return stream, frames, float(stream.average_rate), float(stream.duration * stream.time_base)


def gradient(height, width, shift=0.0):
    y, x = np.mgrid[:height, :width] / max(height, width)
    return (255 * np.clip(np.stack([x, y, 0.5 + 0 * x], -1) + shift, 0, 1)).astype(np.uint8)


@pytest.mark.parametrize("codec", CODECS)
def test_frames_come_back(tmp_path, codec):
    pictures = [gradient(64, 96, 0.02 * i) for i in range(12)]
    assert write_video(tmp_path / "a.mp4", iter(pictures), 25, codec) == 12
    stream, frames, fps, seconds = read(tmp_path / "a.mp4")
    assert (len(frames), fps, seconds) == (12, 25, 12 / 25)
    assert stream.codec_context.pix_fmt == "yuv420p"
    for picture, frame in zip(pictures, frames, strict=True):
        assert np.abs(picture.astype(int) - frame).mean() < 3


@pytest.mark.parametrize("fps", [24, 30000 / 1001, 12.5])
def test_rate(tmp_path, fps):
    write_video(tmp_path / "a.mp4", [gradient(16, 16)] * 5, fps)
    assert read(tmp_path / "a.mp4")[2] == pytest.approx(fps, rel=1e-6)


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)])
def test_colours_survive_the_matrix(tmp_path, colour):
    """A wrong or unsaid matrix (BT.601 against BT.709) turns pure green by 20 levels and more."""
    write_video(tmp_path / "a.mp4", [np.full((720, 1280, 3), colour, np.uint8)] * 2, 25)
    stream, frames, *_ = read(tmp_path / "a.mp4")
    assert stream.codec_context.colorspace == 1
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
        plain = frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
    assert np.abs(plain.astype(int) - colour).max() <= 3
    assert np.abs(frames[1].astype(int) - colour).max() <= 3


@pytest.mark.parametrize(("height", "width"), [(33, 47), (64, 47), (33, 64), (1, 1)])
def test_odd_sides_are_padded(tmp_path, height, width):
    picture = gradient(height, width)
    write_video(tmp_path / "a.mp4", [picture] * 3, 10)
    frame = read(tmp_path / "a.mp4")[1][0]
    assert frame.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(frame[:height, :width].astype(int) - picture).mean() < 5


def test_the_index_stands_before_the_pictures(tmp_path):
    write_video(tmp_path / "a.mp4", [gradient(64, 64)] * 5, 10)
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_nothing_is_left_where_the_frames_end_badly(tmp_path):
    def frames():
        yield gradient(16, 16)
        raise KeyboardInterrupt

    (tmp_path / "a.mp4").write_bytes(b"the film before")
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", frames(), 10)
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "a.mp4", [], 10)
    with pytest.raises(ValueError, match="the first one"):
        write_video(tmp_path / "a.mp4", [gradient(16, 16), gradient(16, 18)], 10)
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))):
        with pytest.raises(ValueError, match="expected"):
            write_video(tmp_path / "a.mp4", [wrong], 10)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"the film before"


@pytest.mark.parametrize("place", ["missing/a.mp4", "folder.mp4"])
def test_unwritable_places(tmp_path, place):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UserError, match="Cannot write"):
        write_video(tmp_path / place, [gradient(16, 16)], 10)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.mp4"]
