"""`foreact control` and `foreact serve`: a policy on a robot, or for robots elsewhere."""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import signal
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..data.provenance import command_line
from ..data.whole import write_json
from ..envs.errors import UserError, choose
from ..envs.spec import Embodiment
from ..eval.robot import sweep
from ..eval.robot.clock import CLOCKS
from ..eval.robot.control import Control
from ..eval.robot.control_report import write_control_report
from ..eval.robot.logbook import Logbook
from ..eval.robot.runs import ControlSettings
from ..eval.robot.safety import EmergencyStop, SafetySettings
from ..policy.settings import build
from .compose import home, listed
from .robots import actor_of, loaded, robot_name, robot_of
from .terminal import console, say


def control(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run a policy on a robot, once for each mode, latency and jitter; returns what each `control.json` holds."""
    choose(config["clock"], CLOCKS, "clock")
    choose(config["robot"], ("simulated", "recorded", "lerobot"), "robot")
    arms = [dict(zip(sweep.ARM, values, strict=True)) for values in itertools.product(*map(listed, _arms(config)))]
    name = f"control-{config['robot']}-{time.strftime('%Y%m%d-%H%M%S')}"
    out = Path(config["out"]) if config["out"] else home() / name
    found, rows = [], []
    for arm in arms:
        folder = out if len(arms) == 1 else out / _folder(arm, config)
        run, robot = _control({**config, **arm}, folder)
        found.append(run)
        rows.append(sweep.row_of(run, folder, robot))
    if len(arms) > 1:
        write_json(out / "sweep.json", {"command": command_line(), "rows": rows, "runs": found})
        sweep.show(rows, console)
        sweep.draw(rows, out / "sweep.png")
        say(f"Plot: {out / 'sweep.png'}")
    return found


def _arms(config: Mapping[str, Any]) -> Iterator[Any]:
    return (config[name] for name in sweep.ARM)


def _folder(arm: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    jitter = f"-jitter{arm['jitter']:g}ms" if len(listed(config["jitter"])) > 1 else ""
    return f"{arm['mode']}-{arm['latency']:g}ms{jitter}"


def _control(config: Mapping[str, Any], out: Path) -> tuple[dict[str, Any], Embodiment]:
    clock = CLOCKS[config["clock"]]()
    settings = build(
        ControlSettings,
        {k: config[k] for k in ("mode", "hz", "max_steps", "seed", "timeout", "uncovered")}
        | {k: config[k] / 1e3 for k in ("latency", "jitter")},
        "control",
    )
    safety = build(SafetySettings, config["safety"], "safety")
    actor = actor_of(config)
    if name := robot_name(config, actor):
        actor = actor.on(name, config["n_action_steps"])
    robot = robot_of(config, actor, clock)
    about = {
        "policy": actor.name,
        "robot": robot.embodiment.name,
        "hz": settings.hz or robot.embodiment.control_hz,
        "settings": {**dataclasses.asdict(settings), "clock": config["clock"], "safety": dataclasses.asdict(safety)},
        "actor": actor.identity(),
        "command": command_line(),
    }
    stop = EmergencyStop()
    try:
        robot.connect()
        loop = Control(robot, actor, clock, settings, safety, stop=stop, keep=config["record"])
        book = Logbook(out, robot.embodiment, about, record=config["record"])
        with contextlib.closing(book), _interrupts(stop), _dashboard(config, loop):
            for episode in range(config["episodes"]):
                if _episode(loop, book, episode, config).startswith("failed") or stop:
                    break
    finally:
        robot.close()
    store = f"   Store: {out / 'data'}" if config["record"] else ""
    say(f"Report: {write_control_report(out, robot.embodiment)}{store}")
    return json.loads((out / "control.json").read_text(encoding="utf-8")), robot.embodiment


def _episode(loop: Control, book: Logbook, episode: int, config: Mapping[str, Any]) -> str:
    """One episode, recorded; how it ended."""
    run = loop.run(episode)
    if config["robot"] == "lerobot" and console.input("Did it succeed? [y/N] ").strip().lower() == "y":
        run.outcome = "success"
    seed = config["seed"] + episode if config["robot"] == "simulated" else -1
    violations = getattr(loop.robot, "violations", None)
    line = book.add(run, source=f"control-{config['mode']}", seed=seed, violations=violations)
    say(
        f"episode {episode}: {run.outcome} after {line['steps']} steps; {line['late'] + line['skipped']} late or "
        f"skipped, {line['without_action']} without an action, {sum(line['interventions'].values())} interventions"
    )
    return run.outcome


@contextlib.contextmanager
def _interrupts(stop: EmergencyStop) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the robot, and what was done until then is kept; the second time they end the program."""

    def interrupt(*_: Any) -> None:
        if stop:
            raise KeyboardInterrupt
        stop("interrupted")

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _dashboard(config: Mapping[str, Any], loop: Control) -> Iterator[None]:
    if not config["dashboard"]:
        yield
        return
    from ..eval.robot.dashboard import Dashboard

    with Dashboard(loop) as page:
        say(f"Dashboard: {page.url}")
        yield


def serve(config: Mapping[str, Any]) -> None:
    """Serve a checkpoint until interrupted."""
    try:
        from ..eval.serving.server import Server, ServeSettings
    except ImportError as error:
        needs = "foreact serve needs websockets and msgpack: pip install 'foreact[serve]'"
        raise UserError(f"{needs} ({error})") from error

    names = [f.name for f in dataclasses.fields(ServeSettings)]
    settings = build(ServeSettings, {name: config[name] for name in names}, "serve")
    options = {"n_action_steps": config["n_action_steps"], "batch_shape": config["batch_size"]}
    load = partial(loaded, config, options)
    server = Server(load(), settings, load)

    def ready(server: Server) -> None:
        say(
            f"Serving {config['checkpoint']} at ws://{settings.host}:{server.port} (also /healthz, /metrics). From a "
            f"robot: foreact control policy=ws://{settings.host}:{server.port} …"
        )

    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(server.run(ready))
