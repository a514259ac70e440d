"""Everything that learns or denoises."""

from .checkpoint import load_policy
from .config import ModelConfig
from .policy import Policy
from .train import train
from .trainer import TrainConfig

__all__ = ["ModelConfig", "Policy", "TrainConfig", "load_policy", "train"]
