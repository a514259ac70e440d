import threading
import time

import numpy as np
from foreact.eval.policies import Asked
from foreact.eval.robot.clock import RealClock, SimulatedClock
from foreact.eval.robot.inference import Inference


def question(step):
    return Asked(observation={}, instruction="go", key=(0, 0, step), task="toy")


def think(asked):
    return np.full((4, 2), asked.key[-1], np.float32)


def test_in_simulated_time_an_answer_takes_exactly_its_latency():
    clock = SimulatedClock()
    inference = Inference(think, clock, latency=0.25)
    inference.ask(question(3))
    assert inference.busy
    clock.sleep_until(0.2499)
    assert inference.poll() is None
    clock.sleep_until(0.25)
    answer = inference.poll()
    assert answer.chunk[0, 0] == 3
    assert answer.latency == 0.25
    assert not inference.busy
    assert inference.poll() is None


def test_where_thinking_counts_an_answer_takes_that_time_or_its_latency():
    def slow(asked):
        time.sleep(0.02)
        return think(asked)

    for latency in (0.0, 5.0):
        clock = SimulatedClock(counts=True)
        inference = Inference(slow, clock, latency=latency, timeout=9)
        inference.ask(question(3))
        assert clock.now() == 0
        clock.sleep_until(0.0199)
        assert inference.poll() is None
        answer = inference.wait()
        assert 0.02 <= answer.latency < 5 if latency == 0 else answer.latency == 5


def test_jitter_stays_within_its_range_and_is_the_same_again():
    def latencies(seed):
        clock = SimulatedClock()
        inference = Inference(think, clock, latency=0.1, jitter=0.2, seed=seed)
        for step in range(20):
            inference.ask(question(step))
            clock.sleep_until(clock.now() + 0.3)
            inference.poll()
        return inference.latencies

    found = latencies(1)
    assert len(set(found)) == 20
    assert min(found) >= 0.1
    assert max(found) <= 0.3 + 1e-9
    assert found == latencies(1) != latencies(2)


def test_what_fails_is_a_lost_answer_with_its_reason():
    inference = Inference(lambda asked: 1 / 0, SimulatedClock())
    inference.ask(question(0))
    answer = inference.poll()
    assert answer.chunk is None
    assert answer.error == "ZeroDivisionError: division by zero"
    assert inference.latencies == []


def test_in_real_time_the_loop_goes_on_and_a_stuck_policy_is_waited_for():
    go = threading.Event()

    def slow(asked):
        if asked.key[-1] == 0:
            go.wait(10)
        return think(asked)

    inference = Inference(slow, RealClock(), timeout=0.05)
    before = time.monotonic()
    inference.ask(question(0))
    assert inference.poll() is None
    assert time.monotonic() - before < 0.05
    answer = inference.wait()
    assert answer.error == "no answer within 0.05 s"
    assert inference.busy  # two at once would share what a policy keeps
    assert inference.poll() is None
    go.set()
    until = time.monotonic() + 10
    while inference.busy and time.monotonic() < until:
        assert inference.poll() is None  # its late answer is dropped
    inference.timeout = 10
    inference.ask(question(1))
    assert inference.wait().chunk[0, 0] == 1


def test_the_next_answer_is_expected_to_take_as_long_as_the_slowest_of_late():
    clock = SimulatedClock()
    inference = Inference(think, clock, latency=0.1, jitter=0.0)
    assert inference.expected == 0.1
    inference.latencies += [0.5, *[0.2] * 10]
    assert inference.expected == 0.2


def test_the_end_waits_for_a_thread_that_still_thinks():
    thought = []

    def think(asked):
        time.sleep(0.1)
        thought.append(asked)
        return np.zeros((4, 2), np.float32)

    inference = Inference(think, RealClock())
    inference.end()  # nobody was asked
    inference.ask(question(0))
    inference.end()
    assert len(thought) == 1
