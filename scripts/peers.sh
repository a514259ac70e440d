#!/usr/bin/env bash
# Make .venv-lerobot with lerobot 0.4.4, the last for Python 3.11, beside the torch that foreact is tested with, and with
# foreact, whose control loop drives lerobot's robots there; and .venv-openpi with openpi's own client, which needs an
# older numpy. `make bench-peers` and `make interop` run this; `bash scripts/peers.sh openpi` makes that one alone.
# lerobot's own requirements ask for an older torch, so they are listed here without it.
# UV_TORCH_BACKEND=cpu takes the small CPU build of torch, as in install.sh: the benches with lerobot run on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."

links=${PIP_FIND_LINKS:-}
export UV_FIND_LINKS="${UV_FIND_LINKS:-${links// /,}}"
uv=$(command -v uv || echo .venv/bin/uv)
"$uv" --version >/dev/null 2>&1 || { echo "peers: needs uv: .venv/bin/pip install uv" >&2; exit 1; }
make_openpi() {
  "$uv" venv --allow-existing --python 3.11 .venv-openpi
  "$uv" pip install --python .venv-openpi openpi-client==0.1.2 "numpy<2" "websockets<17" typing-extensions  # the last two: as it is written for
  .venv-openpi/bin/python -c 'import openpi_client.websocket_client_policy'
}
make_openpi
if [ "${1:-}" = openpi ]; then exit; fi
same() { .venv/bin/python -c "from importlib.metadata import version; print('$1==' + version('$1').partition('+')[0])"; }
"$uv" venv --allow-existing --python 3.11 .venv-lerobot
install=("$uv" pip install --python .venv-lerobot)
"${install[@]}" "$(same torch)" "$(same metaworld)" "$(same mujoco)" "numpy<2.3" "datasets>=4,<5" "av>=15,<16" \
  pyarrow jsonlines draccus==0.10.0 "huggingface-hub<0.36" accelerate deepdiff "imageio[ffmpeg]" opencv-python-headless gymnasium einops pandas diffusers \
  packaging pyserial termcolor hydra-core jaxtyping matplotlib msgpack rich websockets zarr
"${install[@]}" --no-deps lerobot==0.4.4 torchvision==0.28.0 -e .
.venv-lerobot/bin/python -c 'import lerobot'
