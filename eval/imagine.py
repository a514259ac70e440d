"""`foreact imagine`: ask a checkpoint what comes, on stored or fresh episodes, and compare with what came."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from ..data.batch import Batch
from ..data.dataset import Dataset
from ..data.slower import at_rate_of
from ..data.store import Store
from ..data.whole import write_json
from ..envs.errors import UserError, choose, positive
from ..envs.fields import columns
from ..policy import Policy
from ..policy.answers import Answer, Given
from ..policy.inputs import unbatched
from ..policy.known import KNOWN, known
from ..policy.segments import DYNAMICS, QUERIES, Role, role_of
from .reports.pictures import MOVING, Score
from .reports.storyboard import Look, write_storyboard

log = logging.getLogger(__name__)

ROWS = 16  # looks asked at once


def imagine(
    policy: Policy,
    data: Store,
    *,
    queries: Sequence[str] | None = None,
    episodes: int | Sequence[int] = 8,
    every: int = 4,
    guidance: float = 1.0,
    samples: int = 1,
    out: Path | str,
    shown: int = 4,
    progress: bool = True,
) -> dict[str, Any]:
    """Ask the queries at every so-manieth step of the episodes and write OUT/imagine.json and a video for each query.

    queries: default those of the policy's training that foresee pictures or look back at actions. episodes: numbers in
    the store, or how many of its last that the policy did not learn from. samples: so many draws whose mean the actions
    are: nearer to what was done than any one of them is, where several could have been. shown: episodes in the videos.
    Returns what imagine.json holds. `UserError` where the policy does not fit the store, or was not trained on a query
    and does not know its roles.
    """
    for name, value in (("every", every), ("samples", samples), ("episodes", episodes)):
        if isinstance(value, int):
            positive(name, value)
    queries = list(queries) if queries else _trained(policy)
    for query in queries:
        _check(policy, query)
    policy = policy.on(data.embodiment.name) if len(policy.robots) > 1 else policy
    data = at_rate_of(data, policy.embodiment)
    lines = policy.embodiment.differences(data.embodiment)
    if lines:
        raise UserError(f"the checkpoint does not fit store {data.path}:\n  " + "\n  ".join(lines))
    fields = policy.embodiment.state if policy.poses else policy.embodiment.action
    numbers, learned = _numbers(policy, data, episodes)
    dataset = Dataset(data, policy.transforms.windows, episodes=numbers)
    rows = [rows for rows in _looks(dataset, policy, every) if len(rows)]
    if not rows:
        raise UserError(f"no episode of {data.path} among {numbers} is longer than {policy.config.future[-1]} steps")
    out, results, sentences = Path(out), {}, list(data.instructions.values())
    out.mkdir(parents=True, exist_ok=True)
    with Progress(disable=not progress) as bar:
        for query in queries:
            task = bar.add_task(query, total=sum(map(len, rows)))
            score, boards = Score(), []
            for number, looks in enumerate(rows):
                board = []
                for part in np.array_split(looks, -(-len(looks) // ROWS)):
                    batch = dataset.batch(part)
                    told = [sentences[i] for i in batch.task.tolist()]
                    given, hidden = _given(policy, batch, query)
                    ask = partial(policy.ask, query, unbatched(batch), told, given=given, guidance=guidance)
                    board += _compare(policy, query, batch, hidden, _mean(ask, part, samples), score)
                    bar.advance(task, len(part))
                if number < shown:
                    boards.append(board)
            results[query] = score.summary([(field.name, places) for field, places in columns(fields)])
            if any(boards):
                write_storyboard(out / f"{query}.mp4", boards, title=query)
    about = {"moving": f"a colour differs from the present by more than {MOVING:g} of its range"}
    settings = {"episodes": numbers, "learned_from": learned, "every": every, "guidance": guidance, "samples": samples}
    found = {"queries": results, "ahead": list(policy.config.future), **about, **settings, "data": str(data.path)}
    write_json(out / "imagine.json", found)
    return found


def _numbers(policy: Policy, data: Store, episodes: int | Sequence[int]) -> tuple[list[int], list[int] | None]:
    """The episodes to ask about, and which of them the policy learned from, None where it does not say."""
    learned = {number for one in policy.learned or () for number in one.of(data)}
    if isinstance(episodes, int):
        unseen = [number for number in range(len(data)) if number not in learned]
        episodes = (unseen or range(len(data)))[-episodes:]
    numbers = [int(number) for number in episodes]
    seen = [number for number in numbers if number in learned]
    if seen:
        log.warning("%d of the %d episodes were learned from: %s", len(seen), len(numbers), seen)
    if policy.learned is None:
        log.warning("the checkpoint does not say what it learned from: these episodes may be among it")
    return numbers, None if policy.learned is None else seen


def _mean(ask: Callable[..., Answer], rows: np.ndarray, samples: int) -> Answer:
    """The answer for each row, with actions that are the mean of so many draws."""
    answer = ask(_keys(rows, 0))
    if answer.actions is None or samples == 1:
        return answer
    others = [ask(_keys(rows, draw)).actions for draw in range(1, samples)]
    return replace(answer, actions=np.mean(np.stack([answer.actions, *others]), axis=0))  # type: ignore[list-item]


def _keys(rows: np.ndarray, draw: int) -> list[tuple[int, ...]]:
    return [(0, int(row), draw) for row in rows]


def _compare(policy: Policy, query: str, batch: Batch, hidden: Tensor, answer: Answer, score: Score) -> list[Look]:
    """Score an answer against what came."""
    now, real = _pictures(policy, batch.images)[:, :, -1:], _pictures(policy, batch.future)
    if answer.frames:
        score.add_pictures(_stacked(policy, answer), real, now, hidden)
    if answer.actions is not None:
        wanted = batch.action_executed if query in DYNAMICS else batch.action
        wanted = batch.future_state if policy.poses else wanted
        padded = batch.future_pad if policy.poses else batch.action_pad
        assert wanted is not None
        assert padded is not None
        score.add_actions(answer.actions, wanted, padded)
    shown = [_by_camera(policy, pictures) for pictures in (now, real)]
    if not answer.frames:
        return []
    return [Look(shown[0][i], shown[1][i], {c: f[i, -1] for c, f in answer.frames.items()}) for i in range(len(batch))]


def _by_camera(policy: Policy, pictures: Tensor) -> list[dict[str, np.ndarray]]:
    """The last of each row's pictures (B, V, F, H, W, 3) in [0, 1], as uint8 by camera."""
    last = (255 * pictures[:, :, -1]).round().byte().numpy()
    return [{c: row[v] for v, c in enumerate(policy.transforms.cameras)} for row in last]


