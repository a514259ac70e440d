"""Consistency distillation: its targets where they are known, and a student from a run."""

import dataclasses

import numpy as np
import pytest
import torch
from foreact.envs.errors import UserError
from foreact.policy import TrainConfig, load_policy, train
from foreact.policy.diffusion.config import SolverConfig
from foreact.policy.diffusion.path import PATHS
from foreact.policy.distill import Consistency, DistillConfig, jump, landing
from foreact.policy.inputs import observe, unbatched
from foreact.policy.loss import Drawn
from foreact.policy.segments import Role, assume
from hypothesis import given
from hypothesis import strategies as st

from .fakes import batch_of

SHORT = TrainConfig(steps=2, batch_size=4, save_every=1, val_every=2, warmup=1)


@pytest.mark.parametrize("name", PATHS)
@given(t=st.floats(0.05, 1), share=st.floats(0, 0.95))
def test_landing_inverts_the_jump(name, t, share):
    x, x0 = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    t, s = torch.full((3, 2), t, dtype=torch.float64), torch.full((3, 2), t * share, dtype=torch.float64)
    z = jump(PATHS[name], x, x0, t, s)
    torch.testing.assert_close(landing(PATHS[name], x, z, t, s), x0)


class TestTargets:
    """On a policy of the tiny preset, for actions with a committed prefix and without."""

    @pytest.fixture
    def policy(self, make_policy, preset):
        return make_policy(preset)

    def lesson(self, policy, steps: int, substeps: int) -> tuple[Consistency, dict[str, Drawn]]:
        config = policy.config
        batch = batch_of(policy)
        seen = observe(policy.transforms, policy.sentences, "cpu", unbatched(batch), ["go left"] * 3)
        with torch.no_grad():
            encoding = policy.model.encode(seen)
        lesson = Consistency(DistillConfig(steps=steps, substeps=substeps), policy.model, encoding, encoding)
        process, generator = policy.model.processes["action"], torch.Generator().manual_seed(0)
        x0, eps = torch.randn(2, 3, 5, config.horizon, 4, generator=generator)
        t = lesson.times(process, x0.shape[:2], generator, torch.device("cpu"))
        clean = torch.zeros(x0.shape[:3], dtype=torch.bool)
        clean[1, :, :2] = True
        seen_now = assume(Role.CONTINUE, x0, eps, t, PATHS[process.path], clean)
        return lesson, {"action": Drawn(x0, eps, seen_now)}

    def test_with_one_substep_the_teacher_decides_alone(self, policy):
        lesson, drawn = self.lesson(policy, steps=4, substeps=1)
        with torch.no_grad():
            wanted = lesson.wanted(policy.model, drawn, ["action"])["action"]
            plain = policy.model.denoise({"action": drawn["action"].seen}, lesson.seen)["action"]
        free = ~drawn["action"].seen.clean
        torch.testing.assert_close(wanted[free], plain[free], atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize(("steps", "substeps"), [(1, 8), (2, 4), (3, 1)])
    def test_a_straight_path_is_its_own_student(self, policy, steps, substeps):
        """Where the velocity is the same everywhere, one step and many end in the same place."""
        lesson, drawn = self.lesson(policy, steps, substeps)
        with torch.no_grad():
            policy.model.head["action"].weight.zero_()
            wanted = lesson.wanted(policy.model, drawn, ["action"])["action"]
        free = ~drawn["action"].seen.clean
        expected = policy.model.head["action"].bias.expand_as(wanted)
        torch.testing.assert_close(wanted[free], expected[free], atol=1e-4, rtol=1e-4)

    def test_the_student_decides_inside_a_piece(self, policy, make_policy):
        lesson, drawn = self.lesson(policy, steps=1, substeps=8)
        other = make_policy(policy.config)
        with torch.no_grad():
            other.model.head["action"].bias.add_(1)
            mine, theirs = (lesson.wanted(m, drawn, ["action"])["action"] for m in (policy.model, other.model))
        last = drawn["action"].seen.t < 1 / 8 + 1e-6  # the teacher's step ends the piece
        assert last.any()
        assert torch.equal(mine[last], theirs[last])
        assert not torch.isclose(mine[~last], theirs[~last]).all()

    def test_times_are_those_of_the_pieces(self, policy):
        lesson, _ = self.lesson(policy, steps=2, substeps=3)
        grid = lesson.grid(policy.model.processes["action"])
        torch.testing.assert_close(grid, torch.linspace(1, 0, 7, dtype=grid.dtype))
        t = lesson.times(policy.model.processes["action"], torch.Size((400, 1)), torch.Generator(), torch.device("cpu"))
        assert sorted(set(t.flatten().tolist())) == pytest.approx([i / 6 for i in range(1, 7)])


@pytest.fixture(scope="module")
def small(preset):
    return dataclasses.replace(preset, solver=SolverConfig(steps=8), draws={"policy": 1, "continue": 1, "joint": 0.5})


@pytest.fixture(scope="module")
def teacher(store, small, tmp_path_factory):
    return train(store, small, SHORT, tmp_path_factory.mktemp("teacher") / "run", progress=False)


def test_a_student_of_a_run(store, teacher, tmp_path):
    about = DistillConfig(steps=2, substeps=4)
    run = train(store, about, SHORT, tmp_path / "student", teacher=teacher, progress=False)
    student, begun = load_policy(run), load_policy(teacher)
    assert student.config.solver == SolverConfig(rule="euler", steps=2)
    assert student.config.draws == {"policy": 1, "continue": 1}
    assert student.config.name.endswith("/2-step")
    for name, normalizer in begun.transforms.normalizers.items():
        assert normalizer.to_dict() == student.transforms.normalizers[name].to_dict()
    seen = unbatched(batch_of(student, 1))
    assert student.act(seen, ["go left"], [(0, 0)]).shape == (1, 6, 4)
    again = train(store, about, SHORT, tmp_path / "again", teacher=teacher, progress=False)
    weights = (dict(load_policy(path).model.state_dict()) for path in (run, again))
    assert all(torch.equal(a, b) for a, b in zip(*(w.values() for w in weights), strict=True))


@pytest.mark.slow
def test_a_student_comes_nearer_to_its_teacher(store, small, tmp_path):
    import json

    long = dataclasses.replace(SHORT, steps=300, val_every=20, lr=3e-3, ema=0.9)
    teacher = train(store, small, long, tmp_path / "teacher", progress=False)
    run = train(store, DistillConfig(steps=1), long, tmp_path / "student", teacher=teacher, progress=False)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    away = [row["val/teacher"] for row in rows if "val/teacher" in row]
    assert np.mean(away[-3:]) < 0.5 * away[0]


def test_clear_errors(store, small, tmp_path, embodiment):
    with pytest.raises(UserError, match="model=distill and teacher=RUN go together"):
        train(store, DistillConfig(), SHORT, tmp_path / "x", progress=False)
    with pytest.raises(UserError, match="model=distill and teacher=RUN go together"):
        train(store, small, SHORT, tmp_path / "x", teacher=tmp_path, progress=False)
    with pytest.raises(UserError, match="steps must be at least 1"):
        DistillConfig(steps=0)


def test_a_loss_that_a_student_lacks_is_not_ignored(store, teacher, tmp_path):
    aligned = dataclasses.replace(SHORT, align=0.5)
    with pytest.raises(UserError, match=r"align=0.5 is a loss that a student does not have"):
        train(store, DistillConfig(), aligned, tmp_path / "x", teacher=teacher, progress=False)
