"""What else is in the scene: surfaces before and behind an avatar, the Depth pass, and another engine's picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pictures import psnr
from shots import WIDTH, add_plane, expected, left_half, shoot

SH_0 = 0.28209479177387814


def test_surfaces_hide_what_is_behind_them(bpy, scene, rig, camera, tmp_path):
    free = shoot(bpy, scene, tmp_path)
    wall = add_plane(bpy, scene, left_half(-0.3))
    half = WIDTH // 2
    hidden = shoot(bpy, scene, tmp_path)
    assert free[:, :half, 3].max() > 0.9
    assert hidden[:, : half - 1, 3].max() == 0
    np.testing.assert_allclose(hidden[:, half + 1 :], free[:, half + 1 :], atol=1e-4)
    wall.location.y = 0.6  # behind the head now
    np.testing.assert_allclose(shoot(bpy, scene, tmp_path), free, atol=1e-4)
    wall.location.y, wall.visible_camera = 0, False
    np.testing.assert_array_equal(shoot(bpy, scene, tmp_path), free)


def test_text_hides_as_a_mesh_does(bpy, scene, rig, camera, tmp_path):
    free = shoot(bpy, scene, tmp_path)[..., 3].sum()
    text = bpy.data.objects.new("Text", bpy.data.curves.new("Text", "FONT"))
    scene.collection.objects.link(text)
    text.data.body, text.data.size, text.data.align_x = "MMM", 0.3, "CENTER"
    text.location, text.rotation_euler = (0, -0.3, -0.05), (np.pi / 2, 0, 0)
    assert 0.1 < shoot(bpy, scene, tmp_path)[..., 3].sum() / free < 0.95


def test_the_edge_of_what_hides_is_smooth(bpy, scene, rig, camera, tmp_path):
    """A wall whose edge lies a quarter into a column of pixels hides a quarter of what is there."""
    free = shoot(bpy, scene, tmp_path)[..., 3]
    pixel = 0.3 / (WIDTH * camera.data.lens / camera.data.sensor_width)  # at the wall, 0.3 m before the camera
    add_plane(bpy, scene, left_half(-0.3, edge=5.25 * pixel))
    column = WIDTH // 2 + 5
    scene.headstudio_render.edge_samples = 16
    seen = shoot(bpy, scene, tmp_path)[:, column, 3]
    np.testing.assert_allclose(seen, 0.75 * free[:, column], atol=0.07)
    scene.headstudio_render.edge_samples = 1
    np.testing.assert_array_equal(shoot(bpy, scene, tmp_path)[:, column, 3], free[:, column])


def test_depth_is_the_engines(bpy, scene, addon, rig, avatar, camera, tmp_path):
    """Metres along the view, where the picture is opaque by half or more; the engine draws depth as a colour here."""
    scene.view_layers[0].use_pass_z = True
    compositor = addon.compositor
    tree = compositor.compositing_tree(scene)
    layers = next(node for node in tree.nodes if node.type == "R_LAYERS")
    tree.links.new(layers.outputs["Depth"], compositor.picture_socket(tree))
    depth = shoot(bpy, scene, tmp_path, "OPEN_EXR")[..., 0]
    posed_splats = addon.export_ply.posed_splats
    posed = posed_splats(avatar.splats, rig.mesh, bpy.context.evaluated_depsgraph_get(), np.eye(4))
    metres = posed.means[:, 1] - camera.location.y  # the camera looks along +y
    painted = replace(posed, sh=np.repeat((metres[:, None, None] - 0.5) / SH_0, 3, 2).astype(np.float32))
    blended, alpha = expected(bpy, addon, scene, rig.mesh, avatar.splats, posed=painted)
    solid = alpha > 0.51
    np.testing.assert_allclose(depth[solid], (blended[..., 0] / np.maximum(alpha, 1e-6))[solid], atol=1e-3)
    assert (depth[alpha < 0.49] == 1e10).all()


@pytest.mark.parametrize("border", [False, True])
def test_combined_with_cycles(bpy, scene, addon, rig, camera, tmp_path, border):
    """A red wall before the left half of the head, a blue one behind all of it, splats between, in one F12."""
    red, blue = (0.8, 0.02, 0.02), (0.02, 0.05, 0.7)
    add_plane(bpy, scene, left_half(-0.3), red)
    add_plane(bpy, scene, left_half(0.5, edge=1), blue)
    scene.render.use_border = scene.render.use_crop_to_border = border
    scene.render.border_min_x, scene.render.border_min_y = 0.2, 0.3
    splats = shoot(bpy, scene, tmp_path, "OPEN_EXR")
    scene.render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", 4, "CPU"
    scene.cycles.use_denoising = False
    assert bpy.ops.headstudio.combine() == {"FINISHED"}
    assert bpy.ops.headstudio.combine() == {"FINISHED"}
    assert len(bpy.data.scenes) == 2
    nodes = addon.compositor.compositing_tree(scene).nodes
    assert len([node for node in nodes if node.type == "ALPHAOVER"]) == 1
    scene.render.resolution_percentage = 100
    picture = shoot(bpy, scene, tmp_path, "OPEN_EXR")
    assert picture.shape == splats.shape
    half = WIDTH // 2 - (int(0.2 * WIDTH) if border else 0)
    np.testing.assert_allclose(picture[:, : half - 1, :3], np.broadcast_to(red, (len(picture), half - 1, 3)), atol=2e-3)
    behind = splats[..., :3] + (1 - splats[..., 3:]) * np.array(blue)
    np.testing.assert_allclose(picture[:, half + 1 :, :3], behind[:, half + 1 :], atol=5e-3)
    assert splats[:, half + 1 :, 3].max() > 0.9
    assert psnr(picture, behind) < 20
    # What comes into the main scene later is in the second as well
    add_plane(bpy, scene, left_half(-0.4, edge=1), (0, 1, 0))
    np.testing.assert_allclose(shoot(bpy, scene, tmp_path, "OPEN_EXR")[..., 1], 1, atol=2e-3)


def test_what_edits_have_removed_is_left_out_and_said(bpy, scene, rig, camera, tmp_path, capfd):
    """A mask over half of the head: the other half is drawn as before."""
    free = shoot(bpy, scene, tmp_path)
    group = rig.mesh.vertex_groups.new(name="kept")
    kept = [vertex.index for vertex in rig.mesh.data.vertices if vertex.co.x > 0]
    group.add(kept, 1.0, "REPLACE")
    rig.mesh.modifiers.new("Mask", "MASK").vertex_group = "kept"
    half = shoot(bpy, scene, tmp_path)
    assert "splats are not drawn" in capfd.readouterr().out
    assert half[:, : WIDTH // 2 - 20, 3].sum() < 0.1 * free[:, : WIDTH // 2 - 20, 3].sum()
    np.testing.assert_allclose(half[:, WIDTH // 2 + 40 :], free[:, WIDTH // 2 + 40 :], atol=0.02)
