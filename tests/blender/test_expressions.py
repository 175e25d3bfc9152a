"""Sliders, pairs, presets and keying: what the panels' buttons do to the rig."""

import json

import numpy as np
import pytest
from headstudio.avatar.file import Avatar, bake_identity
from headstudio.heads.expressions import ARKIT_NAMES, PRESETS
from pictures import random_splats


@pytest.fixture
def rig(bpy, scene, addon, default_head):
    head = bake_identity(default_head)
    rig = addon.import_avatar.import_avatar(Avatar(head, random_splats(head, 200, 1), {}), "Noise", scene.collection)
    bpy.context.view_layer.objects.active = rig.armature
    return rig


@pytest.fixture
def presets(addon, tmp_path, monkeypatch):
    """The module of presets with an empty folder for the artist's own."""
    monkeypatch.setattr(addon.user_presets, "folder", lambda: tmp_path / "presets")
    return addon.user_presets


@pytest.fixture
def auto_keying(bpy, scene):
    """Automatic keying that may make curves: Blender 5 comes with Only Insert Available."""
    preferences = bpy.context.preferences.edit
    before = preferences.use_keyframe_insert_available
    preferences.use_keyframe_insert_available = False
    scene.tool_settings.use_keyframe_insert_auto = True
    yield scene.tool_settings
    preferences.use_keyframe_insert_available = before


def values(rig):
    keys = rig.mesh.data.shape_keys.key_blocks
    return {name: keys[name].value for name in ARKIT_NAMES if abs(keys[name].value) > 1e-6}


def keyed(addon, holder):
    return {path for path, _ in addon.keying.curves(holder)}


def test_every_slider_is_in_a_group_and_shown_once(addon, scene, rig):
    shown = scene.headstudio_expressions
    for linked in (True, False):
        shown.linked = linked
        rows = [row for group in addon.expression_panel.grouped(rig.mesh, shown).values() for row in group]
        moved = [key.name for _, keys in rows for key in keys]
        assert sorted(moved) == sorted(ARKIT_NAMES)
        assert len(rows) == (52 - len(addon.expressions.PAIRS) if linked else 52)
    assert len(addon.expressions.PAIRS) == 18
    groups = addon.expression_panel.grouped(rig.mesh, shown)
    assert list(groups) == ["Brows", "Gaze", "Eyes", "Jaw", "Mouth", "Cheeks and Nose", "Tongue"]


def test_search_and_only_moved(addon, scene, rig):
    shown = scene.headstudio_expressions

    def names():
        return [name for group in addon.expression_panel.grouped(rig.mesh, shown).values() for name, _ in group]

    shown.search = "brow in"
    assert names() == ["browInnerUp"]
    shown.search = "SmileRight"  # finds the pair by either side
    assert names() == ["mouthSmile"]
    shown.search, shown.moved = "", True
    assert names() == []
    rig.mesh.data.shape_keys.key_blocks["jawOpen"].value = 0.3
    assert names() == ["jawOpen"]


def test_linked_sliders_move_both_sides_and_both_eyes_one_way(bpy, scene, rig):
    pairs = rig.mesh.data.shape_keys.headstudio_pairs
    pairs.mouthSmile = 0.6
    assert values(rig) == pytest.approx({"mouthSmileLeft": 0.6, "mouthSmileRight": 0.6})
    assert pairs.mouthSmile == pytest.approx(0.6)
    pairs.mouthSmile = 0
    pairs.eyeLookLeft = 0.5
    gaze = []
    bpy.context.view_layer.update()
    armature = rig.armature.evaluated_get(bpy.context.evaluated_depsgraph_get())
    for side in ("left", "right"):
        bone = armature.pose.bones[f"eye_{side}"]
        gaze.append((bone.tail - bone.head).normalized())
    assert min(direction.x for direction in gaze) > 0.1, "the subject's left is +x"
    assert gaze[0].x == pytest.approx(gaze[1].x, abs=0.02)


