"""The executor of a Ray cluster: an actor on each of its GPUs, or on some of its cores, as long as they are there."""

import logging
import os
import socket
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread
from typing import Any

import ray
from ray.exceptions import RayError

from .._version import __version__
from ..errors import RenderError
from ..families.heap import keep_steady
from ..rendering.events import Event
from .executor import Models, Told, Unit, Units, perform

LOOK = 1.0  # seconds from one look at what the cluster has to the next
LEAVE = 15.0  # seconds that a worker has to save and leave
NEEDED = "every node needs this framepack-relax and sees the same folders under the same paths"


@dataclass(kw_only=True)
class Ray:
    """The cluster at `address`: HOST:PORT, `auto` for the one of this machine, ray://HOST:10001 from outside; None for
    that of RAY_ADDRESS, or for one that is started here and ends with the batch.

    `gpus` (or `processes` on the CPU, with `threads` of PyTorch each) are how many workers there are at most, also
    where the cluster grows for them. If neither is said, each GPU that it has at the time has one; without any GPU,
    its cores have. A connection that this process has already is used. Raises RenderError where no cluster answers.
    """

    address: str | None = None
    gpus: int | None = None
    processes: int | None = None
    threads: int = 1
    disconnect: Callable[[], object] | None = field(default=None, init=False)  # where this has connected

    def __post_init__(self) -> None:
        if not ray.is_initialized():
            start: dict[str, Any] = {"address": self.address}
            if self.address is None and "RAY_ADDRESS" not in os.environ:
                cores = self.processes and self.processes * self.threads
                start = {"address": "local", "num_cpus": cores, "include_dashboard": False}
            # what Ray says of nodes goes to standard output, with log_to_driver=False, too
            vars(ray._private.worker)["_worker_logs_enabled"] = False
            try:
                _knock(str(start["address"] or os.environ.get("RAY_ADDRESS")))
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **start)
            except (OSError, ValueError, RuntimeError) as error:
                cure = "start one with 'ray start --head', or leave the address out"
                raise RenderError(f"ray: no cluster answers at {start['address']} ({error}); {cure}") from error
            self.disconnect = weakref.finalize(self, ray.shutdown)  # also where a mistake is found before it runs
        if not self.workers or (self.gpus and not _have("GPU")):
            raise RenderError(f"ray: the cluster has no {'GPU' if self.gpus else 'CPU'}; start a node that has one")

    @property
    def workers(self) -> int:
        kind, each = self._place
        return self.gpus or self.processes or int(_have(kind) // each)

    @property
    def device(self) -> str:
        return "cuda" if self._place[0] == "GPU" else "cpu"

    @property
    def _place(self) -> tuple[str, int]:
        """What a worker takes of the cluster."""
        on_gpu = self.gpus or (self.processes is None and _have("GPU"))
        return ("GPU", 1) if on_gpu else ("CPU", self.threads)

    def run(self, units: Units) -> Generator[Told | None]:
        with closing(_Crew(self)) as crew:
            while True:
                crew.look_around()
                for worker in (worker for worker in crew.workers if worker.asked is None):
                    if (unit := units.take(worker.name)) is None:
                        break
                    worker.begin(unit)
                if units.over and not any(worker.unit for worker in crew.workers):
                    return
                heard = crew.wait()
                if not heard:
                    yield None
                for worker in heard:
                    unit = worker.unit
                    for event in worker.hear():
                        yield Told(worker.name, unit, event)

    def options(self) -> dict[str, Any]:
        """Of each actor."""
        kind, each = self._place
        more: dict[str, Any] = {"max_restarts": -1, "max_concurrency": 2}  # one does a unit, one can be asked to leave
        if kind == "GPU":
            return {**more, "num_gpus": 1}
        threads = {name: str(each) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        return {**more, "num_cpus": each, "runtime_env": {"env_vars": threads}}


def _knock(address: str) -> None:
    """Whether somebody listens at HOST:PORT; Ray itself would ask for ten minutes. Raises OSError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10.0).close()


def _have(kind: str) -> float:
    return float(ray.cluster_resources().get(kind, 0.0))


class _Crew:
    """As many workers as there are places for them."""

    def __init__(self, cluster: Ray) -> None:
        self.cluster, self.options = cluster, cluster.options()
        self.workers: list[_Worker] = []
        self.begun, self.looked = 0, 0.0

    def look_around(self) -> None:
        """Adds workers where nodes have come. Those of nodes that have gone wait for a place, and are given up."""
        if time.monotonic() - self.looked < LOOK:
            return
        self.looked, wanted = time.monotonic(), self.cluster.workers
        for _ in range(len(self.workers), wanted):
            self.workers.append(_Worker(self.begun, self.options))
            self.begun += 1
        homeless = [worker for worker in self.workers if not worker.there]
        for worker in homeless[: max(0, len(self.workers) - wanted)]:
            self.workers.remove(worker)
            ray.kill(worker.actor)

    def wait(self) -> "list[_Worker]":
        """Those that have said something, within a second."""
        asked = {worker.asked: worker for worker in self.workers if worker.asked is not None}
        if not asked:
            time.sleep(LOOK)
            return []
        heard, _ = ray.wait(list(asked), num_returns=1, timeout=LOOK)
        return [asked[one] for one in heard]

    def close(self) -> None:
        """All are asked first, so that they leave at the same time."""
        leaving = [worker.actor.leave.remote() for worker in self.workers if worker.unit]
        if leaving:
            ray.wait(leaving, num_returns=len(leaving), timeout=LEAVE)
        for worker in self.workers:
            ray.kill(worker.actor)
        if self.cluster.disconnect:
            self.cluster.disconnect()


class _Worker:
    """An actor, as it is seen from the batch. Ray starts it anew after its death, wherever there is a place."""

    def __init__(self, number: int, options: dict[str, Any]) -> None:
        self.number = number
        self.actor: Any = ray.remote(Actor).options(**options).remote()
        self._rise()

    def _rise(self) -> None:
        self.unit: Unit | None = None
        self.there, self.name = False, f"worker {self.number}"
        self.asked: Any = self.actor.where.options(max_task_retries=-1).remote()  # None while nothing is to be answered

    def begin(self, unit: Unit) -> None:
        self.unit, self.asked = unit, self.actor.begin.remote(unit)

    def hear(self) -> list[Event]:
        """What it has told of its unit; the last event says whether it is free."""
        try:
            said = ray.get(self.asked)
        except RayError as error:
            if not self.there:
                last = str(error).strip().splitlines()[-1]
                raise RenderError(f"ray: a worker cannot start ({last}); {NEEDED}") from error
            said, how = [], type(error).__name__
        else:
            how = "it was started anew"
        if not self.there:
            host, version = said
            if version != __version__:
                raise RenderError(f"ray: {host} has framepack-relax {version}, and this is {__version__}; {NEEDED}")
            self.there, self.name, self.asked = True, f"worker {self.number} on {host}", None
            return []
        if not said:
            text = f"its worker or the node of that has died ({how})"
            self._rise()
            return [Event(kind="ended", cause="death", text=text)]
        if said[-1].kind == "ended":
            self.unit = self.asked = None
        else:
            self.asked = self.actor.go_on.remote()
        return list(said)


class Actor:
    """A worker's life. It does a unit in a thread of its own, and answers with the events that have come meanwhile:
    unlike a stream of them that reaches a batch outside of the cluster, too."""

    def __init__(self) -> None:
        keep_steady()
        self.models, self.told, self.leaving = Models(), SimpleQueue[Event](), False
        self.work: Thread | None = None

    def where(self) -> tuple[str, str]:
        return socket.gethostname(), __version__

    def begin(self, unit: Unit) -> list[Event]:
        self.work = Thread(target=perform, args=[unit, self.models, self._tell], daemon=True)
        self.work.start()
        return self.go_on()

    def go_on(self) -> list[Event]:
        """All events since, at least one; none in a life that has not begun the unit."""
        if self.work is None:
            return []
        events = [self.told.get()]
        while not self.told.empty():
            events.append(self.told.get())
        return events

    def leave(self) -> None:
        """Stops the unit at its next event; what is finished of it is kept."""
        self.leaving = True
        if self.work:
            self.work.join(LEAVE)

    def _tell(self, event: Event) -> None:
        if self.leaving:
            raise SystemExit
        self.told.put(event)
