"""What mypy cannot know of Blender's half: the properties that ``register()`` puts on Blender's own types.

A plugin (see ``[tool.mypy]`` in pyproject.toml). Each property is given the type Any: what is checked is that no other
name is used. Where the stubs of fake-bpy-module are wrong or too general, this says so once, not the code at each use.
"""

from __future__ import annotations

from mypy.nodes import ARG_POS, Argument, Var
from mypy.plugin import ClassDefContext, MethodContext, MethodSigContext, Plugin
from mypy.plugins.common import add_attribute_to_class, add_method_to_class
from mypy.types import AnyType, CallableType, NoneType, Type, TypeOfAny

ADDED: dict[str, tuple[str, ...]] = {
    "Mesh": ("headstudio",),
    "Scene": ("headstudio", "headstudio_expressions", "headstudio_display", "headstudio_render"),
    "WindowManager": ("headstudio",),
    "Key": ("headstudio_pairs",),
}

# Handed out by their base class, of which the program knows which it is; and our own mixins before an operator
DYNAMIC = (
    *(f"bpy.types.{name}" for name in ("Attribute", "Constraint", "ID", "Modifier", "Node", "Space")),
    "headstudio.blender_addon.expressions.AvatarOperator",
    "headstudio.blender_addon.job_operators.OnJob",
)

# Attributes whose type the stubs get wrong, or give as a union of all that it may ever be
ANYTHING = tuple(
    f"bpy.types.{name}"
    for name in (
        "Addon.preferences",
        "ColorManagedViewSettings.view_transform",
        "Context.space_data",
        "Object.data",
        "RenderPass.rect",
        "RenderSettings.engine",
    )
)


class BlenderTypes(Plugin):
    def get_customize_class_mro_hook(self, fullname: str):
        module, _, name = fullname.rpartition(".")
        return _complete if fullname in DYNAMIC or (module == "bpy.types" and name in ADDED) else None

    def get_attribute_hook(self, fullname: str):
        return (lambda _context: AnyType(TypeOfAny.explicit)) if fullname in ANYTHING else None

    def get_method_hook(self, fullname: str):
        """Dialogues return what an operator returns: a set of strings."""
        return _set_of_strings if fullname.startswith("bpy.types.WindowManager.invoke_") else None

    def get_method_signature_hook(self, fullname: str):
        """Attributes are made by kinds and domains that the program computes."""
        return _loosen if fullname == "bpy.types.AttributeGroupMesh.new" else None


def _complete(context: ClassDefContext) -> None:
    anything = AnyType(TypeOfAny.explicit)
    for name in ADDED.get(context.cls.name, ()):
        add_attribute_to_class(context.api, context.cls, name, anything)
    if context.cls.fullname not in DYNAMIC:
        return
    text = context.api.named_type("builtins.str")
    name = Argument(Var("name", text), text, None, ARG_POS)
    value = Argument(Var("value", anything), anything, None, ARG_POS)
    add_method_to_class(context.api, context.cls, "__getattr__", [name], anything)
    add_method_to_class(context.api, context.cls, "__setattr__", [name, value], NoneType())


def _set_of_strings(context: MethodContext) -> Type:
    return context.api.named_generic_type("builtins.set", [context.api.named_generic_type("builtins.str", [])])


def _loosen(context: MethodSigContext) -> CallableType:
    signature = context.default_signature
    return signature.copy_modified(arg_types=[AnyType(TypeOfAny.explicit)] * len(signature.arg_types))


def plugin(_version: str) -> type[Plugin]:
    return BlenderTypes
