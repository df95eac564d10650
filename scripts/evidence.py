"""Whether the committed evidence is what this tree gives: a line per mistake, exit code 1 where there is any.

make evidence
python scripts/evidence.py --write   # commits what the demo film's latents are here

RESULTS.md, its appendix and the measured lines of README.md and docs/method.md come from scripts/measured/films.jsonl,
the packaged model's profile, card and figures from it and from measurements.jsonl; both name the weights that they were
measured on. No page says of a claim what its verdict does not bear out. The demo film is rendered on one thread. Its
latents are equal to the bit on the processor and the torch that made scripts/measured/demo.json, and within TOLERANCE
elsewhere, where sums of floats are taken in another order.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import claims
import numpy as np
import results
import torch
from claims import Decided
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from training.measure import KINDS, Measured, figures

import framepack_relax as fr
from framepack_relax.evaluate.rows import read_rows
from framepack_relax.families.catalog import FIGURES, PUPPET, find
from framepack_relax.families.configs import SIDECAR

BOARD = "storyboards/backflip.yaml"
FACTS, LATENTS = results.MEASURED / "demo.json", results.MEASURED / "demo.safetensors"  # each section's last latent
TOLERANCE = 1e-4
OVERALL = ("share", "films")  # of a figure of the model; its others are shares by action
Latents = Mapping[str, NDArray[np.float32]]


def machine() -> dict[str, Any]:
    """What decides the last bit of a sum."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    widest = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "processor": said.get("model name") or platform.processor(), "kernels": widest}


def demo() -> dict[str, NDArray[np.float32]]:
    """The latents of each section, [1, C, T, h, w], by its number."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as out:
        sections = fr.stream(results.ROOT / BOARD, out=out, model=fr.load("puppet", device="cpu"))
        return {f"{section.plan.index:03d}": section.latents.numpy() for section in sections}


def hashes(latents: Latents) -> dict[str, str]:
    return {name: sha256(values.tobytes()).hexdigest() for name, values in latents.items()}


def last(latents: Latents) -> dict[str, NDArray[np.float32]]:
    return {name: np.ascontiguousarray(values[:, :, -1]) for name, values in latents.items()}


def differences(made: Latents, facts: Mapping[str, Any], kept: Latents, here: Mapping[str, Any]) -> Iterator[str]:
    """Of a film's latents to the committed ones: to the bit where `here` is the machine that `facts` name."""
    if list(made) != list(kept):
        yield f"{BOARD}: has sections {', '.join(made)}; committed are {', '.join(kept)}"
        return
    if {name: facts[name] for name in here} == here:
        changed = [name for name, said in hashes(made).items() if facts["sha256"][name] != said]
    else:
        changed = [name for name, values in last(made).items() if not np.abs(values - kept[name]).max() <= TOLERANCE]
    yield from (f"{BOARD}: the latents of section {name} are not the committed ones" for name in changed)


def of_films() -> Iterator[str]:
    """The pages that the films decide, and the profile of the packaged model."""
    rows = read_rows(results.FILMS)
    decided = claims.decide(results.leading(rows))
    for name, page in results.written(rows, decided).items():
        if (results.ROOT / name).read_text(encoding="utf8") != page:
            yield f"{name}: is not what the films say; run python scripts/results.py"
    pages = [*results.ROOT.glob("*.md"), *(results.ROOT / "docs").rglob("*.md")]
    yield from of_sentences(pages, decided)
    if json.loads((PUPPET / SIDECAR).read_text(encoding="utf8"))["profile"] != results.profile(rows):
        yield f"{SIDECAR}: its profile is not what the films say; run python scripts/results.py"
    if {row["weights"] for row in rows} != {find("puppet").fingerprint()[:12]}:
        yield "films.jsonl: measured on other weights; run the sweeps again"


def of_sentences(pages: Iterable[Path], decided: Sequence[Decided]) -> Iterator[str]:
    """Sentences of pages that the verdicts of their claims do not bear out, wherever they stand."""
    for page in pages:
        said = page.read_text(encoding="utf8")
        for one in decided:
            yield from (f"{page.name}: {line!r} is not borne out; {one.sentence!r}" for line in one.not_borne_out(said))


def of_model() -> Iterator[str]:
    """What was measured of the packaged model, its card, and whether it is good enough to judge the method on."""
    rows = read_rows(PUPPET / "measurements.jsonl", Measured)
    counts = Counter(row["kind"] for row in rows)
    if {row["weights"] for row in rows} != {find("puppet").fingerprint()}:
        yield "measurements.jsonl: of other weights; run training.measure --full"
    if counts != {kind: full for kind, (_, full, _) in KINDS.items()}:
        yield f"measurements.jsonl: holds {dict(counts)}; run training.measure --full"
    said = figures(rows)
    if json.loads((PUPPET / FIGURES).read_text(encoding="utf8")) != said:
        yield f"{FIGURES}: is not what measurements.jsonl says; run training.measure"
    good = {
        "vae_psnr": said["vae_psnr"]["mean"] >= 30,
        "right_action": said["right_action"]["share"] >= 0.85,
        "right_colour_and_place": said["right_colour_and_place"] >= 0.95,
        "static_death": 0.2 <= said["static_death"]["share"] <= 0.8,
        "embedded_error": max(said["embedded_error"][scale] for scale in ("2", "4", "8")) < 1,  # of true CFG's effect
        "action_judge": said["action_judge"]["share"] >= 0.97,
        "mib": said["mib"]["model"] <= 40 and said["mib"]["judges"] <= 15,
        "seconds_per_section": said["seconds_per_section"] <= 12,
    }
    yield from (f"{FIGURES}: {name} {said[name]} is out of bounds" for name, within in good.items() if not within)
    card = " ".join((PUPPET / "README.md").read_text(encoding="utf8").split())
    psnr, right, static = said["vae_psnr"], said["right_action"], said["static_death"]
    for words in (
        f"PSNR mean {psnr['mean']:.1f} dB, lowest {psnr['lowest']:.1f} dB",
        f"names it in {right['share']:.0%} of {right['films']} films",
        f"embedded scale 2, {static['share']:.0%} of {static['films']} films",
        *(f"{name} {share:.0%}" for found in (right, static) for name, share in found.items() if name not in OVERALL),
        f"{said['right_colour_and_place']:.0%}",
        f"takes {said['seconds_per_section']:.1f} s",
    ):
        if words not in card:
            yield f"puppet/README.md: does not say {words!r}, as the figures do"


def of_demo() -> Iterator[str]:
    """The demo film, rendered here."""
    yield from differences(demo(), json.loads(FACTS.read_text(encoding="utf8")), load_file(LATENTS), machine())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="commit the latents of the demo film that is made here")
    if parser.parse_args().write:
        made = demo()
        said = {"storyboard": BOARD, "threads": 1, **machine(), "sha256": hashes(made)}
        FACTS.write_text(json.dumps(said, indent=1) + "\n", encoding="utf8")
        save_file(last(made), LATENTS)
    mistakes = [*of_films(), *of_model(), *of_demo()]
    print("\n".join(mistakes) or "the evidence is what this tree gives")
    sys.exit(bool(mistakes))
