"""Faults planted in a store of two tasks with `EPISODES` each, and the check of the doctor that has to find each."""

import numpy as np
import zarr
from foreact.data.store import Store

EPISODES = 2
FREEZE = 20  # steps


def edit(path, name, change, episode=1):
    """Change the rows of one episode in place, with plain zarr."""
    array = zarr.open_array(path / name, mode="r+")
    rows = _rows(path, episode)
    values = np.asarray(array[rows])
    changed = change(values)
    array[rows] = values if changed is None else changed


def _rows(path, episode):
    ends = np.asarray(zarr.open_array(path / "meta/episode_ends", mode="r")[:])
    return slice(int(ends[episode - 1]) if episode else 0, int(ends[episode]))


def nan_action(path):
    def change(values):
        values[7, 1] = np.nan

    edit(path, "data/action", change)


def frozen_camera(path):
    def change(frames):
        frames[10 : 10 + FREEZE] = frames[10]

    edit(path, "data/image/main", change)


def clipped_actions(path):
    for name in ("data/action", "data/action_executed"):
        edit(path, name, lambda values: values.clip(-0.3, 0.3))


def unclipped_actions(path):
    edit(path, "data/action", lambda values: values * 3)


def constant_action(path):
    for name in ("data/action", "data/action_executed"):
        edit(path, name, lambda values: values[:1].repeat(len(values), axis=0))


def saturated_gripper(path):
    def change(values):
        values[:, 3] = 1.0

    edit(path, "data/state", change)


def saturated_gripper_effort(path):
    def change(values):
        values[:, 3] = 1.0

    edit(path, "data/action_executed", change)


def wrong_length(path):
    ends = zarr.open_array(path / "meta/episode_ends", mode="r+")
    ends[2] = int(np.asarray(ends[1])) - 3


def lost_rows(path):
    array = zarr.open_array(path / "data/state", mode="r+")
    array.resize((array.shape[0] - 4, array.shape[1]))


def time_gap(path):
    for name in ("state", "action", "action_executed", "privileged", "image/main"):

        def change(values):  # 12 steps are missing on the way; the robot rests at the end instead
            values[8:-12] = values[20:].copy()
            values[-12:] = values[-1]

        edit(path, f"data/{name}", change, episode=EPISODES)  # of reach, which moves from the start


def duplicate_episode(path):
    with Store.open(path, "a") as store:
        store.append(store.episode(2))


def repeated_seed(path):
    seeds = zarr.open_array(path / "meta/seed", mode="r+")
    seeds[1] = int(np.asarray(seeds[0]))


def flipped_action_sign(path):
    def change(values):
        values[:, 1] *= -1

    for name in ("data/action", "data/action_executed"):
        edit(path, name, change)


def opposed_actions(path):
    def change(values):
        values[:, 1] *= -1

    edit(path, "data/action", change)


def shifted_actions(path):
    for name in ("data/action", "data/action_executed"):
        edit(path, name, lambda values: np.roll(values, 8, axis=0))


def flipped_images(path):
    edit(path, "data/image/main", lambda frames: frames[:, ::-1])


def black_frames(path):
    def change(frames):
        frames[5:9] = 0

    edit(path, "data/image/main", change)


def corrupted_chunk(path):
    chunk = max((path / "data/image/main").glob("c*"))
    content = bytearray(chunk.read_bytes())
    for i in range(len(content) // 4, len(content) // 4 + 64):
        content[i] ^= 0xFF
    chunk.write_bytes(content)


def lost_chunk(path):
    next((path / "data/action").glob("c*")).unlink()


def missing_instruction(path):
    zarr.open_array(path / "meta/instruction", mode="r+")[1] = " "


def failed_episode(path):
    zarr.open_array(path / "meta/success", mode="r+")[1] = False


FAULTS = {
    nan_action: "not_finite",
    frozen_camera: "frozen_camera",
    clipped_actions: "clipped_action",
    unclipped_actions: "out_of_bounds",
    constant_action: "constant_action",
    saturated_gripper: "saturated_gripper",
    saturated_gripper_effort: "saturated_gripper",
    wrong_length: "wrong_length",
    lost_rows: "wrong_length",
    time_gap: "time_gap",
    duplicate_episode: "duplicate_episode",
    repeated_seed: "duplicate_episode",
    flipped_action_sign: "state_action",
    opposed_actions: "state_action",
    shifted_actions: "state_action",
    flipped_images: "flipped_images",
    black_frames: "blank_frames",
    corrupted_chunk: "unreadable",
    lost_chunk: "unreadable",
    missing_instruction: "instruction",
    failed_episode: "failed_episodes",
}
