"""Values that are computed once and kept in the store."""

import numpy as np
from foreact.data.derived import derived_rows, derived_vectors, now_at
from foreact.data.schema import fake_episode
from foreact.data.store import Store


def means(store, mark="a"):
    calls = []

    def compute(frames):
        calls.append(len(frames))
        return frames.mean((1, 2)).astype(np.float16)

    return np.load(derived_rows(store, "image/main", "means", mark, compute)), calls


def test_computed_once_extended_and_computed_anew_for_another_maker(many, robot):
    with Store.open(many) as store:
        values, calls = means(store)
        assert sum(calls) >= 80
        np.testing.assert_array_equal(values, store.read("image/main").mean((1, 2)).astype(np.float16))
        assert means(store)[1] == []
    with Store.open(many, mode="a") as store:
        store.append(fake_episode(robot, steps=8, seed=11, task="fake/task-0", privileged=True))
        longer, calls = means(store)
        assert len(longer) == 88
        assert sum(calls) < 80
        np.testing.assert_array_equal(longer, store.read("image/main").mean((1, 2)).astype(np.float16))
    with Store.open(many) as store:
        assert sum(means(store, "b")[1]) >= 88
        assert means(store)[1] == []  # what the first maker's readers have is not taken from them


def test_a_reader_finds_what_replaced_its_file(many, robot):
    def compute(frames):
        return frames.mean((1, 2)).astype(np.float16)

    with Store.open(many) as store:
        before = derived_rows(store, "image/main", "means", "a", compute)
    with Store.open(many, mode="a") as store:
        store.append(fake_episode(robot, steps=8, seed=11, task="fake/task-0", privileged=True))
        after = derived_rows(store, "image/main", "means", "a", compute)
    assert not before.exists()
    assert now_at(before) == after == now_at(after)


def test_texts(many):
    asked = []

    def embed(texts):
        asked.extend(texts)
        return np.array([[len(t), 1] for t in texts], np.float32)

    with Store.open(many) as store:
        for _ in range(2):
            assert derived_vectors(store, ["ab", "abc"], "words", "m", embed).tolist() == [[2, 1], [3, 1]]
    assert asked == ["ab", "abc"]


def test_the_store_stays_a_store(many):
    with Store.open(many) as store:
        means(store)
    with Store.open(many, mode="a") as store:
        assert len(store) == 10
