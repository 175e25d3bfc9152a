"""Combine with EEVEE or Cycles: splats and the picture of another engine in one F12.

A second scene sees what the main scene sees (it is its background set, so that objects which come later are there,
too) and renders the splats alone. Surfaces hide splats there, splat by splat and with smooth edges, so the main scene's
compositor only lays that picture over its own: what is in front of an avatar stays in front.
"""

from __future__ import annotations

import bpy

from .final_render import HeadStudioRender

LABEL = "HeadStudio Splats"


def compositing_tree(scene: bpy.types.Scene) -> bpy.types.NodeTree:
    """The scene's compositor nodes; where it has none, the picture goes to the output unchanged."""
    if not hasattr(scene, "compositing_node_group"):  # before Blender 5
        scene.use_nodes = True
        return scene.node_tree
    if scene.compositing_node_group is None:
        tree = bpy.data.node_groups.new(f"{scene.name} Compositing", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        layers, output = tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("NodeGroupOutput")
        output.location.x = 300
        layers.scene = scene
        tree.links.new(layers.outputs["Image"], output.inputs[0])
        scene.compositing_node_group = tree
    return scene.compositing_node_group


def picture_socket(tree: bpy.types.NodeTree) -> bpy.types.NodeSocket:
    """The input that takes the finished picture; an output node is made if there is none."""
    kinds = {"COMPOSITE", "GROUP_OUTPUT"}
    outputs = [node for node in tree.nodes if node.type in kinds and not node.mute]
    active = [node for node in outputs if getattr(node, "is_active_output", True)]
    for node in (*active, *outputs):
        if "Image" in node.inputs:
            return node.inputs["Image"]
        if node.type == "GROUP_OUTPUT" and len(node.inputs) > 1:  # the last is the one that makes new sockets
            return node.inputs[0]
    if hasattr(bpy.types, "CompositorNodeComposite"):
        return tree.nodes.new("CompositorNodeComposite").inputs["Image"]
    tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
    return tree.nodes.new("NodeGroupOutput").inputs[0]


def splat_scene(main: bpy.types.Scene) -> bpy.types.Scene:
    """The scene that renders the splats of ``main``, made or brought up to date."""
    scene = next((scene for scene in bpy.data.scenes if scene.headstudio_render.main == main), None)
    if scene is None:
        scene = bpy.data.scenes.new(f"{main.name} Splats")
        scene.view_layers[0].use_pass_z = True
    scene.headstudio_render.main = main
    scene.headstudio_render.device = main.headstudio_render.device
    scene.headstudio_render.edge_samples = main.headstudio_render.edge_samples
    scene.background_set = main
    scene.camera = main.camera
    scene.render.engine = HeadStudioRender.bl_idname
    scene.render.film_transparent = True
    return scene


def combine(main: bpy.types.Scene) -> bpy.types.Scene:
    """Make F12 of ``main`` show its splats as well; returns the scene that renders them. May be done again."""
    scene = splat_scene(main)
    tree = compositing_tree(main)
    main.render.use_compositing = True
    for item in main.objects:
        if item.type == "MESH" and item.library is None and item.data.headstudio.splats is not None:
            # Its splats are seen in its place; it still casts its shadow and is mirrored
            item.visible_camera = False
    if any(node.type == "R_LAYERS" and node.scene == scene for node in tree.nodes):
        return scene
    output = picture_socket(tree)
    layers, over = tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("CompositorNodeAlphaOver")
    layers.scene, layers.layer = scene, scene.view_layers[0].name
    layers.label = over.label = LABEL
    # By kind, because Blender 5 orders and names them otherwise
    below, above = (socket for socket in over.inputs if socket.type == "RGBA")
    if output.is_linked:
        source = output.links[0].from_socket
    else:
        own = tree.nodes.new("CompositorNodeRLayers")
        own.scene = main
        own.location = output.node.location.x - 600, output.node.location.y
        source = own.outputs["Image"]
    x, y = output.node.location
    over.location, layers.location = (x, y), (x - 300, y - 400)
    output.node.location.x += 250
    tree.links.new(source, below)
    tree.links.new(layers.outputs["Image"], above)
    tree.links.new(over.outputs[0], output)
    return scene


class HEADSTUDIO_OT_combine(bpy.types.Operator):
    """Let F12 of this scene show the splats together with what EEVEE or Cycles renders.
    A second scene renders the splats, and the compositor lays them over this one's picture"""

    bl_idname = "headstudio.combine"
    bl_label = "Combine with EEVEE or Cycles"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if context.scene.render.engine == HeadStudioRender.bl_idname:
            cls.poll_message_set("This scene renders with HeadStudio. Choose EEVEE or Cycles as its engine first")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        main = context.scene
        if main.camera is None:
            self.report({"ERROR"}, "There is no camera to render from. Add one and make it the scene's camera.")
            return {"CANCELLED"}
        scene = combine(main)
        self.report({"INFO"}, f"F12 now shows the splats, too: the scene {scene.name} renders them")
        if main.view_settings.view_transform != "Standard":
            self.report(
                {"WARNING"},
                f"The view transform {main.view_settings.view_transform} changes the splats' colours. Color Management "
                "> View Transform: Standard shows them as they were made",
            )
        return {"FINISHED"}
