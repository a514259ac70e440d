"""`foreact pack`: a trained policy as a folder to give away, small and with a card that says what it is."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..envs.errors import UserError
from ..policy import Policy, load_policy
from ..policy.checkpoint import find_finished
from ..policy.fingerprint import fingerprint
from ..policy.run_folder import read_metrics
from .reports.report import read_results
from .reports.results import alignment, percent

MOST_BYTES = 60_000_000
"""Of all packed folders side by side: a package index takes no wheel of more than 100 MB."""
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^/\s\"',\]}]+/)+")  # of absolute paths, which mean nothing elsewhere


def pack(checkpoint: Path | str, out: Path | str, *, results: Path | str | None = None) -> Path:
    """Write the folder `out`: parameters in bf16, what `load_policy` needs beside them, and README.md, the model card.

    checkpoint: a run at its end, or one of its checkpoints · results: the folder of an evaluation of these weights, or
    of those before they were rounded; None: the run's own, where it has one. A folder that was packed before is
    replaced. Raises `UserError` for results of another policy, and where `out` and the folders beside it would be
    larger than `MOST_BYTES`.
    """
    folder, out = find_finished(checkpoint), Path(out)
    if out.exists() and not ((out / "README.md").is_file() and (out / "policy.json").is_file()):
        raise UserError(f"{out} exists and was not made by `foreact pack`; choose another out=")
    run = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        before = load_policy(folder, "cpu")
        _write(draft, folder, run, before)
        packed = load_policy(draft, "cpu")
        found = _results(run, results)
        updates = int(folder.name) if folder.name.isdigit() else None
        card = _card(out.name, packed, _history(run) | {"updates": updates}, found, _whose(found, packed, before))
        (draft / "README.md").write_text(_FOLDERS.sub("", card), encoding="utf-8")
        _check_size(draft, out)
        shutil.rmtree(out, ignore_errors=True)
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return out


def _write(draft: Path, folder: Path, run: Path, policy: Policy) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name, _ in policy.model.named_parameters():
        tensors[f"model.{name}"] = tensors[f"model.{name}"].to(torch.bfloat16)
    save_file(tensors, draft / "model.safetensors")
    (draft / "model.safetensors").chmod(0o644)  # safetensors lets nobody else read
    shutil.copyfile(folder / "normalizers.json", draft / "normalizers.json")
    for file in (folder / "policy.json", run / "run.json"):
        if file.is_file():
            (draft / file.name).write_text(_FOLDERS.sub("", file.read_text(encoding="utf-8")))


def _results(run: Path, results: Path | str | None) -> dict[str, Any] | None:
    if results is not None:
        return read_results(results)
    own = next((place for place in (run, run / "eval") if (place / "results.json").is_file()), None)
    return None if own is None else read_results(own)


def _whose(results: Mapping[str, Any] | None, packed: Policy, before: Policy) -> str:
    """Which weights were evaluated; '' where none were. `UserError` for those of another policy."""
    if results is None:
        return ""
    found = results["policy"].get("fingerprint")
    names = {
        fingerprint(before.model): "of the weights before they were rounded to bf16",
        fingerprint(packed.model): "of these weights",
    }
    if found not in names:
        raise UserError(f"the results are of weights {found}, this checkpoint's are {' or '.join(names)}; evaluate it")
    return names[found]


def _history(run: Path) -> dict[str, Any]:
    """What a run's folder tells of its training: settings, versions, machine, commands and minutes."""
    about = json.loads((run / "run.json").read_text(encoding="utf-8")) if (run / "run.json").is_file() else {}
    records, commands = read_metrics(run / "metrics.jsonl"), run / "commands.txt"
    minutes = next((r["minutes"] for r in reversed(records) if "minutes" in r), None)
    lines = commands.read_text(encoding="utf-8").splitlines() if commands.is_file() else []
    about["train"] = about.get("config", {}).get("train", {})
    return {"machine": {}, "versions": {}, **about, "minutes": minutes, "commands": list(dict.fromkeys(lines))}


def _card(name: str, policy: Policy, run: Mapping[str, Any], results: Mapping[str, Any] | None, whose: str) -> str:
    train, machine = run["train"], run["machine"]
    spans = {(one.mark, *span) for one in policy.learned or () for span in one.spans}  # of a run that goes on, but once
    episodes = sum(end - first for _, first, end in spans)
    cameras = ", ".join(f"{c.name} ({c.height} x {c.width})" for c in policy.embodiment.cameras)
    size = sum(p.numel() for p in policy.model.parameters())
    hours = "not recorded" if run["minutes"] is None else f"{run['minutes'] / 60:.2g}"
    facts = {
        "robot": f"{policy.embodiment.name}, cameras {cameras}",
        "preset": f"{policy.config.name}, {size / 1e6:.1f} M parameters, bf16",
        "learned from": f"{episodes or 'an unrecorded number of'} episodes of {len(policy.tasks)} tasks",
        "updates": f"{run['updates'] or 'not recorded'}, batches of {train.get('batch_size', '?')}",
        "hours of training": f"{hours}, on {machine.get('device', '?')} with {machine.get('threads', '?')} threads",
        "simulator state in training": alignment({"alignment": train.get("align")}),
        "versions": ", ".join(f"{k} {v}" for k, v in run["versions"].items()),
        "licence": "Apache-2.0",
    }
    lines = [f"# {name}", "", f"A policy for {len(policy.tasks)} tasks, told by a sentence what to do.", "", "```sh"]
    rates = {} if results is None else {task: row["success"] for task, row in results["per_task"].items()}
    shown = max((task.split("/")[-1] for task in policy.tasks), key=lambda task: rates.get(task, 0.0))
    lines += [f"foreact eval checkpoint=pretrained/{name} tasks=[{shown}]", "```", ""]
    lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items()), ""]
    if run["commands"]:
        lines += ["Trained by:", "", "```sh", *run["commands"], "```", ""]
    return "\n".join([*lines, "## Results", "", *_table(policy, results, whose), ""])


def _table(policy: Policy, results: Mapping[str, Any] | None, whose: str) -> list[str]:
    if results is None:
        tasks = ", ".join(task.split("/")[-1] for task in policy.tasks)
        return [f"Not measured yet. Tasks: {tasks}."]
    rows = {task: percent(row["success"], row["ci95"]) for task, row in results["per_task"].items()}
    if len(rows) > 1:
        rows |= {m.replace("_", " "): percent(results[m], results[f"{m}_ci95"]) for m in ("task_mean", "group_mean")}
    settings = results["settings"]
    seeds = f"seeds {settings['seed']} to {settings['seed'] + settings['episodes'] - 1}"
    return [
        f"Success {whose}, {seeds}, at most {settings['max_steps']} steps, 95 % intervals:", "", "```sh",
        results["command"], "```", "", "| task | success |", "|---|---|",
        *(f"| {task} | {rate} |" for task, rate in rows.items()),
    ]  # fmt: skip


def _check_size(draft: Path, out: Path) -> None:
    others = [p for p in out.parent.iterdir() if p.is_dir() and p not in (draft, out) and (p / "policy.json").is_file()]
    sizes = {p: sum(file.stat().st_size for file in p.rglob("*") if file.is_file()) for p in (draft, *others)}
    if sum(sizes.values()) > MOST_BYTES:
        beside = ", ".join(f"{p.name} {size / 1e6:.1f}" for p, size in sizes.items() if p != draft)
        raise UserError(
            f"{out.name} would be {sizes[draft] / 1e6:.1f} MB, beside {beside or 'nothing'}; together at most "
            f"{MOST_BYTES / 1e6:g} MB"
        )
