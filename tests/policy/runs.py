"""Short runs for tests: their settings, what they logged, and how they look when they are cut off."""

import shutil

from foreact.policy.fitting import TrainConfig
from foreact.policy.run_folder import read_metrics

SHORT = TrainConfig(
    steps=4, batch_size=3, warmup=2, align=0.5, image_shift=2, held_out=0.3, log_every=1, val_every=2, save_every=2,
    precision="fp32", device="cpu",
)  # fmt: skip


def losses(run) -> list[float]:
    return [r["loss"] for r in read_metrics(run / "metrics.jsonl")]


def cut_off(run, out):
    """A copy of a run of four updates as it was when it had saved two and logged a third."""
    part = shutil.copytree(run, out)
    shutil.rmtree(part / "checkpoints" / "00000004")
    (part / "checkpoints" / "latest").write_text("00000002", encoding="utf-8")
    lines = (part / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (part / "metrics.jsonl").write_text("".join(lines[:3]), encoding="utf-8")
    return part
