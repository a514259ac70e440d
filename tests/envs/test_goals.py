"""Goals that a policy has to see are in the picture: it changes where they are hidden."""

import numpy as np
import pytest

pytestmark = pytest.mark.sim

# task: the kind and name of what marks the goal in the model
MARKS = {
    "fetch-reach": ("site", "target0"),
    "fetch-push": ("site", "target0"),
    "fetch-pick-and-place": ("site", "target0"),
    "cube-single": ("geom", "target_object_0"),
}


def pictures(obs) -> np.ndarray:
    return np.stack(list(obs["images"].values())).astype(int)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "fetch-reach" else pytest.mark.slow) for n in MARKS])
def test_a_goal_drawn_as_a_marker_can_be_seen(name, make):
    """Pixels that change when the marker is hidden: four at least, in all the default views, in 20 draws."""
    env = make(name)
    kind, mark = MARKS[name]
    marked = getattr(env._model, kind)(mark)
    for seed in range(20):
        shown = pictures(env.reset(seed=seed)[0])
        place = getattr(env._data, kind)(mark).xpos
        assert np.allclose(place, env.privileged()[3:], atol=1e-6)
        colour = marked.rgba.copy()
        marked.rgba[3] = 0
        hidden = pictures(env.observe())
        marked.rgba[:] = colour
        assert (np.abs(shown - hidden).max(-1) > 20).sum() >= 4, f"seed {seed}"