def _given(policy: Policy, batch: Batch, query: str) -> tuple[Given, Tensor]:
    """What the query observes, and the pixels (B, V, F, H, W) that it does not."""
    config, views = policy.config, len(policy.transforms.cameras)
    hidden = torch.ones(len(batch), views, len(config.future), config.pixels, config.pixels, dtype=torch.bool)
    shown = {}
    for name in policy.model.segments:
        role = role_of(query, name)
        if role in KNOWN:
            generator = torch.Generator().manual_seed(0)
            shape = policy.transforms.shapes[name]
            shown[name] = known(role, shape, torch.Size((len(batch), 1)), generator)[:, 0]
            if name == "future":
                cells = shape.restore(shown[name][..., None].expand(-1, -1, shape.width))[..., 0]
                cell = config.cell(name)
                cells = cells.repeat_interleave(cell, -2).repeat_interleave(cell, -1)
                hidden = ~cells.transpose(1, 2)
    executed = None if batch.action_executed is None else batch.action_executed.numpy()
    future, depth = ({c: v.numpy() for c, v in d.items()} for d in (batch.future, batch.future_depth))
    if policy.poses and batch.future_state is not None:
        executed = batch.future_state.numpy()
    return Given(actions=executed, future=future, depth=depth, shown=shown), hidden


def _pictures(policy: Policy, images: Mapping[str, Tensor]) -> Tensor:
    """(B, V, T, H, W, 3) in [0, 1], at the policy's size."""
    return (policy.transforms.frames(images) + 1) / 2


def _stacked(policy: Policy, answer: Answer) -> Tensor:
    return torch.from_numpy(np.stack([answer.frames[c] for c in policy.transforms.cameras], axis=1)).float() / 255


def _looks(dataset: Dataset, policy: Policy, every: int) -> Iterator[np.ndarray]:
    """Samples of each episode whose last foreseen frame lies inside it."""
    last = policy.config.future[-1]
    for episode in dict.fromkeys(dataset.episode.tolist()):
        samples = np.flatnonzero(dataset.episode == episode)
        yield samples[: max(0, len(samples) - last)][::every]


def _trained(policy: Policy) -> list[str]:
    return [q for q in policy.config.draws if "future" in QUERIES[q]] or ["joint"]


def _check(policy: Policy, query: str) -> None:
    """An untrained query is answered where times are independent: then every role of a whole segment was seen."""
    choose(query, QUERIES, "query")
    if not policy.config.future:
        raise UserError(f"policy {policy.config.name!r} foresees no frames; train a 'joint' preset for that")
    whole = all(role in (Role.OBSERVE, Role.DENOISE) for role in QUERIES[query].values())
    free = policy.config.times == "independent" and policy.config.coupling == "full" and "joint" in policy.config.draws
    if query not in policy.config.draws and not (whole and free and len(QUERIES[query]) == 2):
        raise UserError(
            f"policy {policy.config.name!r} was trained on {', '.join(policy.config.draws)} and not on {query!r}; "
            f"train with model.draws.{query}=1"
        )


def show(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the numbers of each query beside the copied present picture's."""
    title = f"foreseen {'/'.join(map(str, found['ahead']))} steps ahead, {len(found['episodes'])} episodes"
    table = Table("query", title=title)
    for name in ("PSNR [dB]", "copy", "moving pixels", "copy", "SSIM", "copy", "action R2"):
        table.add_column(name, justify="right")
    for query, row in found["queries"].items():
        names = ("psnr", "psnr_copy", "psnr_moving", "psnr_moving_copy", "ssim", "ssim_copy")
        numbers = [f"{row[n]:.2f}" if row.get(n) is not None else "" for n in names]
        table.add_row(query, *numbers, "\n".join(f"{k} {v:.3f}" for k, v in row.get("r2", {}).items() if v is not None))
    (console or Console()).print(table, f"moving: {found['moving']}")
