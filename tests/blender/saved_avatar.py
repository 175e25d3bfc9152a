"""Opens a .blend in any Blender that has the extension, and renders it: run by a Blender executable, without torch.

blender -b --factory-startup --python saved_avatar.py -- EXTENSION.zip FILE.blend PICTURE
"""

import os
import sys

import bpy


def main(extension: str, blend: str, picture: str) -> None:
    bpy.ops.extensions.package_install_files(repo="user_default", filepath=extension, enable_on_install=True)
    bpy.ops.wm.open_mainfile(filepath=blend)
    bpy.context.scene.render.filepath = picture
    bpy.ops.render.render(write_still=True)
    print("RENDERED", bpy.app.version_string, flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[sys.argv.index("--") + 1 :])
    except Exception as error:
        print("FAILED", error, flush=True)
    finally:
        os._exit(0)  # Blender's own clean-up now and then hangs in software GPU drivers
