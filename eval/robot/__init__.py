"""The control loop at work: robots and simulators that do not wait, clocks, safety, and the record of a run."""
