#!/usr/bin/env bash
# Runs the Blender of another system's folder (a Debian made by debootstrap, named by BLENDER_CHROOT) on this machine's
# screen and files, as if it were installed here. For the window test, where this machine's own system has no Blender:
#
#     BLENDER_CHROOT=DIR BLENDER=$PWD/tools/window_blender.sh make test
#
# /tmp, TMPDIR and this checkout are seen inside under the same paths. The engine that HEADSTUDIO_ENGINE names, and its
# Python, HEADSTUDIO_PYTHON, are started in this machine's own system, whose Python and libraries they were set up with.
# Needs root; its mounts end with Blender.
set -euo pipefail

if [ "${1:-}" != --inside ]; then
  export BLENDER_CHROOT=${BLENDER_CHROOT:?names the folder of the system that Blender is installed in}
  [ -x "$BLENDER_CHROOT/usr/bin/blender" ] || { echo "$BLENDER_CHROOT has no Blender" >&2; exit 1; }
  exec unshare --mount --propagation private "$0" --inside "$@"
fi

shift
inside=$(realpath "$BLENDER_CHROOT") here=$PWD
checkout=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
mkdir -p "$inside/mnt/machine"
mount --rbind / "$inside/mnt/machine"
mount --rbind /dev "$inside/dev"
mount --rbind /sys "$inside/sys"
mount -t proc proc "$inside/proc"
mount -t tmpfs tmpfs "$inside/run"
for path in /tmp "${TMPDIR:-/tmp}" "$checkout"; do
  mkdir -p "$inside$path"
  mount --bind "$path" "$inside$path"
done

for name in HEADSTUDIO_ENGINE HEADSTUDIO_PYTHON; do
  [ -n "${!name:-}" ] || continue
  printf '#!/bin/bash\nexec chroot /mnt/machine %q "$@"\n' "${!name}" >"$inside/run/${name,,}"
  chmod 755 "$inside/run/${name,,}"
  export "$name=/run/${name,,}"
done
export LIBGL_ALWAYS_SOFTWARE=1 XDG_RUNTIME_DIR=/run
exec chroot "$inside" env --chdir="$here" blender "$@"
