"""What to write for an unknown field: other programs' words for ours, fields in the wrong place, slips of spelling."""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

CALLED = {
    "seconds": "duration length time sec secs second clip_length video_length total_second_length total_seconds "
    "duration_seconds scene_length frames num_frames frame_count total_frames nframes",
    "fps": "framerate frame_rate frames_per_second rate",
    "guidance.text": "cfg cfg_scale true_cfg true_cfg_scale real_cfg text_cfg",
    "guidance.embedded": "guidance_scale distilled_guidance distilled_guidance_scale distilled_cfg distilled_cfg_scale "
    "flux_guidance embedded_cfg_scale embedded_guidance embedded_guidance_scale gs",
    "negative_prompt": "negative neg neg_prompt n_prompt negprompt negativeprompt uncond",
    "prompt": "text description caption action positive positive_prompt prompts",
    "image": "start_image first_image first_frame start_frame init_image input_image source_image reference_image img "
    "picture photo image_path start_image_path",
    "end_image": "last_image last_frame end_frame final_image final_frame tail_image image_end target_image",
    "keyframes": "keyframe key_frames guide_image guide_images",
    "from": "input_video continue_from extend source_video video",
    "intensity": "motion motion_strength motion_scale motion_bucket motion_bucket_id motion_amount movement dynamics "
    "dynamic energy action_strength strength denoise denoising_strength",
    "crf": "quality mp4_crf bitrate compression",
    "size": "width height resolution aspect aspect_ratio ratio dimensions w h",
    "steps": "num_inference_steps inference_steps num_steps sampling_steps sample_steps iterations",
    "speed": "teacache use_teacache cache magcache speedup",
    "sampler": "scheduler solver sampling_method sampler_name",
    "model": "checkpoint ckpt base_model model_name model_id model_path",
    "seed": "noise_seed random_seed manual_seed rng_seed",
    "id": "name label scene_id",
    "title": "film_name project project_name",
    "scenes": "shots clips sections segments parts timeline scene",
    "transition": "cut continue hard_cut new_shot",
    "transition.blend": "blend prompt_blend blend_sections",
    "emphasis": "prompt_weight prompt_weights word_weights attention_weights emphasize",
    "lora": "loras lora_weights lora_path adapter adapters",
    "audio": "sound music voice narration speech soundtrack track audio_path audio_file",
    "style": "style_prompt suffix prompt_suffix common_prompt global_prompt",
    "framepack.order": "sampling_type render_order direction",
    "relax.p": "power exponent decay",
    "relax.history_gain": "bias",
    "relax.history_gain_above": "bias_above",
    "experimental.gain_on": "bias_on",
}  # our field, after a dot inside a mapping: others' words for it, in small letters with `_`
HERE = {  # the same where a mapping has the field; of a LoRA, of emphasis
    "file": "path name lora_name lora_path",
    "scale": "strength weight multiplier lora_scale lora_strength strength_model",
    "gain": "strength weight multiplier scale",
}
FORMS = {  # where a name alone says too little
    "size": "size: [width, height]",
    "transition": "transition: cut",
    "emphasis": "emphasis: [{words: .., gain: ..}]",
    "keyframes": "keyframes: [{at: .., image: ..}]",
    "lora": "lora: [{file: .., scale: ..}]",
    "start_from": "start_from: {folder: .., strength: 0.6}",
}
BARE = {  # of numbers
    "guidance": "{{text: {}}}",
    "relax": "{{beta: {}}}",
    "ensure": "{{motion: {}}}",
    "start_from": "{{strength: {}}}",
    "size": "[{}, {}]",
    "interval": "[{}, {}]",
}
SEPARATOR = re.compile(r"[\s,;x*\u00d7]+|(?<=[0-9])-")  # as in 640x480
PLAIN_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)")
BESIDE = {"transition": "{blend: 2}"}  # what may stand there besides words
NOT_YET = {
    "a scene begins where the one before it ends and lasts `seconds`; its start image is `image`": "start end "
    "start_time end_time start_seconds end_seconds begin to offset",
    "a model has no modes; `model`, `image` and `steps` say what it does": "mode task task_type generation_mode",
    "other weights than `lora` are not mixed in": "embedding textual_inversion hypernetwork",
    "a film plays at its `fps`; say in the prompt how fast things move": "motion_speed playback_speed "
    "slow_motion slowmo timelapse time_lapse",
    "say in the prompt how the camera moves": "camera camera_motion camera_movement camera_move pan zoom tilt dolly",
    "a film has no titles on its pictures": "subtitle subtitles overlay watermark",
    "films are H.264, `crf` sets the quality": "codec vcodec video_codec encoder format container pix_fmt preset",
    "shots are joined by cuts": "fade crossfade cross_fade dissolve wipe",
    "pictures come as the model makes them; `finish` runs a command on each shot": "upscale upscaler upscaling "
    "interpolation interpolate rife deflicker",
    "nothing but text and start images steers a film": "control controlnet mask pose depth ip_adapter",
    "a board has one take of a scene; `framepack-relax take` renders more": "batch batch_size takes variations count "
    "num_videos",
}  # what cannot be said: words for it
MEANT, LACKING = (
    {word: said for said, words in table.items() for word in words.split()} for table in (CALLED, NOT_YET)
)
FULL_WIDTH_COLON = "\uff1a"
FULL_WIDTH = f"the colon {FULL_WIDTH_COLON!r} (U+FF1A) is full-width; write ':' and a space"
WHEN_RENDERING = (
    "attention compile device dtype memory out output output_dir output_folder filename precision "
    "gpu_memory_preservation offload draft tile tiles tiling tiled vae_tiling low_vram vram dry_run"
)


