"""The packaged model's figures: what its card says, measured on scenes, clips and prompts held out from training.

python -m training.measure                 # prints the figures of the committed measurements
python -m training.measure --full          # measures again; half an hour on two cores, resumable
python -m training.measure --quick         # a sample of each, a minute, kept nowhere
python -m training.measure --pictures scripts/measured    # a film per action, the drift of calm films

One JSON line per film or clip in measurements.jsonl of the model's folder, with the weights' fingerprint: other weights
are measured anew. Everything printed, and figures.json beside them, is computed from these lines.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import HunyuanVideoFramepackPipeline
from draw_start_images import puppet
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

import framepack_relax as fr
from framepack_relax.evaluate.action import STATIC, ActionJudge
from framepack_relax.evaluate.action import named as named_of
from framepack_relax.evaluate.detectors import find_failures
from framepack_relax.evaluate.rows import lines_of, read_rows
from framepack_relax.evaluate.text import TextJudge
from framepack_relax.families.catalog import FIGURES, find
from framepack_relax.files import write_file
from framepack_relax.storyboard.part import Part
from training.distil import branches, guided
from training.drawing import draw
from training.judge_data import captioned, clips, labels
from training.judges import SPAN, scene_of
from training.run import TransformerTraining
from training.transformer import SECTIONS, Examples, Trained, encode_film, sample_batch
from training.vae import held_out_clip, psnr, reconstructed
from training.world import ACTION_WORDS, FIRST, PLACE_WORDS, SECOND, Film, Mix, World, act, sample_film

MODEL = Path("framepack_relax/puppet")
JUDGES = Path("framepack_relax/evaluate/judges")
SECTION = 1.2  # seconds
SHOWN = 4  # a picture shows every fourth frame
WORLDS = {"first": FIRST, "second": SECOND}
EMBEDDED_SCALES = (2.0, 4.0, 8.0)
CAPTIONS = 60  # of other colours, places and actions, among which a frame's own has to be the nearest
Row = dict[str, Any]


class Measured(Part, extra="allow"):
    """A row of measurements.jsonl, of the weights with this fingerprint."""

    weights: str
    kind: str
    seed: int


class Bench:
    """The model and its judges, loaded once; films that begin alike share their first sections in `work`."""

    def __init__(self, model: Path, judges: Path, work: Path, world: World) -> None:
        self.work, self.judges, self.world = work, judges, world
        self.actions = ("stand", *world.actions)
        self.folder, self.model = model, fr.load(str(model), device="cpu")
        self.sampler = fr.load(str(model), device="cpu", dtype="bfloat16")  # films are sampled as the sweeps' are
        self.action, self.text = ActionJudge(judges / "action"), TextJudge(judges / "text")
        self.scenes = [(colour, place) for colour in world.colours for place in world.places]

    def film(self, colour: str, place: str, seed: int, *acts: tuple[str, int]) -> list[NDArray[np.uint8]]:
        """Frames of each act (action, sections), rendered in one shot at rest."""
        folder = self.work / f"{colour}-{place}-{seed}"
        folder.mkdir(exist_ok=True)
        image = folder / "start.png"
        puppet(colour, place, seed, self.world).save(image)
        scenes = [
            fr.Scene(id=f"s{n}", prompt=prompt(colour, place, action), seconds=SECTION * sections)
            for n, (action, sections) in enumerate(acts)
        ]
        made = fr.stream(scenes, out=folder / "out", model=self.sampler, image=str(image), seed=seed)
        parts = [(done.plan.scene, done.frames) for done in made]
        return [np.concatenate([f for scene, f in parts if scene == s.id]) for s in scenes]

    def scene_of(self, frames: NDArray[np.uint8]) -> tuple[str, str]:
        """Colour and place that the frames fit best."""
        texts = [prompt(colour, place, "stand") for colour, place in self.scenes]
        return self.scenes[int(self.text.cosines(frames[::6], texts).mean(0).argmax())]


def prompt(colour: str, place: str, action: str) -> str:
    return f"a {colour} figure {ACTION_WORDS[action][0]} {PLACE_WORDS[place]}"


def vae_row(bench: Bench, seed: int) -> Row:
    """PSNR of a held-out clip of 37 frames."""
    clip, action = held_out_clip(seed, bench.world)
    return {"psnr": round(psnr(bench.model.vae, clip).item(), 2), "action": action}


def action_row(bench: Bench, seed: int) -> Row:
    """An action in the prompt from the first section on."""
    action = bench.actions[seed % len(bench.actions)]
    rng = np.random.default_rng((4243, seed))
    scenes = sorted(bench.world.held_out) if rng.random() < 1 / 3 else bench.scenes
    colour, place = scenes[rng.integers(len(scenes))]
    (frames,) = bench.film(colour, place, seed, (action, 2))
    named = named_of(bench.action.score(frames, 30))
    seen = bench.scene_of(frames[:37])
    wanted = STATIC if action == "stand" else action
    return {"action": action, "named": named, "right": named == wanted, "scene_right": seen == (colour, place)}


def calm_row(bench: Bench, seed: int) -> Row:
    """Eight sections of standing still: how the picture changes from frame to frame and from the first."""
    colour, place = bench.scenes[(7 * seed) % len(bench.scenes)]
    (frames,) = bench.film(colour, place, seed, ("stand", 8))
    levels = frames.astype(np.float32) / 255
    first = np.abs(levels - levels[0]).mean((1, 2, 3))[36::36]
    adjacent = np.abs(np.diff(levels, axis=0)).mean((1, 2, 3))
    return {
        "adjacent": [round(float(part.mean()), 5) for part in np.array_split(adjacent, 8)],
        "first": [round(float(value), 5) for value in first],
        "scene_right": bench.scene_of(frames[-36:]) == (colour, place),
    }


def static_row(bench: Bench, seed: int) -> Row:
    """Two calm sections, then an action: whether anything happens. All actions follow the same calm."""
    calm, number = divmod(seed, len(bench.world.actions))
    action = list(bench.world.actions)[number]
    colour, place = bench.scenes[calm % len(bench.scenes)]
    _, frames = bench.film(colour, place, calm, ("stand", 2), (action, 2))
    named = named_of(bench.action.score(frames, 30))
    return {"action": action, "named": named, "static": find_failures(frames, 30)["static"]}


def embedded_row(bench: Bench, seed: int) -> Row:
    """Mean squares: what a prompt changes, v(c) - v(neg); how far a pass at embedded scale s is from true CFG at s.

    Both by the same weights: true CFG has its two passes at embedded scale 1.
    """
    rng, vae = np.random.default_rng((4244, seed)), bench.model.vae
    vae.use_framewise_encoding = False
    film = sample_film(rng, SECTIONS, Mix(), held_out=seed % 2 == 0, world=bench.world)
    latents = encode_film(vae, film, 96, "cpu") * vae.config.scaling_factor
    data = Examples(films=[film], latents=latents, starts=draw([(film, np.array([0]))]))
    batch = sample_batch(rng, data, TransformerTraining(batch=1, drop_prompt=0, history_noise=0))
    mixed = batch.mixed(torch.randn(batch.section.shape, generator=torch.Generator().manual_seed(seed)))
    network = Trained(HunyuanVideoFramepackPipeline.from_pretrained(bench.folder, dtype=torch.float32)).eval()
    cond, uncond = branches(network, mixed, batch, "cpu")
    errors = {}
    for scale in EMBEDDED_SCALES:
        scales = torch.tensor([scale])
        with torch.no_grad():
            made = network.velocity(mixed, batch, scales, batch.prompts, "cpu")
        errors[f"{scale:g}"] = (made - guided(cond, uncond, scales)).square().mean().item()
    return {"sigma": round(batch.sigma.item(), 3), "change": (cond - uncond).square().mean().item(), "error": errors}


def judge_row(bench: Bench, seed: int) -> Row:
    """A drawn clip of each label for the action judge; drawn frames, and the captions of all, for the text judge."""
    rng = np.random.default_rng((4246, seed))
    names = labels(bench.world)
    shown, truths, _ = clips(rng, len(names), frames=SPAN, span=SPAN, size=96, world=bench.world)
    named = [named_of(bench.action.score(clip, 30)) for clip in as_frames(shown)]
    pixels, texts = captioned(rng, CAPTIONS, 96, bench.world)
    nearest = bench.text.cosines(as_frames(pixels), texts).argmax(1)
    scenes = [scene_of(text) == scene_of(texts[near]) for text, near in zip(texts, nearest, strict=True)]
    return {
        "right": {names[truth]: name == names[truth] for truth, name in zip(truths.tolist(), named, strict=True)},
        "caption_right": mean(nearest == np.arange(CAPTIONS)),
        "scene_right": mean(scenes),
    }


def size_row(bench: Bench, seed: int) -> Row:
    """MiB on disk."""
    folders = {"model": bench.folder, "judges": bench.judges}
    sizes = {n: sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) for n, folder in folders.items()}
    return {name: round(size / 2**20, 1) for name, size in sizes.items()}


def speed_row(bench: Bench, seed: int) -> Row:
    """Seconds of a section of 25 steps, text scale 1, with its decode."""
    image = bench.work / "start.png"
    puppet("red", "beach", seed, bench.world).save(image)
    walk = fr.Scene(id="a", prompt=prompt("red", "beach", "walk"), seconds=3 * SECTION, guidance={"text": 1})
    begun = time.perf_counter()
    made = list(fr.stream([walk], out=bench.work / f"speed-{seed}", model=bench.model, image=str(image)))
    whole = time.perf_counter() - begun
    return {"section": round(sum(made[-1].report["seconds"].values()), 2), "film_of_three": round(whole, 2)}


KINDS: dict[str, tuple[Callable[[Bench, int], Row], int, int]] = {  # what measures a row; how many in full; quick
    "vae": (vae_row, 48, 4),
    "action": (action_row, 120, 6),
    "calm": (calm_row, 6, 1),
    "static": (static_row, 200, 5),
    "embedded": (embedded_row, 96, 6),
    "judge": (judge_row, 100, 3),
    "size": (size_row, 1, 1),
    "speed": (speed_row, 3, 1),
}


def measure(bench: Bench, known: list[Row], kinds: list[str], *, quick: bool) -> Iterator[Row]:
    """The rows that are not known yet."""
    have = {(row["kind"], row["seed"]) for row in known}
    for kind in kinds:
        work, full, few = KINDS[kind]
        for seed in range(few if quick else full):
            if (kind, seed) not in have:
                yield {"kind": kind, "seed": seed, **work(bench, seed)}


def figures(rows: list[Row]) -> dict[str, Any]:
    """Everything that the card says, from the rows."""

    def values(kind: str, name: str, **where: str) -> list[Any]:
        return [r[name] for r in rows if r["kind"] == kind and all(r[k] == v for k, v in where.items())]

    def shown(kind: str) -> list[str]:
        return list(dict.fromkeys(values(kind, "action")))

    made: dict[str, Any] = {}
    if decibels := values("vae", "psnr"):
        made["vae_psnr"] = {"clips": len(decibels), "mean": mean(decibels), "lowest": min(decibels)}
    if right := values("action", "right"):
        made["right_action"] = {"films": len(right), "share": mean(right)}
        made["right_action"] |= {a: mean(values("action", "right", action=a)) for a in shown("action")}
        made["right_colour_and_place"] = mean(values("action", "scene_right"))
    if drift := values("calm", "first"):
        made["calm_drift"] = {"films": len(drift), "from_first_by_section": np.mean(drift, 0).round(4).tolist()}
        made["calm_drift"]["adjacent_by_section"] = np.mean(values("calm", "adjacent"), 0).round(5).tolist()
    if static := values("static", "static"):
        made["static_death"] = {"films": len(static), "share": mean(static)}
        made["static_death"] |= {a: mean(values("static", "static", action=a)) for a in shown("static")}
    if errors := values("embedded", "error"):
        change = sum(values("embedded", "change"))
        made["embedded_error"] = {"examples": len(errors)}
        for scale in EMBEDDED_SCALES:  # in shares of what true CFG at that scale changes
            share = np.sqrt(sum(e[f"{scale:g}"] for e in errors) / change) / (scale - 1)
            made["embedded_error"][f"{scale:g}"] = round(float(share), 3)
    if clips_right := values("judge", "right"):
        every = [hit for right in clips_right for hit in right.values()]
        made["action_judge"] = {"clips": len(every), "share": mean(every)}
        made["action_judge"] |= {label: mean([right[label] for right in clips_right]) for label in clips_right[0]}
        captions, scenes = values("judge", "caption_right"), values("judge", "scene_right")
        made["text_judge"] = {"frames": len(captions) * CAPTIONS, "nearest_caption": mean(captions)}
        made["text_judge"]["colour_and_place"] = mean(scenes)
    if sizes := values("size", "model"):
        made["mib"] = {"model": sizes[0], "judges": values("size", "judges")[0]}
    if seconds := values("speed", "section"):
        made["seconds_per_section"] = mean(seconds)
    return made


def mean(values: Sequence[Any] | NDArray[Any]) -> float | None:
    return round(float(np.mean(values)), 3) if len(values) else None


def save_pictures(bench: Bench, known: list[Row], folder: Path) -> None:
    """puppet-actions.png: each action from the start on, two sections, every fourth frame; puppet-flips.png: drawn
    backflips and below each what the VAE makes of it, every third frame; puppet-drift.png."""
    rows = []
    for number, action in enumerate(bench.actions):
        colour, place = bench.scenes[(4 * number) % len(bench.scenes)]
        (frames,) = bench.film(colour, place, 7000 + number, (action, 2))
        rows += np.split(frames[: 72 // SHOWN * SHOWN : SHOWN], 2)
    Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])).save(
        folder / "puppet-actions.png"
    )
    flips = [pixels for clip in drawn_flips(bench.world) for pixels in (clip, reconstructed(bench.model.vae, clip))]
    Image.fromarray(np.concatenate([as_strip(pixels[:, :, 6:33:3]) for pixels in flips])).save(
        folder / "puppet-flips.png"
    )
    plot = Figure(figsize=(8, 3), layout="constrained")
    for axes, name in zip(plot.subplots(1, 2), ("first", "adjacent"), strict=True):
        for row in known:
            if row["kind"] == "calm":
                axes.plot(range(1, 9), row[name], color="#2463be", alpha=0.6)
        axes.set(title=f"mean change to the {name} frame", xlabel="section of standing still", ylim=(0, None))
    plot.savefig(folder / "puppet-drift.png", dpi=120)


def drawn_flips(world: World) -> Iterator[torch.Tensor]:
    """Clips [1, 3, 37, H, W], two of them of a colour and place never trained on."""
    for number, (colour, place) in enumerate([("red", "beach"), ("blue", "field"), *sorted(world.held_out)[:2]]):
        pose, segments = act(
            np.random.default_rng((4245, number)), [("backflip", 37)], Mix(), starts=[[6]], world=world
        )
        film = Film(world=world, colour=colour, place=place, pose=pose, segments=segments)
        yield draw([(film, np.arange(37))]).transpose(0, 1)[None]


def as_frames(pixels: torch.Tensor) -> NDArray[np.uint8]:
    """[..., 3, H, W] in -1..1 as [..., H, W, 3]."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(-3, -1).numpy()


