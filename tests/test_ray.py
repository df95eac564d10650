"""Ray: three nodes on this machine with GPUs that only Ray believes in; what dies costs at most a section in flight."""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

import framepack_relax as fr
from framepack_relax.farm.batch import Batch
from framepack_relax.rendering.events import Event

pytest.importorskip("ray", reason="needs the extra ray: pip install 'framepack-relax[ray]'")

import ray
from ray.cluster_utils import Cluster
from test_batch import films_of, through, unlucky, write_board

from framepack_relax.farm.ray_cluster import Ray

NODE = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
LONG = 120.0  # seconds after which a test gives up


@pytest.fixture(scope="session")
def cluster():
    """The head and two nodes, of one GPU each. Workers find the tests' own units by PYTHONPATH."""
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), before.get("PYTHONPATH", "")])
    os.environ["OMP_NUM_THREADS"] = "1"
    made = Cluster(initialize_head=True, head_node_args={**NODE, "ray_client_server_port": 10771})
    for _ in range(2):
        made.add_node(**NODE)
    yield made
    ray.shutdown()
    made.shutdown()
    os.environ.clear()
    os.environ.update(before)


@dataclass(frozen=True)
class Nap:
    """A unit without torch: sleeps a while for each section, keeps what is done of them, and says who has done it.

    With `stands` it goes no further than its first section before a worker has died."""

    name: str
    place: Path
    sections: int = 3
    seconds: float = 0.3
    stands: bool = False

    def run(self, models, tell):
        try:
            for number in range(self.sections):
                file = self.place / f"{self.name} {number}"
                if not file.exists():
                    time.sleep(self.seconds)
                    while self.stands and number and not (self.place / "death").exists():
                        time.sleep(0.05)
                    part = self.place / f".{self.name}"  # whoever reads it finds it whole
                    part.write_text(f"{os.getpid()} {ray.get_runtime_context().get_node_id()}")
                    part.rename(file)
                    tell(Event(kind="section", section=number))
        finally:
            (self.place / f"{self.name} left").touch()


@dataclass
class Naps:
    """Units that are taken anew where their worker has died, and more of them as long as `more` says."""

    place: Path
    waiting: list[Nap]
    more: Callable[[], bool] = lambda: False
    told: list = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        return not self.waiting and not self.more()

    def take(self, worker):
        assert time.monotonic() - self.begun < LONG, self.causes
        if not self.waiting and self.more():
            self.waiting.append(Nap(f"more {len(self.told)}", self.place, sections=1))
        return self.waiting.pop(0) if self.waiting else None

    def through(self, executor, on_event=lambda told: None):
        for told in executor.run(self):
            if told:
                self.told.append(told)
                if told.event.cause == "death":
                    (self.place / "death").touch()
                    self.waiting.append(told.unit)
                on_event(told)

    @property
    def causes(self):
        return Counter((told.unit.name, told.event.cause) for told in self.told if told.event.kind == "ended")

    def made(self, name):
        """(process, node) of each section."""
        return [tuple(file.read_text().split()) for file in sorted(self.place.glob(f"{name} [0-9]*"))]


@pytest.mark.slow
def test_all_gpus_have_a_worker_and_an_actor_that_is_killed_loses_the_section_in_flight(cluster, tmp_path):
    naps, killed = Naps(tmp_path, [Nap(name, tmp_path, stands=name == "a") for name in "abcd"]), []

    def kill(told):
        if told.unit.name == "a" and told.event.kind == "section" and not killed:
            killed.append(int(naps.made("a")[0][0]))
            os.kill(killed[0], signal.SIGKILL)

    executor = Ray(address=cluster.address)
    assert (executor.workers, executor.device) == (3, "cuda")
    naps.through(executor, kill)
    assert naps.causes == {("a", "death"): 1, **{(name, ""): 1 for name in "abcd"}}
    sections = Counter((told.unit.name, told.event.section) for told in naps.told if told.event.kind == "section")
    assert sections == {(name, number): 1 for name in "abcd" for number in range(3)}
    first, *rest = (int(process) for process, _ in naps.made("a"))
    assert first == killed[0] and first not in rest
    assert {told.worker.split(" on ")[0] for told in naps.told} == {"worker 0", "worker 1", "worker 2"}


