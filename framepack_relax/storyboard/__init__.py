"""The storyboard: its schema and a reader that reports every mistake of a file at once, each with its place."""

from .dump import dump_storyboard
from .reader import parse_storyboard, read_storyboard
from .schema import Guidance, Relax, Scene, Storyboard, storyboard_from_scenes, storyboard_schema

__all__ = ["Guidance", "Relax", "Scene", "Storyboard", "dump_storyboard", "parse_storyboard"]
__all__ += ["read_storyboard", "storyboard_from_scenes", "storyboard_schema"]