def test_a_linked_slider_respects_auto_key(addon, rig, auto_keying):
    keys = rig.mesh.data.shape_keys
    auto_keying.use_keyframe_insert_auto = False
    keys.headstudio_pairs.mouthSmile = 0.2
    assert not keyed(addon, keys)
    auto_keying.use_keyframe_insert_auto = True
    keys.headstudio_pairs.mouthSmile = 0.4
    assert keyed(addon, keys) == {f'key_blocks["mouthSmile{side}"].value' for side in ("Left", "Right")}


def test_preset_strength_add_and_ends(bpy, rig):
    bpy.ops.headstudio.apply_preset(preset="smile", strength=0.5)
    bpy.ops.headstudio.apply_preset(preset="viseme aa", add=True)
    expected = {name: 0.5 * value for name, value in PRESETS["smile"].items()}
    for name, value in PRESETS["viseme aa"].items():
        expected[name] = expected.get(name, 0) + value
    assert values(rig) == pytest.approx(expected)
    bpy.ops.headstudio.apply_preset(preset="blink", strength=2.0)
    assert values(rig) == {"eyeBlinkLeft": 1, "eyeBlinkRight": 1}
    with pytest.raises(RuntimeError, match="no expression preset 'grin'"):
        bpy.ops.headstudio.apply_preset(preset="grin")
    assert values(rig) == {"eyeBlinkLeft": 1, "eyeBlinkRight": 1}


def test_mirror_turns_bones_too(bpy, rig):
    bones = rig.armature.pose.bones
    for name in ("neck", "eye_left"):
        bones[name].rotation_mode = "XYZ"
    bones["neck"].rotation_euler = (0.3, 0.2, 0.1)
    bones["eye_left"].rotation_euler = (0.1, 0.0, 0.25)

    def tips():
        bpy.context.view_layer.update()
        return {name: np.array(bones[name].tail) for name in ("neck", "eye_left", "eye_right", "jaw")}

    before = tips()
    bpy.ops.headstudio.mirror_expression()
    after = tips()
    other = {"eye_left": "eye_right", "eye_right": "eye_left"}
    for name, tip in after.items():
        np.testing.assert_allclose(tip * [-1, 1, 1], before[other.get(name, name)], atol=1e-5)
    assert abs(after["neck"][0]) > 0.003
    bpy.ops.headstudio.mirror_expression()
    for name, tip in tips().items():
        np.testing.assert_allclose(tip, before[name], atol=1e-5)


def test_key_expression_is_one_action_and_one_undo_step(bpy, scene, addon, rig):
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.headstudio.key_expression("EXEC_DEFAULT", True)
    mesh, armature = bpy.data.objects["Noise"], bpy.data.objects["Noise rig"]
    paths = keyed(addon, mesh.data.shape_keys)
    assert paths == {f'key_blocks["{name}"].value' for name in ARKIT_NAMES}
    bones = keyed(addon, armature)
    joints = ("root", "neck", "jaw", "eye_left", "eye_right")
    turns = {f'pose.bones["{name}"].rotation_quaternion' for name in joints}
    assert bones == turns | {'pose.bones["root"].location', 'pose.bones["root"].scale'}
    action = armature.animation_data.action
    assert mesh.data.shape_keys.animation_data.action == action
    assert {slot.target_id_type for slot in action.slots} == {"KEY", "OBJECT"}
    group = addon.keying.curves(mesh.data.shape_keys)[('key_blocks["jawOpen"].value', 0)].group
    assert group.name == "Jaw"
    bpy.ops.ed.undo()
    assert not bpy.data.actions
    assert not keyed(addon, bpy.data.objects["Noise rig"])


