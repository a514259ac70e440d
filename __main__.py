"""The command line: ``foreact VERB [key=value …]``."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib.resources import files

from .envs.errors import UserError

# Threads spin while they wait for each other. Spinning for long makes a step many times slower as soon as
# another process wants a core. Read once, when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

EPILOG = """\
Settings are key=value, as in Hydra: lists as [a,b], groups as model=joint/small, nested ones as model.horizon=32.
Stores and runs live in $FOREACT_HOME (default: runs/). The same command with the same out= goes on where it stopped.
"""
COMPARE = """\
Train and evaluate several arms on identical seeds, and write a table with paired intervals and a plot. The YAML names
the arms (settings of `foreact train`), training seeds and tasks; foreact's own lie in configs/compare. For example:

  foreact compare joint                       # run it, or go on where it stopped
  foreact compare joint 'seeds=[0]'           # one training seed
  foreact compare joint jobs=4                # four runs side by side, each with a quarter of the cores
  foreact compare my.yaml out=runs/mine
"""
VERBS = {
    "quickstart": (
        "collect, train and evaluate one task; says at its start how long that takes here",
        "experiment/quickstart",
    ),
    "collect": ("demonstrations by scripted experts into a store", "collect"),
    "train": ("a policy on a store", "train"),
    "eval": ("a checkpoint, the experts or random actions in the simulator; or replay a store", "eval"),
    "imagine": ("what a checkpoint foresees, beside what came: videos, PSNR, SSIM", "imagine"),
    "export": ("a checkpoint for faster runtimes, with their error and speed", "export"),
    "pack": ("a checkpoint as a folder to give away: weights in bf16 and a model card", "pack"),
    "control": ("a robot, or a simulator in real time, with a policy: on time, within limits, recorded", "control"),
    "serve": ("a policy to robots elsewhere, over WebSocket", "serve"),
    "run": ("an experiment: collect, train and evaluate in one", "run"),
}


def parser() -> argparse.ArgumentParser:
    """The command line's parser; each verb's help shows its settings with their defaults."""
    top = argparse.ArgumentParser(
        prog="foreact", description="Foresee and act: joint image-action diffusion policies for robots.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (summary, config) in VERBS.items():
        settings = files("foreact.configs").joinpath(f"{config}.yaml").read_text(encoding="utf-8")
        verb = verbs.add_parser(
            name, help=summary, description=f"{summary}. Settings and their defaults:\n\n{settings}", epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        verb.add_argument("settings", nargs="*", metavar="key=value")
        if name == "train":
            verb.add_argument("--dry-run", action="store_true", help="print the sizes of model and data, train nothing")
    compare = verbs.add_parser(
        "compare", help="arms x training seeds x tasks, with paired intervals", description=COMPARE, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    compare.add_argument("name", metavar="NAME", help="a YAML file, or one of foreact's own comparisons, such as joint")
    compare.add_argument("settings", nargs="*", metavar="key=value")
    data = verbs.add_parser(
        "data",
        help="look into a store: info, doctor (what is wrong), slots (that it fills), view (a web page); clips: make "
        "one of videos",
    )
    data.add_argument("what", choices=("info", "doctor", "slots", "view", "clips"))
    data.add_argument("path", metavar="PATH", help="the store; clips: a video file, or a folder of them")
    data.add_argument("--checkpoint", help="doctor: compare the store with the statistics of this checkpoint")
    data.add_argument(
        "--slots", metavar="TABLE", help="slots, doctor: the robot's slot table, a YAML file or a known name"
    )
    data.add_argument("--out", help="view: the folder to write (default: PATH-view); clips: the store to write")
    data.add_argument("--instruction", default="", help="clips: what is done in them, one sentence")
    data.add_argument("--camera", default="main", help="clips: the policy's camera that they stand for")
    data.add_argument("--pixels", type=int, default=96, help="clips: side of the stored frames")
    data.add_argument("--hz", type=float, help="clips: frames a second to keep (default: the first clip's own)")
    data.add_argument("--episodes", type=int, default=12, help="view: how many episodes to show")
    bench = verbs.add_parser("bench", help="measure speed against a named baseline in the same run")
    bench.add_argument("name", metavar="NAME", help="render, loader, train, act, eval, control, serve or faults")
    bench.add_argument("settings", nargs="*", metavar="key=value")
    verbs.add_parser("tasks", help="list the tasks with their instructions")
    verbs.add_parser(
        "doctor",
        help="what this computer can do, what is missing, and how to mend it",
        description="Measure matrix products; look at threads, GPU, offscreen drawing, disk and packages; say what is "
        "missing or slow, and how to mend it. Exit status 1 where something keeps foreact from working.",
    )
    for verb in verbs.choices.values():
        verb.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return top


def run(arguments: argparse.Namespace) -> int:
    """Carry out one parsed command and return its exit status."""
    from .cli import commands, stores
    from .cli.compose import config_of

    if arguments.verb == "data":
        if arguments.what == "clips":
            return stores.clips(
                arguments.path, arguments.out, instruction=arguments.instruction, camera=arguments.camera,
                pixels=arguments.pixels, hz=arguments.hz,
            )  # fmt: skip
        return stores.data(
            arguments.what, arguments.path,
            checkpoint=arguments.checkpoint, out=arguments.out, episodes=arguments.episodes, slots=arguments.slots,
        )  # fmt: skip
    if arguments.verb == "doctor":
        from .cli.doctor import doctor

        return doctor()
    if arguments.verb == "bench":
        commands.bench(arguments.name, config_of("bench", arguments.settings))
    elif arguments.verb == "compare":
        from .cli.comparison import compare

        compare(arguments.name, arguments.settings)
    elif arguments.verb == "tasks":
        commands.list_tasks()
    elif arguments.verb == "train":
        settings = ["out=", *arguments.settings] if arguments.dry_run else arguments.settings
        commands.train(config_of("train", settings), dry_run=arguments.dry_run)
    elif arguments.verb in ("control", "serve"):
        from .cli import robotics

        getattr(robotics, arguments.verb)(config_of(arguments.verb, arguments.settings))
    elif arguments.verb in ("quickstart", "run"):
        from .cli.experiment import run_experiment

        chosen = ["experiment=quickstart"] if arguments.verb == "quickstart" else []
        run_experiment([*chosen, *arguments.settings])
    else:
        calls = {
            "collect": commands.collect,
            "eval": commands.evaluate,
            "imagine": commands.imagine,
            "export": commands.export,
            "pack": commands.pack,
        }
        calls[arguments.verb](config_of(arguments.verb, arguments.settings))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Status 2 and one message for bad input, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without '→' shows '?'
    arguments = parser().parse_args(argv)
    try:
        return run(arguments)
    except UserError as error:
        if arguments.debug:
            raise
        print(f"foreact: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"foreact: stopped. {stop}".rstrip(), file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
