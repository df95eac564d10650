"""One render on several processes (ranks), a GPU each, as torchrun starts them.

Rank 0 renders as it would alone; of each step it sends x to the others, which have the same model and know nothing of
films, and all do their part of the step's passes: branches apart from each other, and each pass shared by the ranks
that are left. They end with rank 0; where one of them ends before, rank 0 says so.
"""

import atexit
import io
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from ..errors import ModelError, RenderError
from .backend import Backend
from .base import Step
from .loader import Loading, load, pick_device

END, LOST = "end", "lost"  # in torchrun's store: rank 0 has ended; why another rank has
PATIENCE = timedelta(minutes=10)  # with the other ranks of a step
IDLE = timedelta(days=1)  # between steps, where rank 0 encodes and decodes


class RankLost(RenderError):
    """Another rank has ended or does not answer."""

    def __init__(self, why: str = f"another rank has ended, or did not answer for {PATIENCE.seconds // 60} minutes"):
        super().__init__(f"{why}; what is finished is kept, and the same command goes on from there")


def split(branches: int, ranks: int) -> list[range]:
    """Groups of ranks, of which each takes the passes of every so many-th branch.

    The split that takes the least time, counted in passes; of equals the one with the most groups, which exchange the
    least.
    """
    counts = range(1, min(branches, ranks) + 1)
    count = min(counts, key=lambda n: (math.ceil(branches / n) / (ranks // n), -n))
    return parted(count, ranks)


def parted(count: int, ranks: int) -> list[range]:
    """So many groups of ranks, as equal as there can be."""
    return [range(ranks * n // count, ranks * (n + 1) // count) for n in range(count)]


class Ranks:
    """The processes of a render, seen by one of them; all make it at the same time."""

    def __init__(self) -> None:
        self.store, self.rank, self.size = _meet()
        self.sent: Any = None  # inputs that the others have
        groups = {group for count in range(1, self.size + 1) for group in parted(count, self.size)}
        self.groups = {
            group: dist.new_group(list(group), timeout=PATIENCE)
            for group in sorted({*groups, range(self.size)}, key=lambda group: (group.start, group.stop))
            if len(group) > 1
        }
        self.all = self.groups[range(self.size)]

    def lead(self, backend: Backend, x: Tensor, step: Step, inputs: Any) -> dict[str, Tensor]:
        """The velocity of each of a step's passes by name, of all ranks. Raises RenderError."""
        new, self.sent = None if inputs is self.sent else inputs, inputs
        try:
            _send((backend.preset, backend.adapters, new, step, x))
            return self.share(backend, x, step, inputs)
        except RankLost as error:
            if not self.store.check([LOST]):
                raise
            why = self.store.get(LOST).decode()
            raise (torch.OutOfMemoryError if "out of memory" in why else RankLost)(why) from error

    def share(self, backend: Backend, x: Tensor, step: Step, inputs: Any) -> dict[str, Tensor]:
        """This rank's passes of a step, and what the others made of theirs: the same bits everywhere."""
        groups = split(len(step.passes), self.size)
        turns = [(branch, groups[n % len(groups)]) for n, branch in enumerate(step.passes)]
        made: dict[str, Tensor] = {}
        for branch, group in turns:
            if self.rank in group:
                with backend.sharing(self.groups.get(group)):
                    made[branch.name] = backend.predict(x, step, branch, inputs).contiguous()
        for branch, group in turns:
            velocity = made.setdefault(branch.name, torch.empty_like(x))
            with heard():
                work = dist.broadcast(velocity, group.start, group=self.all, async_op=True)
                while not work.is_completed():  # in Python, which hears signals
                    if self.store.check([LOST]):
                        raise RankLost()
                    time.sleep(0.001)
                work.wait()
        return {branch.name: made[branch.name] for branch in step.passes}


@contextmanager
def heard() -> Iterator[None]:
    """Raises RankLost where an exchange with the other ranks fails."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost() from error


def lead(loading: Loading) -> Backend:
    """The model, loaded by every rank, whose passes all of them share. Raises ModelError."""
    device, here, there = pick_device(loading.device), int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if device.type == "cuda" and (device.index or there < here):
        fact = f"{here} processes here take a CUDA device each, from the first on, and PyTorch sees {there}"
        raise ModelError(f"{fact}; start as many as there are, with device=cuda or none")
    _send(replace(loading, device=device.type, ranks=1))
    ranks = Ranks()
    backend = load(loading.name, **loading.asked)
    backend.ranks = ranks
    return backend


def join() -> None:
    """Brings the ranks together: rank 0 comes back, and at its exit the others end; they serve it, and never do."""
    store, rank, size = _meet()
    if rank:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in (1, 2):
            os.dup2(nowhere, output)
        Thread(target=_end, args=(_meet()[0],), daemon=True).start()
    else:
        atexit.register(store.set, END, "")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    kinds = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(kinds, store=store, rank=rank, world_size=size, timeout=IDLE)
        if rank:
            _serve()
    except BaseException as error:
        if rank == 0:
            raise
        if not isinstance(error, RankLost):
            store.set(LOST, f"rank {rank} has ended: {error}".replace("\n", " "))
        os._exit(0)  # rank 0 says it


def _serve() -> None:
    """The model and passes that rank 0 asks for, without end."""
    while True:
        order = _receive()
        if isinstance(order, Loading):
            ranks = Ranks()
            device = order.device if order.device == "cpu" else f"cuda:{os.environ['LOCAL_RANK']}"
            backend = replace(order, device=device).load()
            continue
        preset, adapters, new, step, x = order
        if new is not None:
            inputs, backend.preset, backend.adapters = new, preset, adapters
            backend.place()
        with backend.acting(step.effects, inputs):
            ranks.share(backend, x, step, inputs)


def _send(order: Any) -> None:
    buffer = io.BytesIO()
    torch.save(order, buffer)
    with heard():
        dist.broadcast_object_list([buffer.getvalue()], device=torch.device("cpu"))


def _receive() -> Any:
    """Its tensors where this rank works."""
    said: list[Any] = [None]
    with heard():
        dist.broadcast_object_list(said, device=torch.device("cpu"))
    places = {"cuda:0": f"cuda:{os.environ['LOCAL_RANK']}"}
    return torch.load(io.BytesIO(said[0]), map_location=places, weights_only=False)


def _meet() -> tuple[Any, int, int]:
    """torchrun's store, this rank, how many there are."""
    return next(rendezvous("env://"))


def _end(store: Any) -> None:
    """Ends this rank with rank 0, whatever it waits for."""
    try:
        while not store.check([END]):
            time.sleep(0.2)
    finally:
        os._exit(0)
