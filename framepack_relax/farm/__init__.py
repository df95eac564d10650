"""Room: many storyboards on many GPUs: films, units of work, executors, what a batch leaves behind."""

from typing import Literal

Engine = Literal["local", "ray", "slurm"]  # what executors are called; engines.py says how each is made
