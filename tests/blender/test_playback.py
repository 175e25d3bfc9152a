"""A performance played back: the mesh on every frame and the picture on some, against the engine; NLA strips."""

import numpy as np
import pytest
from headstudio.avatar.posing import pose_splats
from headstudio.heads.skinning import skin
from pictures import psnr
from scipy.spatial.transform import Rotation
from shots import expected, shoot

FRAMES, KEYS = 250, 25  # a keyframe every so many frames
TURNED = ("neck", "jaw")


class Performance:
    """Random keyframes with straight lines between them, so that the engine's side can be computed without Blender."""

    def __init__(self, head):
        rng = np.random.default_rng(7)
        self.head = head
        self.frames = np.arange(1, FRAMES + KEYS, KEYS)
        self.sliders = {name: rng.random(len(self.frames)) for name in head.controls.names}
        self.turns = {name: rng.normal(size=(len(self.frames), 3)) * 0.25 for name in TURNED}

    def key(self, bpy, scene, addon, rig):
        """By the button, as an artist does."""
        bpy.context.view_layer.objects.active = rig.armature
        keys, bones = rig.mesh.data.shape_keys.key_blocks, rig.armature.pose.bones
        for name in TURNED:
            bones[name].rotation_mode = "XYZ"
        for index, frame in enumerate(self.frames):
            scene.frame_set(int(frame))
            for name, values in self.sliders.items():
                keys[name].value = values[index]
            for name, values in self.turns.items():
                bones[name].rotation_euler = values[index]
            assert bpy.ops.headstudio.key_expression() == {"FINISHED"}
        for holder in (rig.mesh.data.shape_keys, rig.armature):
            for curve in addon.keying.curves(holder).values():
                for point in curve.keyframe_points:
                    point.interpolation = "LINEAR"

    def vertices(self, addon, frame: float) -> np.ndarray:
        """What the engine's skinning makes of ``frame``, in Blender's axes."""
        sliders = {name: float(np.interp(frame, self.frames, values)) for name, values in self.sliders.items()}
        expression, driven = self.head.drive(sliders)
        own = np.zeros((len(self.head.joint_names), 3))
        for name, values in self.turns.items():
            angles = [np.interp(frame, self.frames, values[:, axis]) for axis in range(3)]
            # A bone's own axes to the engine's: x to the left in both, y along the bone
            to_engine = addon.rig_arrays.ENGINE_TO_BLENDER.T @ self.axes[name]
            own[self.head.joint_names.index(name)] = to_engine @ Rotation.from_euler("xyz", angles).as_rotvec()
        joints = (Rotation.from_rotvec(driven) * Rotation.from_rotvec(own)).as_rotvec()
        return addon.rig_arrays.to_blender(skin(self.head, expression, joints))


@pytest.fixture
def performance(bpy, scene, addon, rig, avatar):
    performance = Performance(avatar.head)
    performance.axes = {name: np.array(rig.armature.data.bones[name].matrix_local.to_3x3()) for name in TURNED}
    performance.key(bpy, scene, addon, rig)
    return performance


def evaluated_vertices(bpy, item):
    evaluated = item.evaluated_get(bpy.context.evaluated_depsgraph_get())
    vertices = np.empty(3 * len(evaluated.data.vertices), np.float32)
    evaluated.data.vertices.foreach_get("co", vertices)
    return vertices.reshape(-1, 3)


def test_every_frame_of_an_action_shows_the_right_splats(bpy, scene, addon, rig, avatar, performance, camera, tmp_path):
    scene.frame_start, scene.frame_end = 1, FRAMES
    for frame in range(1, FRAMES + 1):
        scene.frame_set(frame)
        wanted = performance.vertices(addon, frame)
        np.testing.assert_allclose(evaluated_vertices(bpy, rig.mesh), wanted, atol=1e-5, err_msg=f"frame {frame}")
    scores = []
    for frame in (3, 60, 111, 187, 250):  # between keyframes
        scene.frame_set(frame)
        posed = pose_splats(avatar.splats, performance.vertices(addon, frame), avatar.head.triangles)
        colour, alpha = expected(bpy, addon, scene, rig.mesh, avatar.splats, posed)
        assert alpha.mean() > 0.1
        scores.append(psnr(shoot(bpy, scene, tmp_path), colour))
    assert min(scores) > 40, scores


def test_the_performance_as_nla_strips(bpy, scene, addon, rig, performance):
    """Moved and stretched to twice its length: one action, a strip for the sliders and one for the bones."""
    for holder in (rig.mesh.data.shape_keys, rig.armature):
        data = holder.animation_data
        action, slot = data.action, data.action_slot
        strip = data.nla_tracks.new().strips.new("Performance", 301, action)
        strip.action_slot = slot
        strip.action_frame_start, strip.action_frame_end = action.frame_range  # it was made before it had its slot
        strip.scale = 2.0
        data.action = None
    for frame in (301, 340, 433, 700):
        scene.frame_set(frame)
        wanted = performance.vertices(addon, 1 + (frame - 301) / 2)
        np.testing.assert_allclose(evaluated_vertices(bpy, rig.mesh), wanted, atol=1e-5, err_msg=f"frame {frame}")
    # Keyed on top, in an action of its own
    scene.frame_set(433)
    bpy.ops.headstudio.reset_expression()
    assert bpy.ops.headstudio.key_expression() == {"FINISHED"}
    scene.frame_set(434)
    np.testing.assert_allclose(
        evaluated_vertices(bpy, rig.mesh), addon.rig_arrays.to_blender(performance.head.vertices), atol=1e-5
    )


def test_an_action_moves_to_another_avatar(bpy, scene, addon, rig, avatar, performance):
    """Loaded in the dope sheet of a second avatar: its slots find what they belong to."""
    other = addon.import_avatar.import_avatar(avatar, "Other", scene.collection)
    for name in TURNED:
        other.armature.pose.bones[name].rotation_mode = "XYZ"
    for source, target in ((rig.mesh.data.shape_keys, other.mesh.data.shape_keys), (rig.armature, other.armature)):
        data = target.animation_data
        data.action = source.animation_data.action
        data.action_slot = source.animation_data.action_slot
    scene.frame_set(77)
    wanted = performance.vertices(addon, 77)
    for each in (rig, other):
        np.testing.assert_allclose(evaluated_vertices(bpy, each.mesh), wanted, atol=1e-5)
