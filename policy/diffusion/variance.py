"""The variance of a reverse step of DDPM: fixed, or learned with the variational bound.

Going from t back to s < t, the true posterior q(x_s | x_t, x0) has variance β̃, and β is the largest that is sensible.
A network that learns the variance says for each number where between them its logarithm lies (Nichol and Dhariwal 2021,
eq. 15), and trains that with the Kullback-Leibler divergence of one step, whose mean it cannot move (eq. 16).
"""

import math

import torch
from torch import Tensor

from .path import Path, expand

STEP = 1e-3
"""Length of a training step: DDPM's table has 1000."""


def posterior(path: Path, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """(β, β̃) of the step from t to s, in t's precision; both 0 where s is clean data."""
    alpha_t, sigma_t, alpha_s, sigma_s = path.alpha(t), path.sigma(t), path.alpha(s), path.sigma(s)
    beta = (sigma_t.square() - (alpha_t / alpha_s * sigma_s).square()).clamp(min=0)
    return beta, beta * (sigma_s / sigma_t).square()


def log_variance(share: Tensor, beta: Tensor, beta_tilde: Tensor) -> Tensor:
    """The logarithm of the variance at `share` of the way from β̃ to β, in logarithms (eq. 15)."""
    return share * beta.log() + (1 - share) * beta_tilde.log()


def share_of(raw: Tensor) -> Tensor:
    """A network's raw output, around -1 to 1, as a share from 0 to 1."""
    return (raw + 1) / 2


def bound(path: Path, x0: Tensor, found: Tensor, raw: Tensor, t: Tensor) -> Tensor:
    """KL divergence [bits] of one training step for every number of x0 (B, N, L, C); t (B, N).

    found: x̂0, whose gradient is stopped · raw: the network's variance output. At the first step, where the posterior is
    a point, the second is taken in its place: the decoder's likelihood of pixels in 256 levels means nothing here.
    """
    t = t.double().clamp(min=2 * STEP)
    s = t - STEP
    beta, beta_tilde = (expand(v, x0) for v in posterior(path, t, s))
    alpha, sigma = path.alpha(s), path.sigma(t)
    scale = expand(alpha, x0) * beta / expand(sigma, x0).square()  # the share of x0 in the posterior's mean
    true = beta_tilde.log()
    ours = log_variance(share_of(raw.double()), beta, beta_tilde)
    gap = scale * (x0 - found.detach()).double()
    nats = 0.5 * (ours - true - 1 + (true - ours).exp() + gap.square() * (-ours).exp())
    return (nats / math.log(2)).to(torch.float32)
