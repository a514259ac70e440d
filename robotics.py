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

from . import envs
from .commands import console, home, say
from .data.provenance import command_line
from .data.store import Store
from .data.whole import write_json
from .envs.errors import UserError, choose
from .envs.limits import Limit
from .envs.rates import changes
from .envs.spec import Embodiment
from .eval.actors import PolicyActor
from .eval.casting import as_actor
from .eval.policies import every_on
from .eval.robot import sweep
from .eval.robot.clock import CLOCKS, Clock
from .eval.robot.control import Control
from .eval.robot.control_report import write_control_report
from .eval.robot.logbook import Logbook
from .eval.robot.robots import RecordedRobot, Robot, SimulatedRobot
from .eval.robot.runs import ControlSettings
from .eval.robot.safety import EmergencyStop, SafetySettings
from .policy.settings import build


def control(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run a policy on a robot, once for each mode, latency and jitter; returns what each `control.json` holds."""
    choose(config["clock"], CLOCKS, "clock")
    choose(config["robot"], ("simulated", "recorded", "lerobot"), "robot")
    arms = [dict(zip(sweep.ARM, values, strict=True)) for values in itertools.product(*map(_listed, _arms(config)))]
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
    jitter = f"-jitter{arm['jitter']:g}ms" if len(_listed(config["jitter"])) > 1 else ""
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
    actor = _actor(config)
    if name := _robot_name(config, actor):
        actor = actor.on(name, config["n_action_steps"])
    robot = _robot(config, actor, clock)
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
    return json.loads((out / "control.json").read_text()), robot.embodiment


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


def _actor(config: Mapping[str, Any]) -> PolicyActor:
    ensemble = (0.01 if config["ensemble"] is None else config["ensemble"]) if config["mode"] == "ensemble" else None
    if config["ensemble"] is not None and ensemble is None:
        raise UserError(f"ensemble={config['ensemble']} would be ignored: mode={config['mode']} averages nothing")
    used = {"n_action_steps": config["n_action_steps"], "ensemble": ensemble, "batch_shape": 1}
    if config["policy"].startswith(("ws://", "wss://")):
        from .eval.serving.remote import RemotePolicy

        policy = RemotePolicy(config["policy"], token=config["token"])
        return PolicyActor(policy=policy, name=config["policy"], **used)
    choose(config["policy"], ("checkpoint",), "policy (other than ws://HOST:PORT)")
    if config["checkpoint"] is None:
        raise UserError("foreact control needs checkpoint=RUN, or policy=ws://HOST:PORT of a `foreact serve`")
    actor = as_actor(config["checkpoint"], device=config["device"], runtime=config["runtime"], **used)
    assert isinstance(actor, PolicyActor)
    return actor


def _robot_name(config: Mapping[str, Any], actor: PolicyActor) -> str | None:
    """Which of a policy's robots is driven, at the fastest rate that it knows; None for its main one."""
    if config["robot"] == "simulated" and config["task"]:
        robot = envs.embodiment(config["task"])
        return robot.at(every_on(actor.policy, robot)).name
    if config["robot"] == "recorded" and config["data"]:
        with Store.open(config["data"]) as store:
            return store.embodiment.name
    return None


def _robot(config: Mapping[str, Any], actor: PolicyActor, clock: Clock) -> Robot:
    ours = actor.policy.embodiment
    if config["robot"] == "simulated":
        tasks = list(actor.policy.tasks)
        if config["task"] is None and len(tasks) != 1:
            raise UserError(f"say which task: task=…; the policy learned {', '.join(tasks)}")
        env = envs.make(config["task"] or tasks[0], cameras=ours.cameras, every=ours.every)
        env.embodiment = _limited(env.embodiment, config["limits"])
        return SimulatedRobot(env, clock, hz=config["hz"], seed=config["seed"])
    if config["robot"] == "recorded":
        if config["data"] is None:
            raise UserError("robot=recorded needs data=, the store whose episodes are played")
        robot = RecordedRobot(config["data"], clock, hz=config["hz"], like=ours)
        robot.embodiment = _limited(robot.embodiment, config["limits"])
        return robot
    from .eval.robot.lerobot_robot import LerobotRobot, LerobotSettings, make_device

    chosen, instruction = build(LerobotSettings, config["lerobot"], "lerobot"), config["instruction"]
    if chosen.type is None or instruction is None:
        raise UserError("robot=lerobot needs lerobot.type=, such as so101_follower, and instruction=, a sentence")
    if ours.every > 1 and changes(ours).any():
        raise UserError(
            f"{ours.name} is to be sent each change {ours.every} times a control step, and a lerobot robot is sent "
            f"actions once: train at {ours.own_hz:g} Hz, or with targets"
        )
    device, robot = make_device(chosen.type, chosen.settings), _limited(ours, config["limits"])
    task = config["task"] or f"lerobot/{chosen.type}"
    return LerobotRobot(device, robot, clock, task=task, instruction=instruction, settings=chosen, ready=_ask_ready)


def _ask_ready(episode: int) -> None:
    console.input(f"Episode {episode}: set the scene up, then press Enter. ")


def _limited(embodiment: Embodiment, path: str | None) -> Embodiment:
    """The embodiment with the table of limits of a JSON file, where one is given; else its own, or that of the robot of
    its name here: a store from before there were limits has none.
    """
    if path is None:
        known = {s.embodiment.name: s.embodiment.at(embodiment.every).limits for s in envs.SUITES.values()}
        limits = embodiment.limits or known.get(embodiment.own_name, ())
        return dataclasses.replace(embodiment, limits=limits)
    try:
        rows = json.loads(Path(path).read_text())
        limits = tuple(build(Limit, row, f"limits of {path}") for row in rows)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"limits={path}: {error}; it is a JSON list of rows (docs/robot.md)") from error
    return dataclasses.replace(embodiment, limits=limits)


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
    from .eval.robot.dashboard import Dashboard

    with Dashboard(loop) as page:
        say(f"Dashboard: {page.url}")
        yield


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def serve(config: Mapping[str, Any]) -> None:
    """Serve a checkpoint until interrupted."""
    try:
        from .eval.serving.server import Server, ServeSettings
    except ImportError as error:
        needs = "foreact serve needs websockets and msgpack: pip install 'foreact[serve]'"
        raise UserError(f"{needs} ({error})") from error

    names = [f.name for f in dataclasses.fields(ServeSettings)]
    settings = build(ServeSettings, {name: config[name] for name in names}, "serve")
    options = {"n_action_steps": config["n_action_steps"], "batch_shape": config["batch_size"]}
    load = partial(as_actor, config["checkpoint"], device=config["device"], runtime=config["runtime"], **options)
    server = Server(load(), settings, load)

    def ready(server: Server) -> None:
        say(
            f"Serving {config['checkpoint']} at ws://{settings.host}:{server.port} (also /healthz, /metrics). From a "
            f"robot: foreact control policy=ws://{settings.host}:{server.port} …"
        )

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(server.run(ready))
