"""Which of the head's triangles are found in meshes that modifiers, edit mode and accidents have changed."""

import numpy as np
import pytest
from headstudio.avatar.file import Avatar
from headstudio.avatar.posing import triangle_frames
from headstudio.avatar.splats import SplatArrays


def read(bpy, addon, rig, avatar):
    """Vertices [N + 1, 3] and triangles [M, 3] found in the evaluated mesh; the last vertex is NaN."""
    geometry = addon.bound_triangles.HeadGeometry(len(avatar.head.triangles))
    geometry.read(rig.mesh.evaluated_get(bpy.context.evaluated_depsgraph_get()).data)
    return geometry.vertices, geometry.triangles


def present(vertices, triangles):
    return (triangles < len(vertices) - 1).all(1)


@pytest.mark.parametrize("kind", ["SOLIDIFY", "MIRROR", "ARRAY", "TRIANGULATE"])
def test_modifiers_that_add_faces_leave_every_triangle_where_it_was(bpy, scene, addon, rig, avatar, kind):
    before = read(bpy, addon, rig, avatar)
    modifier = rig.mesh.modifiers.new("Changed", kind)
    if kind == "SOLIDIFY":
        modifier.offset = 1.0  # the shell grows outwards: one of its two sides stays
        modifier.use_rim = False
    vertices, triangles = read(bpy, addon, rig, avatar)
    assert present(vertices, triangles).all()
    np.testing.assert_allclose(vertices[triangles], before[0][before[1]], atol=0.011 if kind == "SOLIDIFY" else 1e-6)


def test_subdivision_keeps_triangles_between_their_own_corners(bpy, scene, addon, rig, avatar):
    modifier = rig.mesh.modifiers.new("Subdivision", "SUBSURF")
    modifier.subdivision_type, modifier.levels = "SIMPLE", 2
    vertices, triangles = read(bpy, addon, rig, avatar)
    assert len(vertices) > 10 * len(avatar.head.vertices)
    expected = addon.rig_arrays.to_blender(avatar.head.vertices)[avatar.head.triangles]
    np.testing.assert_allclose(vertices[triangles], expected, atol=1e-6)


def test_deleted_faces_and_faces_drawn_by_hand(bpy, scene, addon, rig, avatar, avatars):
    """What is left is drawn where it was, and the artist is told."""
    import bmesh

    edited = bmesh.new()
    edited.from_mesh(rig.mesh.data)
    edited.faces.ensure_lookup_table()
    bmesh.ops.delete(edited, geom=edited.faces[100:300], context="FACES_ONLY")
    lonely = [edited.verts.new(place) for place in ((1, 0, 0), (2, 0, 0), (1, 1, 0))]
    edited.faces.new(lonely)
    edited.to_mesh(rig.mesh.data)
    edited.free()
    vertices, triangles = read(bpy, addon, rig, avatar)
    gone = ~present(vertices, triangles)
    assert np.flatnonzero(gone).tolist() == list(range(100, 300))
    expected = addon.rig_arrays.to_blender(avatar.head.vertices)[avatar.head.triangles[~gone]]
    np.testing.assert_allclose(vertices[triangles[~gone]], expected, atol=1e-6)

    avatars.update(bpy.context.evaluated_depsgraph_get())
    missing = int(gone[avatar.splats.triangle].sum())
    assert f"{missing:,} of 3,000 splats are not drawn" in avatars.notices["Noise"]
    (drawing,) = avatars.group.drawings
    assert (drawing.triangles.size[gone] == 0).all()
    assert (drawing.triangles.size[~gone] > 0).all()


def test_remeshing_is_named_as_the_reason(bpy, scene, rig, avatars):
    rig.mesh.modifiers.new("Remesh", "REMESH").voxel_size = 0.02
    avatars.update(bpy.context.evaluated_depsgraph_get())
    assert "Remesh" in avatars.notices["Noise"]
    assert not avatars.group.drawings[0].triangles.size.any()


def test_a_mesh_without_anything_left(bpy, scene, rig, avatars):
    rig.mesh.shape_key_clear()
    rig.mesh.data.clear_geometry()
    avatars.update(bpy.context.evaluated_depsgraph_get())
    assert "Noise" in avatars.notices
    assert not avatars.group.drawings[0].triangles.size.any()


def test_edit_mode_shows_the_mesh_that_is_edited(bpy, scene, addon, rig, avatar, avatars):
    avatars.update(bpy.context.evaluated_depsgraph_get())
    before = avatars.group.drawings[0].triangles.columns.copy()
    bpy.context.view_layer.objects.active = rig.mesh
    bpy.ops.object.mode_set(mode="EDIT")
    avatars.update(bpy.context.evaluated_depsgraph_get())
    assert not avatars.notices
    np.testing.assert_allclose(avatars.group.drawings[0].triangles.columns, before, atol=1e-5)
    bpy.ops.object.mode_set(mode="OBJECT")


def test_collapsed_and_broken_triangles(addon, avatar):
    """Collapsed ones as the engine has them; what is not finite disappears without touching the rest."""
    vertices = avatar.head.vertices.astype(np.float32).copy()
    triangles = avatar.head.triangles
    vertices[triangles[7]] = vertices[triangles[7, 0]]
    vertices[triangles[50, 1]], vertices[triangles[900, 2]] = np.nan, np.inf
    sound = np.isfinite(vertices[triangles]).all((1, 2))
    assert 0 < (~sound).sum() < 20
    posed = addon.posed_triangles.PosedTriangles(len(triangles))
    posed.pose(vertices, triangles, np.eye(4))
    with np.errstate(invalid="ignore"):
        centre, rotation, area = triangle_frames(vertices, triangles)
    assert (posed.size[~sound] == 0).all()
    np.testing.assert_allclose(posed.size[sound], np.sqrt(area[sound]), rtol=1e-6)
    np.testing.assert_allclose(posed.columns[:3, 3].T[sound], centre[sound], atol=1e-7)
    np.testing.assert_allclose(posed.columns[:3, :3].transpose(2, 0, 1)[sound], rotation[sound], atol=1e-6)
    assert np.isfinite(posed.columns).all()
    assert np.isfinite([posed.low, posed.high]).all()


def test_no_splats_at_all(bpy, scene, addon, avatar, avatars):
    empty = SplatArrays(
        triangle=np.zeros(0, np.int32),
        offset=np.zeros((0, 3), np.float32),
        scale=np.ones((0, 3), np.float32),
        rotation=np.zeros((0, 4), np.float32),
        sh=np.zeros((0, 4, 3), np.float32),
        opacity=np.zeros(0, np.float32),
    )
    addon.import_avatar.import_avatar(Avatar(avatar.head, empty, {}), "Bare", scene.collection)
    addon.import_avatar.import_avatar(avatar, "Noise", scene.collection)
    avatars.update(bpy.context.evaluated_depsgraph_get())
    assert sorted(len(drawing.splats) for drawing in avatars.group.drawings) == [0, 3000]
    assert avatars.group.back_to_front(np.array([0.0, 1.0, 0.0])) == 3000
    assert not avatars.notices