def as_strip(pixels: torch.Tensor) -> NDArray[np.uint8]:
    """Frames [1, 3, T, H, W] in -1..1 beside one another [H, T * W, 3]."""
    return np.concatenate(list(as_frames(pixels[0].movedim(1, 0))), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--world", choices=WORLDS, default="first", help="the one that the model was trained on")
    parser.add_argument("--judges", type=Path, default=JUDGES, help="folder with action/ and text/")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--pictures", type=Path, help="folder")
    parser.add_argument("--kind", choices=KINDS, action="append", help="default: all")
    words = parser.parse_args()
    torch.manual_seed(0)
    kinds = words.kind or list(KINDS)
    bench = partial(Bench, words.model, words.judges, world=WORLDS[words.world])
    file, weights = words.model / "measurements.jsonl", find(str(words.model)).fingerprint()
    known = [row for row in read_rows(file, Measured) if row["weights"] == weights]
    with tempfile.TemporaryDirectory() as work:
        if words.quick:
            known = list(measure(bench(Path(work)), [], kinds, quick=True))
        elif words.full:
            for row in measure(bench(Path(work)), list(known), kinds, quick=False):
                print(row, flush=True)
                known.append({"weights": weights, **row})
                write_file(file, lines_of(known))  # without rows of other weights
            (words.model / FIGURES).write_text(json.dumps(figures(known), indent=1) + "\n", encoding="utf8")
        if words.pictures:
            save_pictures(bench(Path(work)), known, words.pictures)
    print(json.dumps(figures(known), indent=1))


if __name__ == "__main__":
    main()