def test_only_what_changed_is_keyed(bpy, scene, addon, rig):
    keys, bones = rig.mesh.data.shape_keys, rig.armature.pose.bones
    assert bpy.ops.headstudio.key_expression(only_changed=True) == {"CANCELLED"}
    keys.key_blocks["jawOpen"].value = 0.5
    bpy.ops.headstudio.key_expression(only_changed=True)
    assert keyed(addon, keys) == {'key_blocks["jawOpen"].value'}
    scene.frame_set(10)  # held by the curve: not changed
    keys.key_blocks["mouthPucker"].value = 0.5
    bones["neck"].rotation_quaternion = (0.9, 0.1, 0.2, 0.3)
    bpy.ops.headstudio.key_expression(only_changed=True)
    jaw = addon.keying.curves(keys)[('key_blocks["jawOpen"].value', 0)]
    assert [point.co.x for point in jaw.keyframe_points] == [1]
    keys.key_blocks["jawOpen"].value = 0  # off the curve, though at rest
    bpy.ops.headstudio.key_expression(only_changed=True)
    assert [tuple(point.co) for point in jaw.keyframe_points] == [(1, 0.5), (10, 0)]
    assert keyed(addon, rig.armature) == {'pose.bones["neck"].rotation_quaternion'}


def test_auto_key_keys_what_an_operator_changed(bpy, addon, rig, auto_keying):
    keys = rig.mesh.data.shape_keys
    auto_keying.use_keyframe_insert_auto = False
    bpy.ops.headstudio.apply_preset(preset="smile")
    assert not keyed(addon, keys)
    auto_keying.use_keyframe_insert_auto = True
    bpy.ops.headstudio.apply_preset(preset="kiss")
    names = set(PRESETS["smile"]) | set(PRESETS["kiss"])
    assert keyed(addon, keys) <= {f'key_blocks["{name}"].value' for name in names}
    assert 'key_blocks["mouthSmileLeft"].value' in keyed(addon, keys)
    rig.armature.pose.bones["jaw"].rotation_quaternion = (0.9, 0.4, 0, 0)
    bpy.ops.headstudio.reset_expression()
    assert keyed(addon, rig.armature) == {'pose.bones["jaw"].rotation_quaternion'}


def test_auto_key_obeys_its_settings(bpy, scene, addon, rig, auto_keying):
    keys = rig.mesh.data.shape_keys
    blink = {f'key_blocks["eyeBlink{side}"].value' for side in ("Left", "Right")}
    auto_keying.auto_keying_mode = "REPLACE_KEYS"
    bpy.ops.headstudio.apply_preset(preset="smile")
    assert not keyed(addon, keys)
    auto_keying.auto_keying_mode = "ADD_REPLACE_KEYS"
    window = bpy.context.window_manager.windows[0]
    area = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    with bpy.context.temp_override(window=window, area=area):
        sets = scene.keying_sets_all
        sets.active = next(item for item in sets if item.bl_idname == "Location")
        auto_keying.use_keyframe_insert_keyingset = True
        bpy.ops.headstudio.apply_preset(preset="kiss")
        assert not keyed(addon, keys)
        bpy.ops.headstudio.use_keying_set()
        bpy.ops.headstudio.apply_preset(preset="neutral")
        bpy.ops.headstudio.apply_preset(preset="blink")
        assert blink <= keyed(addon, keys)
    auto_keying.use_keyframe_insert_keyingset = False
    bpy.context.preferences.edit.use_keyframe_insert_available = True
    there = keyed(addon, keys)
    assert 'key_blocks["jawOpen"].value' not in there
    scene.frame_set(5)
    bpy.ops.headstudio.apply_preset(preset="surprise")
    assert keyed(addon, keys) == there
    lid = addon.keying.curves(keys)[('key_blocks["eyeBlinkLeft"].value', 0)]
    assert [tuple(point.co) for point in lid.keyframe_points] == [(1, 1), (5, 0)]


