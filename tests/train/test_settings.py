import json
from dataclasses import fields, replace

import pytest
from headstudio.errors import UserError
from headstudio.train.cameras import CameraRanges
from headstudio.train.settings import PRESETS, TrainSettings, get_preset, settings_help


def test_paper_preset_holds_the_papers_numbers():
    paper = get_preset("paper")
    assert (paper.splats_per_triangle, paper.steps, paper.views, paper.render_size) == (10, 10_000, 8, 1024)
    assert (paper.lr_offset, paper.lr_scale, paper.lr_rotation) == (5e-5, 1e-3, 1e-2)
    assert (paper.lr_colour, paper.lr_opacity, paper.lr_shape) == (1.25e-2, 1e-2, 1e-3)
    assert (paper.beta1, paper.beta2, paper.shape_freeze) == (0.9, 0.99, 0.8)
    assert (paper.strategy, paper.guidance_scale, paper.negative_scale) == ("nfsd", 7.5, 1.0)
    assert (paper.position_weight, paper.scale_weight) == (0.1, 0.1)
    assert paper.cameras == CameraRanges((1.5, 2.0), (40, 70), (-30, 30), (-180, 180))


def test_paper_preset_keeps_the_published_schedule():
    """Where the paper is silent: steps of the published code, as fractions of its 10,000."""
    paper = get_preset("paper")
    assert [round(10_000 * f) for f in (paper.densify_from, paper.densify_until, paper.densify_every)] == [
        600,
        1800,
        300,
    ]
    assert [round(10_000 * f) for f in paper.prune_at] == [2700, 3000]
    assert (paper.prune_opacity, paper.prune_scale, paper.densify_threshold) == (0.005, 0.12, 0.001)
    assert (paper.timesteps, paper.late_timesteps, paper.late_from) == ((50, 800), (20, 550), 0.3)
    assert paper.control_scale == 1.5


def test_every_field_has_a_sentence_of_help():
    text = settings_help()
    assert set(text) == {spec.name for spec in fields(TrainSettings)}
    assert all(line.endswith(".") and len(line) < 200 for line in text.values())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    settings = get_preset(name)
    assert TrainSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_some_views_must_show_the_whole_head():
    assert TrainSettings(views=3, close_ups=2).close_ups == 2
    with pytest.raises(UserError, match="close_ups is 3; with 3 views"):
        TrainSettings(views=3, close_ups=3)


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(UserError, match=r"'fast'.*draft.*standard.*paper"):
        get_preset("fast")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", -5),
        ("views", 0),
        ("render_size", -64),
        ("render_size", 0),
        ("splats_per_triangle", 0),
        ("lr_colour", -1e-3),
        ("lr_colour", float("nan")),
        ("guidance_scale", float("inf")),
        ("timesteps", (500, 20)),
        ("late_timesteps", (20, 1000)),
        ("prune_at", (0.3, 1.5)),
        ("strategy", "ism"),
        ("background", "beach"),
        ("initial_opacity", 1.0),
    ],
)
def test_senseless_values_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=field):
        replace(get_preset("draft"), **{field: value})


@pytest.mark.parametrize("damage", [{"stepz": 3}, {"cameras": {"distance": [1, 2], "zoom": [1, 2]}}, {"cameras": None}])
def test_settings_of_another_version_are_refused(damage):
    with pytest.raises(UserError, match="version"):
        TrainSettings.from_json({**get_preset("draft").to_json(), **damage})
