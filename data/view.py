"""A store as a web page: what is in it, videos of some episodes, their actions and states, statistics."""

from pathlib import Path

import numpy as np

from ..envs.errors import UserError
from ..envs.fields import columns
from .info import describe, labels, megabytes, percent, statistics
from .page import Clip, Page
from .plot import histogram, line_plot
from .schema import Episode
from .store import Store
from .video import write_video

_FPS = 30.0  # slower than real time where the robot is faster: one can see what happens
_STEPS_FOR_STATISTICS = 200_000


def view(path: Path | str, out: Path | str | None = None, episodes: int = 12) -> Path:
    """Write the page of the store at `path` into the folder `out` (default: beside the store, NAME-view).

    Shows up to `episodes` episodes, taken evenly from all tasks. Returns the path of index.html, which opens
    in a browser without a server.
    """
    if episodes < 0:
        raise UserError(f"view: episodes must be >= 0, got {episodes}")
    path = Path(path)
    out = Path(out) if out is not None else path.absolute().with_name(f"{path.absolute().name}-view")
    with Store.open(path) as store:
        facts = describe(store)
        page = Page(f"Store {path.name}", f"{facts['embodiment']} at {facts['control_hz']:g} Hz")
        success = percent(facts["success"])
        counts = [("episodes", len(store)), ("steps", store.n_steps), ("tasks", len(store.tasks))]
        page.facts([*counts, ("success", success), ("on disk", megabytes(facts["bytes"]))])
        _overview(page, facts)
        _episodes(page, store, out, pick(store, episodes))
        _statistics(page, store)
    return page.write(out / "index.html")


def pick(store: Store, n: int) -> list[int]:
    """At most n episode numbers: the same share of every task, spread over its episodes."""
    by_task = {task: [i for i, t in enumerate(store.meta.task) if t == task] for task in store.tasks}
    share = {task: min(len(all_), n // len(by_task)) for task, all_ in by_task.items()}
    while sum(share.values()) < min(n, len(store)):  # what is left over goes to those who have shown least
        task = min((t for t in by_task if share[t] < len(by_task[t])), key=lambda t: share[t])
        share[task] += 1
    chosen = [all_[int(k)] for t, all_ in by_task.items() for k in np.linspace(0, len(all_) - 1, share[t]).round()]
    return sorted(set(chosen))


def _overview(page: Page, facts: dict) -> None:
    for title, key in (("Tasks", "tasks"), ("Cameras", "cameras"), ("Arrays", "arrays")):
        rows = facts[key]
        if rows:
            page.section(title).table(list(rows[0]), [list(row.values()) for row in rows])
    page.section("Conventions").table(["of", "convention"], facts["conventions"].items())
    if facts["collected"]:
        page.section("How it was collected").table(["setting", "value"], facts["collected"].items())


def _episodes(page: Page, store: Store, out: Path, chosen: list[int]) -> None:
    if not chosen:
        return
    speed = min(1.0, _FPS / store.embodiment.control_hz)
    page.section("Episodes").text(
        f"{len(chosen)} of {len(store)} episodes; videos play at {speed:.2g} times real speed. An action is "
        "what a policy learns; 'executed' is what moved the robot, where the two differ."
    )
    for i in chosen:
        episode = store.episode(i)
        mark = "succeeded" if episode.success else "failed"
        page.heading(f"{i}: {episode.task}, seed {episode.seed}, {episode.source}, {len(episode)} steps, {mark}")
        page.videos(_clips(store, out, i, episode))
        page.figures(_traces(store, episode))


def _clips(store: Store, out: Path, i: int, episode: Episode) -> list[Clip]:
    fps = min(_FPS, store.embodiment.control_hz)
    clips = []
    for camera in store.embodiment.cameras:
        scale = max(1, 288 // camera.height)
        file = out / "videos" / f"episode_{i:06d}_{camera.name}.mp4"
        write_video(file, episode.images[camera.name], fps, scale=scale)
        clips.append(Clip(file, f"{camera.name}: {episode.instruction}", episode.success))
    return clips


def _traces(store: Store, episode: Episode) -> list[tuple[str, str]]:
    spec, figures = store.embodiment, []
    seconds = np.arange(len(episode)) / spec.control_hz
    for field, both in columns(spec.action):
        names = labels((field,))
        lines = {name: episode.action[:, k] for name, k in zip(names, both, strict=True)}
        if not np.array_equal(episode.action[:, both], episode.action_executed[:, both]):
            lines |= {f"{name} executed": episode.action_executed[:, k] for name, k in zip(names, both, strict=True)}
        figures.append((line_plot(lines, x=seconds, xlabel="s", ylabel="action", size=(380, 190)), field.name))
    for field, places in columns(spec.state):
        lines = {name: episode.state[:, k] for name, k in zip(labels((field,)), places, strict=True)}
        figures.append((line_plot(lines, x=seconds, xlabel="s", ylabel=field.unit, size=(380, 190)), field.name))
    return figures


def _statistics(page: Page, store: Store) -> None:
    if not store.n_steps:
        return
    spec = store.embodiment
    rows = np.unique(np.linspace(0, store.n_steps - 1, min(store.n_steps, _STEPS_FOR_STATISTICS)).astype(np.int64))
    page.section("Statistics")
    kinds = {"state": spec.state, "action": spec.action, "action_executed": spec.action}
    kinds = {kind: fields for kind, fields in kinds.items() if fields}  # video alone has none
    if store.has_privileged:
        kinds["privileged"] = spec.privileged
    for kind, fields in kinds.items():
        values, names = store.read(kind, rows), labels(fields)
        columns = statistics(values)
        page.heading(kind).table(["", *columns], [[n, *(c[k] for c in columns.values())] for k, n in enumerate(names)])
        page.figures((histogram(values[:, k]), name) for k, name in enumerate(names))
