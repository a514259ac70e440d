"""A short name for weights: the same weights have the same."""

import hashlib

from torch import nn


def fingerprint(module: nn.Module) -> str:
    """Sixteen hexadecimal digits of names and values."""
    digest = hashlib.sha256()
    # without the part that names have since the feed-forward layer is a module of its own: what was made stays valid
    weights = {name.replace(".mlp.", "."): value for name, value in module.state_dict().items()}
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
