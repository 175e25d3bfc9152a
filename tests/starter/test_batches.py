"""Shards and what training does to their pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from headstudio.camera import orbit
from headstudio.condition.landmarks import landmark_points
from headstudio.condition.picture import condition_image
from headstudio.errors import UserError
from headstudio.heads.default_head import default_head
from headstudio.heads.head import Head
from headstudio.starter.batches import (
    BatchSettings,
    irises,
    make_batch,
    make_pictures,
    mirrored,
    on_background,
    spoil,
    spoilt_caption,
)
from headstudio.starter.character import Character, sample_character
from headstudio.starter.shards import HELD_OUT, Shard, ShardFolder, read_shard, write_shard
from headstudio.starter.tokenizer import token_words
from headstudio.starter.vocabulary import NEGATIVE_WORDS, words_of


def random_shard(count: int = 6, size: int = 16, seed: int = 0) -> Shard:
    rng = np.random.default_rng(seed)
    return Shard(
        pictures=rng.integers(0, 256, (count, size, size, 4), dtype=np.uint8),
        conditions=rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        characters=np.array([Character(seed=100 * seed + row, skin="red").to_json() for row in range(count)]),
        moods=np.array(["", "smiling"] * count)[:count],
        views=rng.integers(0, 3, count),
    )


def test_shards_survive_their_file(tmp_path):
    shard = random_shard()
    again = read_shard(write_shard(tmp_path, 3, shard))
    for name in vars(shard):
        np.testing.assert_array_equal(getattr(again, name), getattr(shard, name))


def test_folder_takes_in_new_shards_and_never_the_held_out_one(tmp_path):
    write_shard(tmp_path, HELD_OUT, random_shard(seed=9))
    with pytest.raises(UserError, match="no training pictures"):
        ShardFolder(tmp_path)
    write_shard(tmp_path, 2, random_shard(4, seed=2))
    folder = ShardFolder(tmp_path)
    assert len(folder) == 4
    write_shard(tmp_path, 1, random_shard(3, seed=1))
    folder.refresh()
    assert len(folder) == 7
    seeds = [Character.from_json(text).seed for text in folder.rows(np.arange(7)).characters]
    # In the order of their numbers, whatever order they came in
    assert seeds == [100, 101, 102, 200, 201, 202, 203]
    assert folder.held_out is not None
    assert Character.from_json(folder.held_out.characters[0]).seed == 900


def test_characters_survive_json():
    character = sample_character(np.random.default_rng(3))
    assert Character.from_json(character.to_json()) == character


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_damaged_shards_are_named(tmp_path, damage):
    path = write_shard(tmp_path, 1, random_shard())
    path.write_bytes(path.read_bytes()[:-400] if damage is None else damage)
    with pytest.raises(UserError, match=r"shard-00001\.npz"):
        ShardFolder(tmp_path)


def test_background_shows_where_nothing_is():
    picture = np.zeros((2, 2, 4), np.uint8)
    picture[0, 0] = (255, 0, 0, 255)
    picture[0, 1] = (0, 64, 0, 128)  # half covered by a half bright green, over black
    colour = np.array([0.2, 0.4, 0.8], np.float32)
    result = on_background(picture, colour)
    np.testing.assert_allclose(result[0, 0], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(result[0, 1], [0.2 * 127 / 255, 64 / 255 + 0.4 * 127 / 255, 0.8 * 127 / 255], atol=1e-6)
    np.testing.assert_allclose(result[1, 1], colour, atol=1e-6)


def test_mirrored_map_is_the_map_of_the_mirrored_face():
    arrays = default_head()
    head = Head(arrays)

    def landmark_map(smile_left: float, smile_right: float, azimuth: float) -> np.ndarray:
        sliders = torch.zeros(1, len(arrays.controls.names))
        sliders[0, arrays.controls.names.index("mouthSmileLeft")] = smile_left
        sliders[0, arrays.controls.names.index("mouthSmileRight")] = smile_right
        vertices = head(*head.drive(sliders))
        camera = orbit([azimuth], 0.0, 0.45, 45.0, 128, torch.as_tensor(arrays.centre).float())
        return condition_image(arrays, vertices, camera, 128)[0][0].numpy()

    picture = np.zeros((64, 64, 3), np.float32)
    _, flipped = mirrored(picture, landmark_map(1.0, 0.0, 20.0))
    expected = landmark_map(0.0, 1.0, -20.0)

    def blur(image):
        return cv2.GaussianBlur(image, (0, 0), 1.5)

    difference = np.abs(blur(flipped) - blur(expected)).mean()
    # Without the exchange of colours, or not mirrored at all, the maps differ several times as much
    assert difference < 0.4 * np.abs(blur(flipped[..., ::-1]) - blur(expected)).mean()
    assert difference < 0.2 * np.abs(blur(flipped[:, ::-1]) - blur(expected)).mean()


@pytest.mark.parametrize("way", sorted(NEGATIVE_WORDS))
def test_spoilt_pictures_are_worse_and_say_so(way):
    y, x = np.mgrid[:64, :64] / 64
    sharp = np.stack([np.sin(20 * x) > 0, np.cos(26 * y) > 0, x > y], -1).astype(np.float32)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        picture = spoil(sharp, [way], rng)
        caption = spoilt_caption("a man", [way], rng)
        assert picture.shape == sharp.shape
        assert picture.min() >= 0
        assert picture.max() <= 1
        assert np.abs(picture - sharp).mean() > 0.02
        assert any(caption.startswith(words) for words in NEGATIVE_WORDS[way])
        assert set(words_of(caption)) - {"a", "of"} <= set(token_words())


def test_batches_are_what_their_settings_say():
    rows = random_shard(64)
    rng = np.random.default_rng(1)
    batch = make_batch(rows, 16, BatchSettings(text_dropped=0.0, control_dropped=0.0, spoilt=0.0), rng)
    # Whoever is in the picture and whatever else was said of him
    assert np.mean(["red skin" in caption for caption in batch.captions]) > 0.6
    assert all("man" in caption or "person" in caption for caption in batch.captions)
    assert not any("smiling" in caption for caption in batch.captions[::2])
    assert any("smiling" in caption for caption in batch.captions[1::2])
    assert batch.pixels.shape == batch.conditions.shape == (64, 3, 16, 16)
    assert batch.pixels.min() >= -1
    assert 0.8 <= batch.control.min() < 0.9
    assert 1.3 < batch.control.max() <= 1.4
    dropped = make_batch(rows, 16, BatchSettings(text_dropped=1.0, control_dropped=1.0), rng)
    assert set(dropped.captions) == {""}
    assert not dropped.control.any()


def test_pixels_alone_are_in_range_and_vary():
    shard = random_shard()
    shard.pictures[..., 3] = 255  # colours are over black: where they are not covered they would be too bright
    (first, maps), (second, _) = (make_pictures(shard, BatchSettings(), np.random.default_rng(seed)) for seed in (1, 2))
    assert first.shape == maps.shape == (6, 3, 16, 16)
    assert first.abs().max() <= 1
    assert (maps.min(), maps.max()) >= (0, 0.9)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("azimuth", [0.0, 25.0, -40.0])
def test_irises_are_where_the_head_has_them(azimuth):
    arrays = default_head()
    head = Head(arrays)
    vertices = head(*head.drive(torch.zeros(1, len(arrays.controls.names))))
    camera = orbit([azimuth], 0.0, 0.45, 45.0, 128, torch.as_tensor(arrays.centre).float())
    maps = condition_image(arrays, vertices, camera, 128)[0].permute(0, 3, 1, 2)
    points, _ = camera.project(landmark_points(arrays, vertices))
    rows = [arrays.landmarks.indices.tolist().index(index) for index in (468, 473)]
    expected = np.zeros((128, 128), np.uint8)
    for x, y in points[0, rows].round().int().tolist():
        expected[y, x] = 1
    shown = irises(maps)[0, 0].numpy().astype(np.uint8)
    assert 15 <= shown.sum() <= 40  # two irises of three or four pixels' side
    assert (shown >= expected).all()
    assert (shown <= cv2.dilate(expected, np.ones((7, 7), np.uint8))).all()
    mirror = mirrored(np.zeros((128, 128, 3), np.float32), maps[0].permute(1, 2, 0).numpy())[1]
    flipped = irises(torch.from_numpy(mirror).permute(2, 0, 1)[None])[0, 0].numpy()
    assert (flipped == shown[:, ::-1]).all()


def test_half_size_batches_are_means_of_four():
    rows = random_shard(1)
    settings = BatchSettings(0.0, 0.0, 0.0)
    large = make_batch(rows, 16, settings, np.random.default_rng(4))
    small = make_batch(rows, 8, settings, np.random.default_rng(4))
    torch.testing.assert_close(small.pixels, torch.nn.functional.avg_pool2d(large.pixels, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(small.conditions, torch.nn.functional.avg_pool2d(large.conditions, 2), atol=1e-5, rtol=0)


def test_the_same_random_numbers_make_the_same_batch():
    first, second = (make_batch(random_shard(), 16, BatchSettings(), np.random.default_rng(8)) for _ in range(2))
    assert first.captions == second.captions
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.control, second.control)
