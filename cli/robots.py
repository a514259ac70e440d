"""Which policy and which robot the settings of `foreact control` name."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import envs
from ..data.store import Store
from ..envs.errors import UserError, choose
from ..envs.limits import Limit
from ..envs.rates import changes
from ..envs.spec import Embodiment
from ..eval.actors import PolicyActor
from ..eval.casting import as_actor
from ..eval.policies import every_on
from ..eval.robot.clock import Clock
from ..eval.robot.robots import RecordedRobot, Robot, SimulatedRobot
from ..policy.settings import build
from .terminal import console


def actor_of(config: Mapping[str, Any]) -> PolicyActor:
    """The policy at work, one look at a time: of a checkpoint, or at a server. `UserError` where none is named."""
    ensemble = (0.01 if config["ensemble"] is None else config["ensemble"]) if config["mode"] == "ensemble" else None
    if config["ensemble"] is not None and ensemble is None:
        raise UserError(f"ensemble={config['ensemble']} would be ignored: mode={config['mode']} averages nothing")
    used = {"n_action_steps": config["n_action_steps"], "ensemble": ensemble, "batch_shape": 1}
    if config["policy"].startswith(("ws://", "wss://")):
        from ..eval.serving.remote import RemotePolicy

        policy = RemotePolicy(config["policy"], token=config["token"])
        return PolicyActor(policy=policy, name=config["policy"], **used)
    choose(config["policy"], ("checkpoint",), "policy (other than ws://HOST:PORT)")
    if config["checkpoint"] is None:
        raise UserError("foreact control needs checkpoint=RUN, or policy=ws://HOST:PORT of a `foreact serve`")
    return loaded(config, used)


def loaded(config: Mapping[str, Any], used: Mapping[str, Any]) -> PolicyActor:
    """The policy of `checkpoint=` at work. used: options of `PolicyActor`. `UserError` where it is none."""
    actor = as_actor(config["checkpoint"], device=config["device"], runtime=config["runtime"], **used)
    if not isinstance(actor, PolicyActor):
        raise UserError(f"checkpoint={config['checkpoint']} is not a checkpoint: it acts inside a simulator only")
    return actor


def robot_name(config: Mapping[str, Any], actor: PolicyActor) -> str | None:
    """Which of a policy's robots is driven, at the fastest rate that it knows; None for its main one."""
    if config["robot"] == "simulated" and config["task"]:
        robot = envs.embodiment(config["task"])
        return robot.at(every_on(actor.policy, robot)).name
    if config["robot"] == "recorded" and config["data"]:
        with Store.open(config["data"]) as store:
            return store.embodiment.name
    return None


def robot_of(config: Mapping[str, Any], actor: PolicyActor, clock: Clock) -> Robot:
    """The robot that is driven, within its limits, not yet connected. `UserError` for what is missing or unfit."""
    ours = actor.policy.embodiment
    if config["robot"] == "simulated":
        tasks = list(actor.policy.tasks)
        if config["task"] is None and len(tasks) != 1:
            raise UserError(f"say which task: task=…; the policy learned {', '.join(tasks)}")
        env = envs.make(config["task"] or tasks[0], cameras=ours.cameras, every=ours.every)
        env.embodiment = limited(env.embodiment, config["limits"])
        return SimulatedRobot(env, clock, hz=config["hz"], seed=config["seed"])
    if config["robot"] == "recorded":
        if config["data"] is None:
            raise UserError("robot=recorded needs data=, the store whose episodes are played")
        robot = RecordedRobot(config["data"], clock, hz=config["hz"], like=ours)
        robot.embodiment = limited(robot.embodiment, config["limits"])
        return robot
    from ..eval.robot.lerobot_robot import LerobotRobot, LerobotSettings, make_device

    chosen, instruction = build(LerobotSettings, config["lerobot"], "lerobot"), config["instruction"]
    if chosen.type is None or instruction is None:
        raise UserError("robot=lerobot needs lerobot.type=, such as so101_follower, and instruction=, a sentence")
    if ours.every > 1 and changes(ours).any():
        raise UserError(
            f"{ours.name} is to be sent each change {ours.every} times a control step, and a lerobot robot is sent "
            f"actions once: train at {ours.own_hz:g} Hz, or with targets"
        )
    device, robot = make_device(chosen.type, chosen.settings), limited(ours, config["limits"])
    task = config["task"] or f"lerobot/{chosen.type}"
    return LerobotRobot(device, robot, clock, task=task, instruction=instruction, settings=chosen, ready=_ask_ready)


def _ask_ready(episode: int) -> None:
    console.input(f"Episode {episode}: set the scene up, then press Enter. ")


def limited(embodiment: Embodiment, path: str | None) -> Embodiment:
    """The embodiment with the table of limits of a JSON file, where one is given; else its own, or that of the robot of
    its name here: a store from before there were limits has none.
    """
    if path is None:
        known = {s.embodiment.name: s.embodiment.at(embodiment.every).limits for s in envs.SUITES.values()}
        limits = embodiment.limits or known.get(embodiment.own_name, ())
        return dataclasses.replace(embodiment, limits=limits)
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        limits = tuple(build(Limit, row, f"limits of {path}") for row in rows)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"limits={path}: {error}; it is a JSON list of rows (docs/robot.md)") from error
    return dataclasses.replace(embodiment, limits=limits)
