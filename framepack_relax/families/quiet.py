"""Silence of the libraries underneath, for as long as somebody is at work."""

from contextlib import ContextDecorator
from threading import Lock
from typing import Any


class Quiet(ContextDecorator):
    """While anybody is inside, diffusers and transformers draw no bars and print no notes; then all is as it was."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._before: list[tuple[Any, int, bool]] = []  # (a library's logging, its verbosity, whether it draws bars)

    def __enter__(self) -> None:
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        with self._lock:
            self._inside += 1
            if self._inside == 1:
                for logging in (diffusers_logging, transformers_logging):
                    self._before.append((logging, logging.get_verbosity(), logging.is_progress_bar_enabled()))
                    logging.disable_progress_bar()
                    logging.set_verbosity_error()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            while self._before and not self._inside:
                logging, verbosity, bars = self._before.pop()
                logging.set_verbosity(verbosity)
                if bars:
                    logging.enable_progress_bar()


quietly = Quiet()
