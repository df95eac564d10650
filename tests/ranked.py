"""What torchrun starts for test_ranks.py: `ranked.py MODEL IMAGE`.

Rank 0 prints a line of JSON per case: how far the latents of all ranks are `apart` from those of one, relative; how
many passes of how many tokens a step takes, and what of these rank 0 has done.
"""

import json
import os
import sys
from dataclasses import replace

import torch
from PIL import Image
from shots import sample_shot

from framepack_relax.families.loader import Loading, load
from framepack_relax.families.ranks import join, lead
from framepack_relax.planning.planner import make_plan
from framepack_relax.relax.effects import KeyGain, KVBlur, LowPass
from framepack_relax.storyboard import Scene, storyboard_from_scenes

PROMPT, SIZE = "a red figure waves on the beach", (48, 80)
BLUR, GAIN = KVBlur(sigma=0.6), KeyGain(gain=0.5)
CASES = {
    "calm": ({}, ()),
    "text": ({"text": 4.0}, ()),
    "context": ({"context": 0.5}, ()),
    "blur": ({}, (BLUR,)),
    "pre_rope": ({}, (KVBlur(sigma=0.6, scope="all", space="pre_rope"),)),
    "gain": ({}, (GAIN,)),
    "three": ({"text": 4.0, "context": 0.5}, (BLUR, GAIN)),
    "all": ({"text": 4.0, "context": 0.5}, (BLUR, GAIN, LowPass(factor=0.5))),
}
CLIP = ("calm", "text", "blur")  # of a model without a past


def latents(model, plan, start):
    """Of the first shot's sections."""
    texts = model.encode_prompts([PROMPT, ""])
    model.place()
    made = sample_shot(
        model, plan, start=start, prompt=texts[PROMPT], negative=texts[""],
        noise=lambda section: model.noise(section.latents, plan.size, section.seed, draw=section.draw),
    )  # fmt: skip
    return torch.cat([result.latents for result in made.values()], dim=2)


def watched(model, counts):
    """Counts passes and tokens of a model from now on."""

    def count(block, given):
        counts["passes"] += 1
        counts["tokens"] += given[0].shape[1]

    return model.transformer.single_transformer_blocks[0].register_forward_pre_hook(count)


def measured(name, order, models, image):
    ours, alone = models
    own = {"image": image, "framepack": {"order": order}} if alone.family.image == "required" else {}
    board = storyboard_from_scenes([Scene(id="a", prompt=PROMPT, seconds=2.4)], size=SIZE, steps=3, **own)
    plan, (scales, effects) = make_plan(board, alone.family), CASES[name]
    sections = tuple(
        replace(s, steps=tuple(replace(t, scales={**t.scales, **scales}, effects=effects) for t in s.steps))
        for s in plan.sections
    )
    plan = replace(plan, sections=sections)
    start = alone.encode_starts({0: (Image.open(image).convert("RGB").resize(SIZE), 1)})[0] if own else None
    made, counts = [], []
    for model in (ours, alone):
        counts.append({"passes": 0, "tokens": 0})
        hook = watched(model, counts[-1])
        made.append(latents(model, plan, start))
        hook.remove()
    apart = float((made[0] - made[1]).abs().max() / made[1].abs().max())
    count = sum(len(section.steps) for section in sections)
    return {
        "case": name,
        "order": order,
        "apart": apart,
        "moved": float(made[1].abs().mean()),
        "branches": counts[1]["passes"] // count,
        "passes_of_first": counts[0]["passes"] / count,
        "tokens": counts[1]["tokens"] / counts[1]["passes"],
        "tokens_of_first": counts[0]["tokens"] / counts[0]["passes"],
    }


if __name__ == "__main__":
    join()
    folder, image = sys.argv[1:]
    loading = Loading(name=folder, device="cpu", ranks=int(os.environ["WORLD_SIZE"]))
    models = lead(loading), load(folder, device="cpu")
    past = models[1].family.grid.past
    for name in CASES if past else CLIP:
        for order in ("forward", "inverted") if past else ("forward",):
            print(json.dumps(measured(name, order, models, image)), flush=True)
