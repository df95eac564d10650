"""Speed as ratios measured in one run, so that they mean the same on every machine: diffusers' pipelines beside ours.

    make bench        # a table, and out/bench.json

Processor seconds of one thread. What is compared is measured in turn, round by round; a ratio is that of the quickest
rounds, of steps that of the medians of all steps but each call's first. Wan and Helios have small random weights
(tests/wan_folders.py), so that the loop's own work counts more than beside a real model.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from diffusers import HeliosPipeline, HunyuanVideoFramepackPipeline, WanPipeline
from PIL import Image

import framepack_relax as fr
from framepack_relax.families.backend import Backend, Given
from framepack_relax.families.components import blocks_of
from framepack_relax.families.framepack.blend import BlendDecoder
from framepack_relax.families.heap import give_back, keep_steady
from framepack_relax.families.hunyuan_video.stream import StreamDecoder
from framepack_relax.planning.planner import make_plan
from framepack_relax.planning.renderplan import RenderPlan
from framepack_relax.relax.guidance import combine
from framepack_relax.sampling.section import sample
from framepack_relax.storyboard import Scene, storyboard_from_scenes
from framepack_relax.video.reader import read_frames

ROOT = Path(__file__).parent.parent
PUPPET = ROOT / "framepack_relax" / "puppet"
STEPS = 12  # of a call
PROMPT = "a red figure stands still on the beach"
OPTIONS: dict[str, dict[str, Any]] = {
    "at rest": {},
    "blur on all blocks": {"blur": 0.6},
    "history gain": {"history_gain": 0.5},
    "context loosened (a second pass)": {"target": ["context"], "beta": 0.95, "p": 0.01},
}
AT_REST: dict[str, Any] = {}
Work = Callable[[], object]
Mark = Callable[[], None]
Call = Callable[[Mark], object]
Rows = dict[str, float]


def quickest(works: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """Processor seconds of each, measured in turn; the first round does not count."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            give_back()
            begun = time.process_time()
            work()
            if number:
                taken[name].append(time.process_time() - begun)
    return {name: min(times) for name, times in taken.items()}


