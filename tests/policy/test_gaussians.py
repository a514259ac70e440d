"""One network, five distributions: the pair (x, y) of a two-dimensional Gaussian mixture, where the truth is known."""

import numpy as np
import pytest
import torch
from foreact.policy.denoiser import Denoiser, Encoding
from foreact.policy.diffusion.config import Process, SolverConfig
from foreact.policy.loss import segment_losses
from foreact.policy.nn.backbone import Context
from foreact.policy.nn.config import BackboneConfig
from foreact.policy.prepared import Prepared
from foreact.policy.sample import Network, Start, sample
from foreact.policy.segments import Role, roles_of
from foreact.policy.shapes import Shape
from scipy.optimize import linear_sum_assignment
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

MEANS = np.array([[-0.7, -0.6], [0.7, -0.4], [0.1, 0.8]])
STDS = np.array([[0.25, 0.2], [0.2, 0.3], [0.3, 0.25]])
WEIGHTS = np.array([0.3, 0.3, 0.4])
N, WIDTH = 16000, 64
DRAWS = {"joint": 2, "forward_dynamics": 1, "inverse_dynamics": 1}


def draw(n: int, rng: np.random.Generator) -> np.ndarray:
    which = rng.choice(3, size=n, p=WEIGHTS)
    return rng.normal(MEANS[which], STDS[which])


def conditional(given: int, value: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Samples of the other coordinate, where coordinate `given` has this value."""
    density = WEIGHTS / STDS[:, given] * np.exp(-0.5 * ((value - MEANS[:, given]) / STDS[:, given]) ** 2)
    which = rng.choice(3, size=n, p=density / density.sum())
    return rng.normal(MEANS[which, 1 - given], STDS[which, 1 - given])[:, None]


def w2_squared(a: np.ndarray, b: np.ndarray) -> float:
    """Squared 2-Wasserstein distance of two samples of equal size: optimal assignment, a sort in one dimension."""
    if a.shape[1] == 1:
        return float(np.mean((np.sort(a[:, 0]) - np.sort(b[:, 0])) ** 2))
    a, b = a[:2000], b[:2000]
    cost = ((a[:, None] - b[None]) ** 2).sum(-1)
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean())


def excess(found: np.ndarray, truth) -> tuple[float, float]:
    """(W2 beyond sampling noise, the noise): two samples of the truth are apart by the noise as well."""
    rng = np.random.default_rng(7)
    pairs = [(truth(len(found), rng), truth(len(found), rng)) for _ in range(3)]
    noise = float(np.mean([w2_squared(a, b) for a, b in pairs]))
    distance = float(np.mean([w2_squared(found, a) for a, _ in pairs]))
    return max(distance - noise, 0) ** 0.5, noise**0.5


@pytest.fixture(scope="module")
def network() -> Denoiser:
    """Trained on the joint with times of their own for x ('action') and y ('future'), and on each given the other."""
    torch.manual_seed(0)
    shape = Shape(1, 1, 1, 1, 1)
    process = Process(times="logit_normal", times_settings={"scale": 1.5})
    backbone = BackboneConfig(width=WIDTH, depth=3, heads=1, mlp_ratio=2, activation="silu", gate_init=0.5)
    model = Denoiser(backbone, {"action": shape, "future": shape}, {"action": process, "future": process})
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0, fused=True)
    steps, batch, rng, generator = 3000, 256, np.random.default_rng(0), torch.Generator().manual_seed(0)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    keep = {name: torch.ones(batch, 1, 1, dtype=torch.bool) for name in ("action", "future")}
    for _ in range(steps):
        xy = torch.from_numpy(draw(batch, rng)).float()[:, :, None, None]
        prepared = Prepared(nothing(batch), {"action": xy[:, 0], "future": xy[:, 1]}, keep)
        torch.stack(list(segment_losses(model, prepared, DRAWS, generator).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        averaged.update_parameters(model)
    return averaged.module.eval()


def nothing(n: int) -> Encoding:
    return Encoding(Context([]), {})


@torch.inference_mode()
def sampled(network: Denoiser, query: str, marginal: str = "", **given: float) -> np.ndarray:
    """N samples of a query's denoised segments, the others given or as pure noise."""
    generator = torch.Generator().manual_seed(1)
    noise = {name: torch.randn(N, 1, 1, generator=generator) for name in ("action", "future")}
    roles = roles_of(query, network.segments) | ({marginal: Role.MARGINAL} if marginal else {})
    start = Start(roles, noise, {name: torch.full((N, 1, 1), value) for name, value in given.items()})
    found = sample(Network(network, SolverConfig(rule="midpoint", steps=20)), nothing(N), start)
    return np.concatenate([found[name][:, 0].numpy() for name in ("action", "future") if name in start.moving()], 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_network_samples_joint_marginals_and_conditionals(network):
    cases = {
        "p(x,y)": (sampled(network, "joint"), draw),
        "p(x)": (sampled(network, "policy", marginal="future"), lambda n, rng: draw(n, rng)[:, :1]),
        "p(y)": (sampled(network, "video", marginal="action"), lambda n, rng: draw(n, rng)[:, 1:]),
    }
    for x in (-0.8, 0.2, 0.7):
        found = sampled(network, "forward_dynamics", action=x)
        cases[f"p(y|x={x})"] = (found, lambda n, rng, x=x: conditional(0, x, n, rng))
    for y in (-0.6, 0.5):
        found = sampled(network, "inverse_dynamics", future=y)
        cases[f"p(x|y={y})"] = (found, lambda n, rng, y=y: conditional(1, y, n, rng))
    distances = {name: excess(found, truth) for name, (found, truth) in cases.items()}
    for name, (beyond, noise) in distances.items():
        print(f"{name}: W2 beyond sampling noise {beyond:.4f} (noise {noise:.4f})")
    assert all(beyond < 0.05 for beyond, _ in distances.values()), distances
