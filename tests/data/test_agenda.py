import numpy as np
from foreact.data.agenda import Agenda, Todo
from foreact.data.schema import Episode
from hypothesis import given
from hypothesis import strategies as st


def _stub(job):
    """An episode of which only the place counts."""
    empty = np.zeros((0, 2), np.float32)
    numbers = {"images": {}, "state": empty, "action": empty, "action_executed": empty}
    return Episode(**numbers, task=job[0], instruction="", seed=job[1], source="", success=True)


@given(st.data(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 8))
def test_any_order_of_finishing_gives_one_order_of_entering(data, workers, tasks, wanted, ahead):
    fails = {(t, k): data.draw(st.booleans()) for t in range(tasks) for k in range(wanted * 3)}
    agenda = Agenda([Todo(str(t), wanted, 100, 0) for t in range(tasks)])
    entered, busy = [], []
    while any(todo.wanted for todo in agenda.tasks):
        while len(busy) < workers and (job := agenda.next_job(ahead=ahead)):
            busy.append(job)
        assert busy, "nobody works, and something is wanted"
        job = busy.pop(data.draw(st.integers(0, len(busy) - 1)))
        failed = fails.get((int(job[0]), job[1] - 100), False)
        agenda.finish(job, None if failed else _stub(job))
        entered += [(episode.task, episode.seed) for episode in agenda.enter()]
    successes = {t: [k for k in range(wanted * 4) if not fails.get((t, k), False)][:wanted] for t in range(tasks)}
    assert entered == [(str(t), 100 + k) for t in range(tasks) for k in successes[t]]
