"""A short name for weights: the same weights have the same."""

import hashlib

from torch import nn


def fingerprint(module: nn.Module) -> str:
    """Sixteen hexadecimal digits of names and values."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