def unknown_field(word: str, owner: type[BaseModel] | None, root: type[BaseModel]) -> str:
    """What to write instead of a field that the mapping `owner`, somewhere in a file of kind `root`, does not have."""
    known = list(owner.model_fields) if owner else []
    if FULL_WIDTH_COLON in word:
        return FULL_WIDTH
    name = _simple(word)
    if here := next((field for field, words in HERE.items() if field in known and name in words.split()), ""):
        return f"write `{here}`"
    if name in MEANT and (said := _write(MEANT[name], known, root)):
        return said
    if name in WHEN_RENDERING.split():
        return "that is said when a film is rendered, not in its storyboard"
    if name not in known and (place := _place(name, root)):
        return f"it belongs {place}" if name == word else f"write `{name}` {place}"
    return suggest(word, known)


def suggest(word: str, known: Sequence[str]) -> str:
    """A cure for a name that is not among the `known`, or not in this place."""
    name, known = _simple(word), [other for other in known if other != word]
    if name in LACKING:
        return f"not yet: {LACKING[name]}"
    if (own := MEANT.get(name, "").rpartition(".")[2]) in known:
        return f"write `{own}`"
    near = get_close_matches(name, known, n=1, cutoff=0.75)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


def argument(word: str, known: Sequence[str]) -> str:
    """What to write for an argument in Python that nothing takes; empty for a name that a storyboard may mean."""
    name = _simple(word)
    mine = name in WHEN_RENDERING.split() or get_close_matches(name, known, n=1, cutoff=0.75)
    return suggest(word, known) if mine else ""


def bare(field: str, value: Any, sign: str) -> str:
    """How to write numbers that stand for a mapping or a list, which begins with `sign`; empty where not known."""
    numbers, form = SEPARATOR.split(str(value).strip("()[], ")), BARE.get(field, "")
    fits = form and form.count("{}") == len(numbers) and all(map(PLAIN_NUMBER.fullmatch, numbers))
    said = f"{field}: {form.format(*numbers)}" if fits else FORMS.get(field, "")
    return said if sign in said else ""


def _simple(word: str) -> str:
    """In small letters, with `_` between words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[- ]+", "_", word.strip()).lower()


def _write(field: str, known: Sequence[str], root: type[BaseModel]) -> str:
    """The words `write ...`, with the place where it stands elsewhere; empty where a file of this kind has no such."""
    outer, _, inner = field.partition(".")
    shown = f"{outer}: {{{inner}: ..}}" if inner else FORMS.get(outer, outer)
    if outer in known:
        return f"write `{shown}`"
    if inner in known:
        return f"write `{inner}`"
    place = _place(outer, root)
    return f"write `{shown}` {place}" if place else ""


def _place(field: str, root: type[BaseModel]) -> str:
    """Where in a file the first mapping stands that has this field; empty if none has."""
    home = next((home for home, model in _homes("", root) if field in model.model_fields), None)
    return "" if home is None else f"under `{home}:`" if home else "at the top of the file"


def _homes(name: str, model: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every mapping of a file by the field that it stands under."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        yield name, model
        for field, info in model.model_fields.items():
            yield from _homes(field, info.annotation)
    for inner in get_args(model):
        yield from _homes(name, inner)
