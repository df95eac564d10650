"""Nodes for ComfyUI (its API v3). ComfyUI is imported when it asks for them, and nowhere else in the package."""

from typing import Any


async def comfy_entrypoint() -> Any:
    """What ComfyUI calls for the nodes of a pack."""
    from .nodes import Pack

    return Pack()
