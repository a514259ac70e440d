"""Exported graphs: the actions of PyTorch, for any batch, solver and layout."""

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from foreact.envs.errors import UserError
from foreact.eval.export import export as export_checkpoint
from foreact.policy import load_policy
from foreact.policy.checkpoint import write_policy
from foreact.policy.diffusion.config import Process, SolverConfig
from foreact.policy.inputs import observe, unbatched
from foreact.policy.nn.config import ExpertsConfig
from foreact.policy.runtimes import FOLDER, Exported

from .fakes import batch_of

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture(
    scope="module",
    params=["tokens", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("stacked", "sequence", "experts"))],
)
def exported(request, make_policy, preset, stacked, tmp_path_factory):
    """A checkpoint folder with its graphs, the policy, and what the export said."""
    config = stacked if request.param == "stacked" else preset
    backbone = dataclasses.replace(config.backbone, depth=1)  # the exporter's time grows with it, and with the stem's
    image = dataclasses.replace(config.image, channels=(8, 8))
    config = dataclasses.replace(config, solver=SolverConfig(steps=3), backbone=backbone, image=image)
    if request.param == "sequence":
        mode = dataclasses.replace(
            backbone,
            norm="rms",
            activation="swiglu",
            conditioning="attention",
            time="log_sigma",
            experts=ExpertsConfig(),
        )
        process = Process(path="edm_mode", target="edm", times="log_logistic")
        config = dataclasses.replace(config, layout="sequence", backbone=mode, action_process=process)
    if request.param == "experts":
        config = dataclasses.replace(config, backbone=dataclasses.replace(backbone, experts=ExpertsConfig(shared=1)))
    policy, folder = make_policy(config), tmp_path_factory.mktemp(request.param)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.mul_(0.5)  # chunks that clipping leaves alone
    write_policy(folder, policy)
    return folder, policy, export_checkpoint(folder, rows=4, bounds={"onnx": 1e-5, "onnx-int8": 0.1})


def act(policy, rows: int, words: str = "go left") -> np.ndarray:
    seen = unbatched(batch_of(policy, rows, seed=rows))
    return policy.act(seen, [words] * rows, [(0, i) for i in range(rows)])


def test_the_errors_are_told_and_bounded(exported):
    folder, _, found = exported
    assert found["onnx"]["rms"] < 1e-6 < found["onnx-int8"]["rms"] < 0.1
    assert found["onnx-int8"]["bytes"] < found["onnx"]["bytes"]
    assert all(row["ms"] > 0 for row in found.values())
    assert (folder / FOLDER / "export.json").is_file()


@pytest.mark.parametrize("rows", [1, 3, 5])
@pytest.mark.parametrize("words", ["go left", "go right"])
def test_actions_are_those_of_pytorch(exported, rows, words):
    folder, policy, _ = exported
    fast = load_policy(folder, runtime="onnx")
    np.testing.assert_allclose(act(fast, rows, words), act(policy, rows, words), atol=1e-4)
    assert fast.runtime == "onnx"


def test_one_export_serves_every_solver(exported):
    folder, _, _ = exported
    fast = load_policy(folder, runtime="onnx")
    for solver in (SolverConfig(rule="midpoint", steps=2), SolverConfig(rule="heun", steps=4, plan=False)):
        fast.config = dataclasses.replace(fast.config, solver=solver)
        other = load_policy(folder)
        other.config = fast.config
        np.testing.assert_allclose(act(fast, 2), act(other, 2), atol=1e-4)


def test_the_graphs_do_the_work(exported, monkeypatch):
    """Without the weights of PyTorch's blocks the graphs act as before; other queries do not."""
    folder, policy, _ = exported
    fast = load_policy(folder, runtime="onnx")
    assert isinstance(fast.model, Exported)
    seen = unbatched(batch_of(policy, 2))
    ask = [seen, ["go left"] * 2, [(0, 0), (0, 1)]]
    plain = policy.ask("video", *ask).frames
    assert all(np.abs(fast.ask("video", *ask).frames[c].astype(int) - plain[c]).max() <= 1 for c in plain)
    with torch.no_grad():
        for weight in fast.model.backbone.blocks.parameters():
            weight.zero_()
    np.testing.assert_allclose(act(fast, 2), act(policy, 2), atol=1e-4)
    assert any(not np.array_equal(fast.ask("video", *ask).frames[c], plain[c]) for c in plain)


def test_errors_name_both_sides(exported, tmp_path, monkeypatch):
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    graphs = [folder / FOLDER / f"{name}.int8.onnx" for name in ("encode", "denoise")]
    monkeypatch.setattr("foreact.eval.export.write", lambda *args: {"onnx-int8": [v for v in graphs if v.is_file()]})
    with pytest.raises(UserError, match=r"differ from PyTorch's by .* more than the bound 1e-12"):
        export_checkpoint(folder, runtimes=["onnx-int8"], rows=2, bounds={"onnx-int8": 1e-12})
    with pytest.raises(UserError, match=r"int8.onnx: not there; make it with: foreact export"):
        load_policy(folder, runtime="onnx-int8")
    with pytest.raises(UserError, match="runtime 'onnx' runs on the CPU, and device=cuda was asked for"):
        load_policy(folder, "cuda", "onnx")
    with pytest.raises(UserError, match=r"unknown runtime 'tensorrt'; .* aot, compiled, onnx, onnx-int8, torch"):
        load_policy(folder, runtime="tensorrt")


COMPILED = """
import sys
import numpy as np
from foreact.data.batch import fake_batch
from foreact.policy import load_policy
from foreact.policy.inputs import unbatched
policies = [load_policy(sys.argv[1], "cpu", runtime) for runtime in ("torch", "compiled")]
seen = unbatched(fake_batch(policies[0].embodiment, size=2, n_obs_steps=2, horizon=6, n_future=2))
plain, compiled = (p.act(seen, ["go left"] * 2, [(0, 0), (0, 1)]) for p in policies)
np.testing.assert_allclose(compiled, plain, atol=1e-4)
assert np.abs(plain).max() > 1e-3
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::FutureWarning")  # of PyTorch about itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
class TestCompiled:
    def test_ahead_of_time(self, exported):
        folder, policy, _ = exported
        found = export_checkpoint(folder, runtimes=["aot"], rows=4, bounds={"aot": 1e-5})
        assert found["aot"]["bytes"] > 1000
        fast = load_policy(folder, runtime="aot")
        for rows in (1, 3):
            np.testing.assert_allclose(act(fast, rows), act(policy, rows), atol=1e-4)

    def test_when_it_is_first_called(self, exported):
        """In a process of its own: the compiler cannot see through the type checks of the tests."""
        subprocess.run([sys.executable, "-c", COMPILED, str(exported[0])], check=True)


def test_a_kept_encoding_is_in_memory_of_its_own(exported):
    _, policy, _ = exported
    seen = unbatched(batch_of(policy, 2))
    stacked = policy.config.layout == "stacked"
    with torch.no_grad():
        encoding = policy.model.encode(
            observe(policy.transforms, policy.sentences, "cpu", seen, ["go left"] * 2, foresee=stacked)
        )
        kept = encoding.clone()
        expected = [k.clone() for k, _ in encoding.context.layers] + list(map(torch.clone, encoding.beside.values()))
        for k, _ in encoding.context.layers:
            k.zero_()
        for values in encoding.beside.values():
            values.zero_()
    found = [*(k for k, _ in kept.context.layers), *kept.beside.values()]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
