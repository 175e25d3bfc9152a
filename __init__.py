"""The extension's entry. Blender's half is imported when it registers, so that other tools may walk this tree."""


def register():
    from . import blender_addon

    blender_addon.register()


def unregister():
    from . import blender_addon

    blender_addon.unregister()