@pytest.mark.slow
def test_a_node_that_dies_gives_its_unit_to_the_others_and_one_that_joins_is_used(cluster, tmp_path):
    joined, removed = [], []

    def used():
        return any(
            node == joined[0].node_id for file in tmp_path.glob("* [0-9]") for node in [file.read_text().split()[1]]
        )

    naps = Naps(tmp_path, [Nap(name, tmp_path, stands=True) for name in "abc"], more=lambda: not joined or not used())

    def remove(told):
        nodes = {node.node_id: node for node in cluster.worker_nodes}
        here = naps.made(told.unit.name)
        if told.event.kind == "section" and not removed and told.unit.sections > 1 and here[0][1] in nodes:
            removed.append(told.unit.name)
            cluster.remove_node(nodes[here[0][1]], allow_graceful=False)
            joined.append(cluster.add_node(**NODE))

    naps.through(Ray(address=cluster.address), remove)
    assert naps.causes[removed[0], "death"] == 1 and naps.causes[removed[0], ""] == 1
    assert len({node for _, node in naps.made(removed[0])}) == 2, "it went on elsewhere"
    assert used() and sum(cause == "death" for _, cause in naps.causes) == 1


@pytest.mark.slow
def test_a_batch_that_is_closed_stops_its_actors_which_leave_in_good_order(cluster, tmp_path):
    naps = Naps(tmp_path, [Nap("a", tmp_path, sections=1000)])
    with closing(Ray(address=cluster.address, gpus=1).run(naps)) as events:
        next(told for told in events if told and told.event.kind == "section")
    assert (tmp_path / "a left").exists() and not ray.is_initialized()
    done = len(naps.made("a"))
    time.sleep(1.0)
    assert len(naps.made("a")) == done < 1000


@pytest.mark.soak
def test_a_cluster_can_be_reached_from_outside(cluster, tmp_path):
    naps = Naps(tmp_path, [Nap(name, tmp_path) for name in "ab"])
    naps.through(Ray(address="ray://127.0.0.1:10771", gpus=2))
    assert naps.causes == {("a", ""): 1, ("b", ""): 1}


@pytest.mark.parametrize(
    "given, fact",
    [
        ({"engine": "ray", "address": "127.0.0.1:1"}, "no cluster answers at 127.0.0.1:1"),
        ({"engine": "local", "address": "auto"}, "address: is not for the engine local"),
        ({"engine": "ray", "slurm": ["partition=gpu"]}, "slurm: is not for the engine ray"),
        ({"engine": "rye"}, "there is no 'rye'; use local, ray, slurm"),
        ({"engine": "slurm"}, "say with gpus how many jobs"),
        ({"engine": "slurm", "workers": 1, "slurm": ["partition"]}, "write NAME=VALUE"),
    ],
)
def test_engines_that_cannot_be_are_told(tmp_path, given, fact):
    with pytest.raises(fr.RenderError, match=fact):
        fr.batch(write_board(tmp_path / "a.yaml"), out=tmp_path / "out", workers=fr.Workers(**given))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("engine, needs", [("ray", "ray"), ("slurm", "submitit")])
def test_an_extra_that_is_missing_is_told_with_its_cure(tmp_path, monkeypatch, engine, needs):
    for name in ("ray_cluster", "slurm"):
        monkeypatch.delitem(sys.modules, f"framepack_relax.farm.{name}", raising=False)
    monkeypatch.setitem(sys.modules, needs, None)
    with pytest.raises(fr.RenderError, match=rf"{needs} is not installed: pip install 'framepack-relax\[{engine}\]'"):
        fr.Workers(engine=engine, workers=1).executor(tmp_path)


@pytest.mark.slow
def test_films_are_those_of_one_local_worker_bit_for_bit(cluster, tiny, tmp_path):
    write_board(tmp_path / "boards/fake.yaml", more="image: hero.png")
    write_board(tmp_path / "boards/tiny.yaml", model=tiny, shots=3, more="image: hero.png")
    Image.radial_gradient("L").resize((32, 32)).convert("RGB").save(tmp_path / "boards/hero.png")
    workers = fr.Workers(engine="ray", address=cluster.address, workers=3)
    films = fr.batch(tmp_path / "boards", out=tmp_path / "out", workers=workers)
    assert [(film.film.name, film.state) for film in films] == [("fake", "done"), ("tiny", "done")]
    fr.batch(tmp_path / "boards", out=tmp_path / "alone", workers=fr.Workers(workers=1))
    for name in ("fake", "tiny"):
        alone = (tmp_path / f"alone/{name}/video.mp4").read_bytes()
        assert (tmp_path / f"out/{name}/video.mp4").read_bytes() == alone, name


@pytest.mark.slow
def test_a_poison_board_fails_alone(cluster, tmp_path):
    for name in "ab":
        write_board(tmp_path / f"boards/{name}.yaml", shots=1)
    bad, good = films_of(tmp_path / "boards", tmp_path / "out")
    batch = Batch([unlucky(bad, "death", 9, tmp_path), good])
    told = through(batch, Ray(address=cluster.address, gpus=2))
    assert (batch.progress["a"].state, batch.progress["b"].state) == ("failed", "done")
    assert "died" in batch.progress["a"].why
    assert Counter(name for name, kind, cause in told if cause == "death") == {"a, shot 0": 3}
