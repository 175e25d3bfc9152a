"""The avatar file: what survives a round trip and how exactly, writing, and the wall between the halves."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import fields, replace

import numpy as np
import pytest
from headstudio.avatar.file import VERSION, Avatar, bake_identity, load_avatar, save_avatar
from headstudio.avatar.posing import pose_splats
from headstudio.errors import UserError
from headstudio.heads.default_head import default_head
from headstudio.heads.skinning import skin
from support.avatars import PROVENANCE, random_splats
from support.synthetic_head import synthetic_head


def test_round_trip_keeps_everything_within_the_stated_errors(avatar, tmp_path):
    save_avatar(tmp_path / "a.avatar.npz", avatar)
    back = load_avatar(tmp_path / "a.avatar.npz")
    assert back.provenance == PROVENANCE
    exact = ("name", "licence", "expression_names", "joint_names", "region_names", "joints_follow_expression")
    for name in exact:
        assert getattr(back.head, name) == getattr(avatar.head, name), name
    for name in ("vertices", "triangles", "joint_regressor", "parents", "uv", "uv_triangles", "region"):
        np.testing.assert_array_equal(getattr(back.head, name), getattr(avatar.head, name), name)
    for part in ("controls", "landmarks"):
        for f in fields(getattr(avatar.head, part)):
            np.testing.assert_array_equal(
                getattr(getattr(back.head, part), f.name), getattr(getattr(avatar.head, part), f.name)
            )
    for name in ("expression", "pose_correctives"):
        before, after = getattr(avatar.head, name), getattr(back.head, name)
        largest = np.abs(before).max((1, 2), keepdims=True)
        assert (np.abs(after - before) <= 1.0001 * largest / 32767).all(), name
    np.testing.assert_allclose(back.head.skin_weights, avatar.head.skin_weights, atol=4e-5)
    np.testing.assert_allclose(back.head.skin_weights.sum(1), 1, atol=1e-6)
    before, after = avatar.splats, back.splats
    np.testing.assert_array_equal(after.triangle, before.triangle)
    for name in ("offset", "scale", "sh"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=4.9e-4, atol=3e-8)
    np.testing.assert_allclose(after.rotation, before.rotation, atol=1.6e-5)
    np.testing.assert_allclose(after.opacity, before.opacity, atol=7.7e-6)


def test_posed_splats_move_by_micrometres(avatar, tmp_path):
    """The rounding, where it counts: in the posed avatar, 24 cm high."""
    save_avatar(tmp_path / "a.avatar.npz", avatar)
    back = load_avatar(tmp_path / "a.avatar.npz")
    expression, joints = np.ones(4), np.full((5, 3), 0.3)
    one, two = (pose_splats(a.splats, skin(a.head, expression, joints), a.head.triangles) for a in (avatar, back))
    spread = np.abs(avatar.splats.offset).max() * 0.03  # the largest offset on triangles 3 cm wide: 80 mm
    assert np.abs(one.means - two.means).max() < 5e-4 * spread + 5e-6
    np.testing.assert_allclose(two.scales, one.scales, rtol=1e-3)


def test_saving_what_was_loaded_gives_the_same_bytes(data, tmp_path):
    path = tmp_path / "again.avatar.npz"
    (tmp_path / "one.avatar.npz").write_bytes(data)
    save_avatar(path, load_avatar(tmp_path / "one.avatar.npz"))
    assert path.read_bytes() == data


def test_bytes_do_not_depend_on_the_clock(avatar, data, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setattr(time, "localtime", lambda *_: time.struct_time((2033, 5, 18, 3, 33, 20, 2, 138, 0)))
    save_avatar(tmp_path / "later.avatar.npz", avatar)
    assert (tmp_path / "later.avatar.npz").read_bytes() == data


def test_numpy_alone_can_read_it(avatar, data):
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        meta = json.loads(str(arrays["meta"]))
        assert meta["version"] == VERSION
        assert meta["provenance"] == PROVENANCE
        np.testing.assert_array_equal(arrays["head.vertices"], avatar.head.vertices)


def test_default_head_with_twenty_thousand_splats_takes_a_megabyte_and_moves_as_before(tmp_path):
    arrays = default_head()
    head = bake_identity(arrays)
    path = tmp_path / "a.avatar.npz"
    save_avatar(path, Avatar(head, random_splats(20_000, len(head.triangles), 1)))
    assert os.path.getsize(path) < 1.5e6
    rng = np.random.default_rng(0)
    expression, joints = rng.uniform(0, 1, len(arrays.expression_names)), rng.normal(0, 0.3, (5, 3))
    moved = skin(load_avatar(path).head, expression, joints) - skin(arrays, expression, joints)
    assert np.abs(moved).max() < 5e-6  # all 52 expressions at once: five micrometres


def test_extreme_but_legal_numbers_come_back_finite(avatar, tmp_path):
    splats = avatar.splats
    wild = replace(splats, offset=splats.offset * 1e8, scale=splats.scale * 1e-12, sh=splats.sh * 1e9)
    save_avatar(tmp_path / "a.avatar.npz", replace(avatar, splats=wild))
    back = load_avatar(tmp_path / "a.avatar.npz").splats
    assert (back.scale > 0).all()
    assert np.abs(back.offset).max() == 65504


def test_no_splats_and_no_expressions_are_a_file_too(tmp_path):
    head = bake_identity(synthetic_head(0))
    n = len(head.vertices)
    controls = replace(head.controls, to_expression=np.zeros((len(head.controls.names), 0), np.float32))
    head = replace(head, expression=np.zeros((0, n, 3), np.float32), expression_names=(), controls=controls)
    save_avatar(tmp_path / "a.avatar.npz", Avatar(head, random_splats(0, 20)))
    assert len(load_avatar(tmp_path / "a.avatar.npz").splats) == 0


def test_baking_is_the_identity_that_it_bakes():
    head = synthetic_head(1)
    identity = np.array([0.5, -2.0, 1.0])
    baked = bake_identity(head, identity)
    assert baked.identity_names == ()
    expression, joints = np.array([0.2, 1, 0, 0.5]), np.full((5, 3), 0.2)
    np.testing.assert_allclose(skin(baked, expression, joints), skin(head, expression, joints, identity), atol=1e-7)


def test_unbaked_identity_is_refused(tmp_path):
    head = synthetic_head(0)
    with pytest.raises(ValueError, match="bake"):
        save_avatar(tmp_path / "a.avatar.npz", Avatar(head, random_splats(3, 20)))
    assert list(tmp_path.iterdir()) == []


def test_provenance_that_is_no_json_leaves_nothing_behind(avatar, tmp_path):
    for bad in ({"x": object()}, {"x": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            save_avatar(tmp_path / "a.avatar.npz", replace(avatar, provenance=bad))
    assert list(tmp_path.iterdir()) == []


# --- writing -------------------------------------------------------------------------------------------------------


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(avatar, data, tmp_path, monkeypatch):
    path = tmp_path / "one.avatar.npz"
    path.write_bytes(data)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"one\.avatar\.npz.*No space left"):
        save_avatar(path, avatar)
    assert path.read_bytes() == data
    assert [entry.name for entry in tmp_path.iterdir()] == ["one.avatar.npz"]


def test_an_interrupt_while_writing_leaves_nothing(avatar, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "writestr", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_avatar(tmp_path / "a.avatar.npz", avatar)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["missing/a.avatar.npz", "file/a.avatar.npz"])
def test_unwritable_places_are_named(avatar, tmp_path, where):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"a\.avatar\.npz"):
        save_avatar(tmp_path / where, avatar)


# --- the wall between the halves -----------------------------------------------------------------------------------


def test_blenders_half_needs_no_torch():
    """In Blender's Python there is numpy and nothing else."""
    script = """
import sys
for name in ("torch", "scipy", "numba", "diffusers", "plyfile"):
    sys.modules[name] = None
import headstudio.avatar.file, headstudio.avatar.posing, headstudio.avatar.sh_rotation, headstudio.avatar.splats
import headstudio.avatar.archive, headstudio.avatar.atomic, headstudio.heads.skinning
foreign = {n.split(".")[0] for n in sys.modules} - set(sys.stdlib_module_names)
print(sorted(n for n in foreign if sys.modules.get(n) is not None and n[0] != "_"))
"""
    result = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    loaded = set(eval(result.stdout))
    assert {"headstudio", "numpy"} <= loaded
    assert not loaded & {"torch", "scipy", "numba", "diffusers", "plyfile", "bpy"}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sh", np.zeros((5, 2, 3), np.float32), "sh"),
        ("sh", np.zeros((5, 3), np.float32), "sh"),
        ("offset", np.zeros((4, 3), np.float32), "offset"),
        ("offset", np.full((5, 3), np.nan, np.float32), "not finite"),
        ("opacity", np.full(5, 1.1, np.float32), "opacity"),
        ("rotation", np.full((5, 4), 0.6, np.float32), "length 1"),
        ("scale", np.zeros((5, 3), np.float32), "positive"),
        ("triangle", np.zeros(5, np.float32), "integers"),
    ],
)
def test_splat_arrays_name_what_is_wrong(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(random_splats(5, 10), **{field: value})


def test_posing_a_hundred_thousand_splats_is_quick():
    """Blender poses them once a frame; measured 0.01 s (degree 0) on two cores, the bound is ten times that."""
    head = synthetic_head(5)
    splats = random_splats(100_000, len(head.triangles), 1)
    pose_splats(splats, head.vertices, head.triangles)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        pose_splats(splats, head.vertices, head.triangles)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.3
