"""Run a command and fail where it takes more processor time than its budget: `budget.py UPDATES COMMAND …`.

The budget is counted in updates of a tiny policy on one thread, timed right after the command, so that it means the
same on a slow machine as on a fast one, and on a busy one as on an idle one.
"""

import os
import resource
import subprocess
import sys
import time

GIVEN = dict(os.environ)
os.environ["OMP_NUM_THREADS"] = "1"


def reference_seconds(count: int = 40) -> float:
    """Processor seconds of an update."""
    from foreact.cli.compose import config_of
    from foreact.eval.bench.train import Rehearsal
    from foreact.policy.config import ModelConfig
    from foreact.policy.settings import build

    preset = build(ModelConfig, config_of("train", ["data=none", "model=joint/tiny"])["model"], "model")
    update = Rehearsal(preset, 4, device="cpu", precision="fp32", kernels="torch")
    update()
    began = time.process_time()
    for _ in range(count):
        update()
    return (time.process_time() - began) / count


def main() -> int:
    budget, command = float(sys.argv[1]), sys.argv[2:]
    status = subprocess.run(command, env=GIVEN, check=False).returncode
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    updates = (used.ru_utime + used.ru_stime) / reference_seconds()
    print(f"budget: {used.ru_utime + used.ru_stime:.0f} processor seconds, {updates:.0f} updates of {budget:.0f}")
    return status or int(updates > budget)


if __name__ == "__main__":
    sys.exit(main())
