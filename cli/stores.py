"""`foreact data VERB`: look into a store, or make one of videos."""

from typing import Any

from ..envs.errors import UserError, choose
from .terminal import console, say


def data(
    verb: str,
    path: str,
    *,
    checkpoint: str | None = None,
    out: str | None = None,
    episodes: int = 12,
    slots: str | None = None,
) -> int:
    """Look into a store: info, doctor, slots or view. Returns the exit status: 1 where the doctor found errors."""
    choose(verb, ("info", "doctor", "slots", "view"), "data verb")
    if verb == "info":
        from ..data.info import info

        info(path, console)
    elif verb == "slots":
        from ..data.slots import slots as show

        show(path, slots, console)
    elif verb == "view":
        from ..data.view import view

        say(f"Open {view(path, out, episodes)}")
    else:
        from ..data.doctor import diagnose, report

        findings = diagnose(path, checkpoint, slots=slots)
        report(path, findings, console)
        return int(any(f.severity == "error" for f in findings))
    return 0


def clips(path: str, out: str | None, **options: Any) -> int:
    """Make a store without actions of a video file, or of a folder of them."""
    from ..data.clips import import_clips

    if out is None:
        raise UserError("foreact data clips needs --out, the store to write")
    store = import_clips([path], out, **options)
    say(f"{store.path}: {len(store)} clips, {store.n_steps} frames. Beside demonstrations: "
        f"foreact train 'data=[STORE, {{path: {store.path}, actions: false}}]' …")  # fmt: skip
    return 0
