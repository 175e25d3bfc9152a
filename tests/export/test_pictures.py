"""Pictures and sheets of an avatar."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from headstudio.avatar.splats import SplatArrays
from headstudio.errors import UserError
from headstudio.export.pictures import VIEWS, Stage, check_size, draw, write_png
from headstudio.export.sheets import contact_sheet
from headstudio.gaussians import Gaussians
from headstudio.rasterise import rasterise
from support.painted_avatar import painted_avatar, shared_default_head

SIZE = 96


@pytest.fixture(scope="module")
def stage():
    """The subject's left ear is green, the right one red, the scalp blue."""
    return Stage(
        painted_avatar(
            {
                "ear_left": (0, 255, 0),
                "ear_right": (255, 0, 0),
                "scalp": (0, 0, 255),
                "mouth": (0, 0, 0),
                "lips": (99, 0, 0),
            }
        )
    )


def share(picture, channel):
    """Pixels of one pure colour."""
    others = [c for c in range(3) if c != channel]
    return (picture[..., channel] > 2 * picture[..., others].max(-1).astype(int) + 30).mean()


def test_views_are_named_for_the_subjects_sides(stage):
    pictures = {name: draw(stage.pose(), stage.camera(azimuth, SIZE)) for name, azimuth in VIEWS.items()}
    green, red = ({name: share(p, channel) for name, p in pictures.items()} for channel in (1, 0))
    assert green["left"] > 0.01 > 0.001 > red["left"]
    assert red["right"] > 0.01 > 0.001 > green["right"]
    assert share(pictures["back"], 2) > 2 * share(pictures["front"], 2) > 0
    assert green["three-quarter"] > red["three-quarter"]


def test_the_avatar_is_whole_in_every_view(stage):
    for azimuth in VIEWS.values():
        for size in (SIZE, (SIZE, 2 * SIZE), (2 * SIZE, SIZE)):
            picture = draw(stage.pose(), stage.camera(azimuth, size, 10.0))
            border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
            assert (border > 250).all()
            covered = np.argwhere((picture < 250).any(-1))
            assert np.ptp(covered, axis=0).max() / min(picture.shape[:2]) > 0.6


def test_a_stray_splat_does_not_move_the_camera():
    avatar = painted_avatar({})
    stage = Stage(avatar)
    offset = avatar.splats.offset.copy()
    offset[0] = 1000.0
    stray = Stage(type(avatar)(avatar.head, SplatArrays(**(vars(avatar.splats) | {"offset": offset}))))
    assert stray.radius == pytest.approx(stage.radius, rel=0.02)
    assert np.abs(stray.centre - stage.centre).max() < 0.005


def test_pose_moves_the_picture(stage):
    head = stage.arrays
    closed, opened = (draw(stage.pose(*head.drive({"jawOpen": v})), stage.camera(0, SIZE)) for v in (0.0, 1.0))
    changed = np.abs(closed.astype(int) - opened).max(-1) > 30
    assert changed.sum() > 20
    assert not changed[: SIZE // 3].any()  # the forehead stays


def test_background_and_transparency_agree(stage):
    """Straight alpha, composited by hand over a colour, is the picture over that colour."""
    gaussians, camera = stage.pose(), stage.camera(20, SIZE)
    clear = draw(gaussians, camera, None).astype(float) / 255
    colour = (0.2, 0.5, 0.9)
    solid = draw(gaussians, camera, colour).astype(float) / 255
    composited = clear[..., :3] * clear[..., 3:] + np.array(colour) * (1 - clear[..., 3:])
    assert clear.shape == (SIZE, SIZE, 4)
    assert np.abs(composited - solid).max() < 1.6 / 255
    assert (clear[0, 0] == 0).all()


def test_samples_are_the_mean_of_a_finer_picture(stage):
    gaussians, camera = stage.pose(), stage.camera(0, 32)
    fine = rasterise(gaussians, camera.resized(96, 96), background=torch.ones(3)).colour.clamp(0, 1).numpy()
    expected = fine.reshape(32, 3, 32, 3, 3).mean((1, 3)) * 255
    assert np.abs(draw(gaussians, camera, samples=3) - expected).max() <= 0.501


def test_colours_beyond_white_are_clamped():
    bright = Gaussians(
        torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 1.0), torch.ones(1),
        torch.full((1, 1, 3), 20.0),
    )  # fmt: skip
    camera = Stage(painted_avatar({})).camera(0, 8)
    assert (draw(bright, camera, (0.0, 0.0, 0.0)) == 255).all()
    assert draw(bright, camera, None)[..., :3].min() == 255


def test_an_avatar_without_splats_is_background():
    avatar = painted_avatar({})
    empty = SplatArrays(**{name: array[:0] for name, array in vars(avatar.splats).items()})
    stage = Stage(type(avatar)(shared_default_head(), empty))
    assert (draw(stage.pose(), stage.camera(0, 16), (1.0, 0.0, 0.0)) == [255, 0, 0]).all()


@pytest.mark.parametrize(("size", "samples"), [((0, 5), 1), ((5, -1), 1), ((5, 5), 0), ((9000, 5), 1), ((5, 5000), 2)])
def test_sizes_that_are_none(size, samples):
    with pytest.raises(UserError, match=r"cannot be drawn|too large"):
        check_size(*size, samples)


@pytest.mark.parametrize("channels", [3, 4])
def test_png_comes_back(tmp_path, channels):
    picture = np.random.default_rng(0).integers(0, 256, (7, 9, channels)).astype(np.uint8)
    write_png(tmp_path / "a.png", picture)
    order = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGBA
    assert (cv2.cvtColor(cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED), order) == picture).all()
    with pytest.raises(UserError, match="Cannot write"):
        write_png(tmp_path / "missing" / "a.png", picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(("count", "columns"), [(1, None), (5, None), (5, 2), (3, 10)])
def test_sheets_hold_every_picture_where_it_belongs(count, columns):
    pictures = {f"picture {i}": np.full((120, 90, 3), 20 * i, np.uint8) for i in range(count)}
    sheet = contact_sheet(pictures, columns, background=(250, 250, 250))
    across = sheet.shape[1] // 90
    assert across == min(count, columns or across)
    strip = sheet.shape[0] // -(-count // across) - 120
    for i in range(count):
        y, x = i // across * (120 + strip), i % across * 90
        assert (sheet[y : y + 120, x : x + 90] == 20 * i).all()
        label = sheet[y + 120 : y + 120 + strip, x : x + 90]
        assert label.min() < 120  # ink
        assert (label[:, 0] == 250).all()  # that stays within its box
        assert (label[:, -1] == 250).all()


@pytest.mark.parametrize(("background", "dark_ink"), [((255, 255, 255), True), ((0, 0, 0), False)])
def test_labels_stand_out(background, dark_ink):
    sheet = contact_sheet({"a": np.zeros((64, 64, 3), np.uint8)}, background=background)
    strip = sheet[64:].astype(int)
    assert abs(strip - np.array(background)).max() > 150
    assert (strip.mean() > 128) == dark_ink
