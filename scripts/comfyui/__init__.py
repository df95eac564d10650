"""framepack-relax's nodes for ComfyUI: this folder goes into custom_nodes (docs/comfyui.md)."""

from framepack_relax.comfyui import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
