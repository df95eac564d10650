"""Puts a drill's results into the repository and into the table of docs/memory.md.

python scripts/gpu/report.py out/gpu     # the parts become scripts/measured/gpu/DATE-HARDWARE.json, the page says so
python scripts/gpu/report.py             # the page anew, from the newest run that is there; without one, by estimate
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from drill_geometry import IMAGE, RELAXED, Setup, random_model

from framepack_relax.families.backend import PRESETS
from framepack_relax.families.framepack.history import SECTION_LATENTS, slots
from framepack_relax.families.memory import GIB

ROOT = IMAGE.parents[1]
PAGE = ROOT / "docs" / "memory.md"
MEASURED = ROOT / "scripts" / "measured" / "gpu"
BEGIN, END = "<!-- by scripts/gpu/report.py -->\n", "<!-- until here -->\n"
LIES = {  # where things are: weights, what the VAE decodes, main memory
    "full": "there | whole pictures | little: weights are mapped from their files",
    "tiled": "there | tiles of 256 px | the same",
    "offload": "in main memory, a layer comes for its turn | tiles of 256 px | 57 GB, pinned; with less each layer is "
    "pinned in its turn, which is slower",
}
NEEDED = ("matrix product", "forward", *(f"step {name}" for name in RELAXED), *(f"memory {p}" for p in PRESETS))
Run = dict[str, Any]


class Refused(Exception):
    """Results that do not make a run; every reason, a line each."""


def merge(files: Sequence[Path]) -> Run:
    """The parts of one run on one GPU. Raises Refused."""
    parts = {file.stem: json.loads(file.read_text(encoding="utf8")) for file in files}
    measured = parts.get("geometry", {}).get("results", {})
    wrong = [f"{name}: a rehearsal on a CPU" for name, part in parts.items() if part["rehearsal"]]
    wrong += [f"geometry: has no '{name}'" for name in NEEDED if name not in measured]
    if len({json.dumps(part["machine"]) for part in parts.values()}) > 1:
        wrong.append("the parts come from different machines: " + ", ".join(parts))
    if wrong:
        raise Refused("\n".join(wrong))
    whole = parts["geometry"]
    kept = ("finished", "seconds", "results", "failures")
    shown = {name: {key: part[key] for key in kept} for name, part in parts.items()}
    return {"date": whole["date"], "machine": whole["machine"], "parts": shown}


def file_name(run: Run) -> str:
    hardware = re.sub(r"[^a-z0-9]+", "-", run["machine"]["hardware"].lower()).strip("-")
    return f"{run['date']}-{hardware}.json"


def newest(folder: Path = MEASURED) -> Run | None:
    """The committed run of the latest date."""
    files = sorted(folder.glob("*.json"))
    return json.loads(files[-1].read_text(encoding="utf8")) if files else None


def gib(count: float) -> str:
    return f"{count / GIB:.0f}" if count >= 10 * GIB else f"{count / GIB:.1f}"


def table(run: Run | None) -> str:
    """The page's paragraph and table."""
    if run is None:
        setup = Setup(device=torch.device("meta"))
        model = random_model(setup)
        said = [
            "By estimate, counted from shapes (`scripts/gpu/drill.sh` measures it), FramePack at 640x608 in bf16:\n",
            "| | weights | VAE | main memory | GPU memory |",
            "|---|---|---|---|---|",
        ]
        for preset in PRESETS:
            need = model.need(slots("forward", 3, 4), SECTION_LATENTS, setup.size, preset).total
            least = "at least " if preset == "offload" else ""  # copies may run ahead of the work
            said.append(f"| `{preset}` | {LIES[preset]} | {least}{gib(need)} GiB |")
        return "\n".join(said) + "\n"
    results = run["parts"]["geometry"]["results"]
    said = [
        f"Measured on {run['machine']['hardware']}, {run['date']}, FramePack at {'x'.join(map(str, results['size']))} "
        "in bf16 with random weights (estimates in brackets):\n",
        "| | weights | VAE | main memory | GPU memory | a forward pass | decoding a section |",
        "|---|---|---|---|---|---|---|",
    ]
    for preset in PRESETS:
        got = results[f"memory {preset}"]
        need = max(got[name]["reserved"] for name in ("pass_peak", "decode_peak"))
        times = " | ".join(f"{got[name]['seconds']:.2f} s" for name in ("pass", "decode"))
        said.append(f"| `{preset}` | {LIES[preset]} | {gib(need)} GiB ({gib(got['estimate'])}) | {times} |")
    return "\n".join(said) + f"\n\n{speed(results)}\n"


def speed(results: Run) -> str:
    """What a pass and the edits cost, in a paragraph."""
    forward = results["forward"]
    share = forward["tflops"] / results["matrix product"]["tflops"]
    plain = mean(results[f"step {name}"]["seconds"] for name in ("plain", "plain again"))
    blur, bias, context = (results[f"step {name}"]["seconds"] / plain for name in ("blur", "bias", "context"))
    return (
        f"A pass is {forward['tflop']:.0f} TFLOP, done at {forward['tflops']:.0f} TFLOP/s: {share:.0%} of what a\n"
        f"product of large matrices reaches there. A step at rest is one pass; with blur it takes {blur:.2f} times as\n"
        f"long, with a bias {bias:.2f}, with the context loosened {context:.2f}." + "".join(optional(results))
    )


def optional(results: Run) -> Iterator[str]:
    """What else was measured, a line each."""
    if fast := results.get("fast"):
        yield f"\nDenoising with `speed: fast` takes {fast['ratio']:.2f} of the time."
    if puppet := results.get("puppet fast"):
        yield f"\nA calm film of the puppet is then {puppet['psnr']:.1f} dB from the full one."
    if compiled := results.get("compiled"):
        yield f"\nA pass with compiled blocks takes {compiled['ratio']:.2f}, {compiled['error']:.1e} from the other."


def rewrite(page: str, run: Run | None) -> str:
    """The page with the table of this run."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table(run) + END + rest.split(END)[1]


def main(*given: str) -> int:
    files = [file for name in map(Path, given) for file in (sorted(name.glob("*.json")) if name.is_dir() else [name])]
    if given:
        try:
            run = merge(files)
        except Refused as error:
            print(f"these results do not make a run:\n{error}", file=sys.stderr)
            return 2
        MEASURED.mkdir(parents=True, exist_ok=True)
        (MEASURED / file_name(run)).write_text(json.dumps(run, indent=1) + "\n", encoding="utf8")
    PAGE.write_text(rewrite(PAGE.read_text(encoding="utf8"), newest()), encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
