"""PyAV, by which films are written and read; nothing else needs it, so only reader and writer import this."""

from ..errors import RenderError

try:
    import av
except ModuleNotFoundError as error:
    raise RenderError(f"{error.name} is not installed, and films need it: pip install av") from error

__all__ = ["av"]
