"""Everything that learns or denoises."""

from .checkpoint import load_policy
from .config import ModelConfig
from .fitting import TrainConfig
from .policy import Policy
from .train import train

__all__ = ["ModelConfig", "Policy", "TrainConfig", "load_policy", "train"]