def steps(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Seconds of a step of each call, which marks the end of each of its steps."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            give_back()
            ends: list[float] = []
            call(lambda ends=ends: ends.append(time.process_time()))
            if number:
                taken[name] += np.diff(ends).tolist()
    return {name: float(np.median(times)) for name, times in taken.items()}


class Ours:
    """Sections of a plan, sampled by our loop."""

    def __init__(self, model: Backend, image: Path | None, size: tuple[int, int]) -> None:
        self.model, self.board = model, {"image": str(image)} if image else {}
        self.size, self.texts = size, model.encode_prompts([PROMPT, ""])
        opened = Image.open(image).convert("RGB").resize(size) if image else None
        self.start = model.encode_starts({0: (opened, 1)})[0] if opened else None
        model.place()

    def plan(self, relax: Mapping[str, Any], **board: Any) -> RenderPlan:
        scene = Scene(id="a", prompt=PROMPT, seconds=self.seconds, intensity=0.0, relax=relax)
        story = storyboard_from_scenes([scene], size=self.size, **self.board | {"steps": STEPS} | board)
        return make_plan(story, self.model.family)

    @property
    def seconds(self) -> float:
        grid, fps = self.model.family.grid, self.model.family.fps
        longest = 8 if grid.most_units > 1 else 2 * grid.unit_frames  # frames
        return (longest + grid.lead_frames) / fps

    def sample(self, mark: Mark = lambda: None, relax: Mapping[str, Any] = AT_REST, **board: Any) -> None:
        """The last section, of which the others are noise; a board of its own may name another solver."""
        plan = self.plan(relax, **board)
        section = plan.sections[-1]
        noise = self.model.noise(section.latents, plan.size, section.seed)
        given = Given(
            noise=noise, context=section.context, steps=section.steps, start=self.start, options=plan.options,
            past={n: self.model.noise(plan.sections[n].latents, plan.size, n) for n in section.context.needs},
            prompt=self.texts[PROMPT], negative=self.texts[""],
        )  # fmt: skip
        inputs = self.model.begin(given)
        sample(self.model, inputs, section.steps, noise, sampler=plan.sampler, on_step=lambda index, x0: mark())


def marked(stock: Any, mark: Mark, **words: Any) -> Any:
    """A stock pipeline's call that marks each of its steps; it gives the frames."""
    stock.set_progress_bar_config(disable=True)

    def at_end(pipe: Any, index: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        mark()
        return kept

    return stock(
        **words, callback_on_step_end=at_end, callback_on_step_end_tensor_inputs=["latents"],
        generator=torch.Generator().manual_seed(3),
    ).frames  # fmt: skip


def puppet(rounds: int) -> Rows:
    """Steps and whole renders of the packaged model."""
    stock = HunyuanVideoFramepackPipeline.from_pretrained(PUPPET, dtype=torch.float32)
    model, image = fr.load(PUPPET, device="cpu"), ROOT / "storyboards" / "red-beach.png"
    ours, picture = Ours(model, image, (96, 96)), Image.open(image).convert("RGB")

    def theirs(mark: Mark = lambda: None, sections: int = 1, output: str = "latent") -> Any:
        return marked(
            stock, mark, image=picture, prompt=PROMPT, negative_prompt="", height=96, width=96,
            num_frames=33 * sections, num_inference_steps=STEPS, guidance_scale=2.0, sampling_type="vanilla",
            output_type=output,
        )  # fmt: skip

    calls: dict[str, Call] = {"stock": theirs, "euler": lambda mark: ours.sample(mark, sampler="euler")}
    calls |= {name: lambda mark, relax=relax: ours.sample(mark, relax) for name, relax in OPTIONS.items()}
    taken = steps(calls, rounds)
    rows = {"step at rest by Euler / stock pipeline's, which has no other": taken["euler"] / taken["stock"]}
    rows["step at rest by FramePack's solver / stock pipeline's"] = taken["at rest"] / taken["stock"]
    rows |= {f"step, {name} / at rest": taken[name] / taken["at rest"] for name in list(OPTIONS)[1:]}
    often = {speed: lambda speed=speed: ours.sample(steps=25, speed=speed) for speed in ("full", "fast")}
    sampled = quickest(often, rounds)
    rows["sampling, speed: fast / full"] = sampled["fast"] / sampled["full"]
    made = dict.fromkeys(("cond", "uncond", "context"), model.noise(9, (96, 96), 0))
    times = range(1000)
    guided = quickest({"": lambda: [combine(made, {"text": 4.0, "context": 0.5}) for _ in times]}, rounds)[""]
    rows["guidance arithmetic / step at rest"] = guided / len(times) / taken["at rest"]
    with TemporaryDirectory() as folder:
        rows |= renders(model, image, theirs, Path(folder), max(1, rounds // 2))
    for block in blocks_of(model.transformer):
        block.compile(fullgraph=True)
    compiled = steps({"compiled": ours.sample}, rounds)
    rows["step, compiled / at rest"] = compiled["compiled"] / taken["at rest"]
    return rows


def renders(model: Backend, image: Path, theirs: Callable[..., Any], folder: Path, rounds: int) -> Rows:
    """Films of two calm sections: the stock call against all that a render does, and the same film fast."""
    scene = Scene(id="a", prompt=PROMPT, seconds=2.4)

    def film(name: str, **board: Any) -> Any:
        model.texts = {}  # type: ignore[attr-defined]  # it encodes its prompts, as the stock call does
        return fr.render([scene], model=model, image=image, out=folder / name, fresh=True, **board)

    taken = quickest(
        {"stock": lambda: theirs(sections=2, output="np"), "render": lambda: film("twelve", steps=STEPS)}, rounds
    )
    rows = {"render of two sections / stock call": taken["render"] / taken["stock"]}
    films = {"full": film("full"), "fast": film("fast", speed="fast"), "13 steps": film("thirteen", steps=13)}
    frames = {name: np.concatenate(list(read_frames(made.path))).astype(float) for name, made in films.items()}
    for name in ("fast", "13 steps"):
        error = np.mean((frames["full"] - frames[name]) ** 2)
        rows[f"{name}: PSNR against the full film, dB"] = 10 * np.log10(255**2 / error)
    return rows


def small(rounds: int) -> Rows:
    """Steps of the other families on small random weights."""
    sys.path.insert(0, str(ROOT / "tests"))
    sys.path.insert(0, str(ROOT / "scripts"))
    import wan_folders

    wan_folders.SHAPE |= {"num_attention_heads": 8, "ffn_dim": 512, "num_layers": 4}
    made: dict[str, tuple[Any, Callable[[Path], Path], Any]] = {
        "wan 2.1": (WanPipeline, lambda place: wan_folders.wan_folder(place, expand=False), {"num_frames": 9}),
        "wan 2.2 5B": (WanPipeline, lambda place: wan_folders.wan_folder(place, expand=True), {"num_frames": 9}),
        "helios": (HeliosPipeline, wan_folders.helios_folder, {"num_frames": 33}),
    }
    rows: Rows = {}
    for name, (kind, build, frames) in made.items():
        with TemporaryDirectory() as folder:
            place, size = build(Path(folder)), (256, 256)
            stock, ours = kind.from_pretrained(place), Ours(fr.load(place, device="cpu"), None, size)

            def theirs(mark: Mark, stock: Any = stock, frames: Any = frames, size: Any = size) -> Any:
                return marked(
                    stock, mark, prompt_embeds=torch.zeros(1, 512, 16), negative_prompt_embeds=torch.ones(1, 512, 16),
                    width=size[0], height=size[1], num_inference_steps=STEPS, guidance_scale=5.0,
                    output_type="latent", **frames,
                )  # fmt: skip

            taken = steps(
                {
                    "stock": theirs,
                    "rest": ours.sample,
                    "blur": lambda mark, ours=ours: ours.sample(mark, {"blur": 0.6}),
                },
                rounds,
            )
            rows[f"{name}: step at rest / stock pipeline's"] = taken["rest"] / taken["stock"]
            rows[f"{name}: step, blur on all blocks / at rest"] = taken["blur"] / taken["rest"]
    return rows


def loop(sections: int = 1000) -> Rows:
    """What a render takes beside the model, of a long film of arithmetic: per section, at its end and at its beginning.

    The thread that samples; the film is encoded and measured beside it.
    """
    marks: list[tuple[float, float]] = []
    scene = Scene(id="a", prompt=PROMPT, seconds=1.2 * sections)
    with TemporaryDirectory() as folder:
        fr.render(
            [scene], model=fr.load("fake"), image=ROOT / "storyboards" / "red-beach.png", out=folder + "/film",
            size=(96, 96), steps=4, on_section=lambda section, seed: marks.append((time.thread_time(), resident())),
        )  # fmt: skip
    part = len(marks) // 10
    seconds = [(marks[first + part][0] - marks[first][0]) / part for first in (0, len(marks) - part - 1)]
    return {
        "a section beside the model, ms": 1000 * (marks[-1][0] - marks[0][0]) / (len(marks) - 1),
        f"the last tenth of {len(marks)} sections / the first, time": seconds[1] / seconds[0],
        f"after {len(marks)} sections / after {part}, memory": marks[-1][1] / marks[part][1],
    }


def resident() -> float:
    """Bytes of main memory that the process holds, on Linux."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def decode(rounds: int) -> Rows:
    """Sections of one shot, as a stream and FramePack's way, both without framewise tiling."""
    model = fr.load(PUPPET, device="cpu")
    vae: Any = model.vae  # type: ignore[attr-defined]
    vae.use_framewise_decoding = False
    latents = model.noise(9, (96, 96), 0)
    stream = StreamDecoder(vae, start=latents[:, :, :1])
    blend = BlendDecoder(vae, order="forward", start=latents[:, :, :1], sections=3 * rounds)
    stream.push(latents), blend.push(latents)  # the second of a shot is the first with a whole section before it
    taken = quickest({"stream": lambda: stream.push(latents), "blend": lambda: blend.push(latents)}, rounds)
    return {"decode of a section / FramePack's blend": taken["stream"] / taken["blend"]}


def memory() -> Rows:
    """The most that a process held for a film of two sections of 4 steps, on Linux."""
    peaks = {
        who: int(subprocess.run([sys.executable, __file__, "--peak", who], capture_output=True, check=True).stdout)
        for who in ("stock", "ours")
    }
    return {"peak memory of a render / stock call": peaks["ours"] / peaks["stock"]}


def peak(who: str) -> None:
    """Prints it."""
    image = ROOT / "storyboards" / "red-beach.png"
    if who == "stock":
        stock = HunyuanVideoFramepackPipeline.from_pretrained(PUPPET, dtype=torch.float32)
        stock(
            image=Image.open(image).convert("RGB"), prompt=PROMPT, height=96, width=96, num_frames=66,
            num_inference_steps=4, guidance_scale=2.0, sampling_type="vanilla",
        )  # fmt: skip
    else:
        with TemporaryDirectory() as folder:
            fr.render([Scene(id="a", prompt=PROMPT, seconds=2.4)], image=image, out=folder + "/film", steps=4)
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))  # getrusage's begins at the parent's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/bench.json"))
    parser.add_argument("--peak", choices=["stock", "ours"], help=argparse.SUPPRESS)
    words = parser.parse_args()
    torch.set_num_threads(1)
    if words.peak:
        return peak(words.peak)
    keep_steady()
    rows: Rows = {}
    for part in (puppet, small, decode, lambda rounds: memory(), lambda rounds: loop()):
        for name, value in part(words.rounds).items():
            rows[name] = round(value, 5)
            print(f"{value:9.4f}  {name}", flush=True)
    machine = {"date": str(date.today()), "processor": processor(), "torch": torch.__version__, "threads": 1}
    words.out.parent.mkdir(parents=True, exist_ok=True)
    words.out.write_text(json.dumps({**machine, "rows": rows}, indent=1) + "\n", encoding="utf8")
    print(f"{words.out}: {machine}")
    return None


def processor() -> str:
    """By name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