def test_keying_set(bpy, scene, addon, rig):
    bpy.ops.headstudio.use_keying_set()
    assert scene.keying_sets_all.active.bl_label == "HeadStudio Expression"
    window = bpy.context.window_manager.windows[0]
    area = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    with bpy.context.temp_override(window=window, area=area):
        bpy.ops.anim.keyframe_insert_by_name(type="HeadStudioExpression")
    assert len(keyed(addon, rig.mesh.data.shape_keys)) == 52
    assert 'pose.bones["neck"].rotation_quaternion' in keyed(addon, rig.armature)


def test_key_pair(bpy, addon, rig):
    bpy.ops.headstudio.key_pair(pair="eyeLookRight")
    expected = {f'key_blocks["eyeLook{name}"].value' for name in ("InLeft", "OutRight")}
    assert keyed(addon, rig.mesh.data.shape_keys) == expected
    with pytest.raises(RuntimeError, match="no sliders"):
        bpy.ops.headstudio.key_pair(pair="ears")


def test_own_presets_are_kept_applied_and_removed(bpy, rig, presets):
    key = rig.mesh.data.shape_keys.key_blocks["noseSneerLeft"]
    key.value = 0.25
    name = "../Sly: 50% ÄÖ."
    bpy.ops.headstudio.save_preset(name=name)
    (path,) = presets.folder().iterdir()
    assert json.loads(path.read_text()) == {"format": 1, "sliders": {"noseSneerLeft": 0.25}}
    assert presets.own_names() == [name]
    bpy.ops.headstudio.reset_expression()
    bpy.ops.headstudio.apply_preset(preset=name, strength=2)
    assert values(rig) == {"noseSneerLeft": 0.5}
    with pytest.raises(RuntimeError, match="Tick Replace"):
        bpy.ops.headstudio.save_preset(name=name)
    bpy.ops.headstudio.save_preset(name=name, replace=True)
    assert presets.load(name) == {"noseSneerLeft": 0.5}
    bpy.ops.headstudio.remove_preset(name=name)
    assert presets.own_names() == []
    with pytest.raises(RuntimeError, match="no expression preset"):
        bpy.ops.headstudio.remove_preset(name=name)


@pytest.mark.parametrize(
    ("name", "reason"), [("", "needs a name"), ("  ", "needs a name"), ("smile", "built-in"), ("Smile", "built-in")]
)
def test_a_preset_needs_a_name_of_its_own(bpy, rig, presets, name, reason):
    with pytest.raises(RuntimeError, match=reason):
        bpy.ops.headstudio.save_preset(name=name)
    assert not presets.folder().exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "[1, 2]",
        '{"format": 1}',
        '{"format": 2, "sliders": {}}',
        '{"format": 1, "sliders": {"jawOpen": "wide"}}',
        '{"format": 1, "sliders": {"jawOpen": NaN}}',
        '{"format": 1, "sliders": {"jawOpen": true}}',
        '{"format": 1, "sliders": {"jawOpen": [1]}}',
        '{"format": 1, "sliders": {"jawOpen": 1' + "0" * 400 + "}}",
        " " * 300_000,
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_preset_is_one_sentence_and_changes_nothing(bpy, rig, presets, text):
    presets.folder().mkdir()
    path = presets.folder() / "mine.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    rig.mesh.data.shape_keys.key_blocks["jawOpen"].value = 0.5
    with pytest.raises(RuntimeError, match=r"mine\.json"):
        bpy.ops.headstudio.apply_preset(preset="mine")
    assert values(rig) == {"jawOpen": 0.5}


def test_a_folder_that_cannot_be_written_is_one_sentence(bpy, rig, presets):
    presets.folder().write_text("a file where the folder should be")
    with pytest.raises(RuntimeError, match="presets"):
        bpy.ops.headstudio.save_preset(name="mine")


def test_the_artists_presets_lie_in_blenders_user_folder(bpy, addon, monkeypatch):
    assert str(addon.user_presets.folder()).startswith(bpy.utils.user_resource("SCRIPTS"))
