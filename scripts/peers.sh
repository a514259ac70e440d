#!/usr/bin/env bash
# Make .venv-lerobot with lerobot 0.4.4, the last for Python 3.11, beside the torch that foreact is tested with.
# `make bench-peers` runs this. Its own requirements ask for an older torch, so they are listed here without it.
# UV_TORCH_BACKEND=cpu takes the small CPU build of torch, as in install.sh: the benches with lerobot run on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."

links=${PIP_FIND_LINKS:-}
export UV_FIND_LINKS="${UV_FIND_LINKS:-${links// /,}}"
uv=$(command -v uv || echo .venv/bin/uv)
"$uv" --version >/dev/null 2>&1 || { echo "peers: needs uv: .venv/bin/pip install uv" >&2; exit 1; }
same() { .venv/bin/python -c "from importlib.metadata import version; print('$1==' + version('$1').partition('+')[0])"; }
"$uv" venv --allow-existing --python 3.11 .venv-lerobot
install=("$uv" pip install --python .venv-lerobot)
"${install[@]}" "$(same torch)" "$(same metaworld)" "$(same mujoco)" "numpy<2.3" "datasets>=4,<5" "av>=15,<16" \
  pyarrow jsonlines draccus==0.10.0 "huggingface-hub<0.36" accelerate deepdiff "imageio[ffmpeg]" opencv-python-headless gymnasium einops pandas diffusers \
  packaging pyserial termcolor
"${install[@]}" --no-deps lerobot==0.4.4 torchvision==0.28.0
.venv-lerobot/bin/python -c 'import lerobot'
