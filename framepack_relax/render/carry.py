"""A film and its folder carry the storyboard and the start images that they were made from, and give them back."""

import base64
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import FilmError, RenderError
from ..models.video_model import VideoModel
from ..plan.facts import ModelFacts
from ..plan.renderplan import RenderPlan
from ..plan.settings import settle_profile
from ..storyboard import Storyboard, dump_storyboard, parse_storyboard
from .folder import RunFolder, difference, made_with
from .status import STORY

FACTS_TAG = "framepack_relax"
STORYBOARD_TAG, IMAGES_TAG = "framepack_relax_storyboard", "framepack_relax_images"
IMAGE_NAME = re.compile(r"images/[0-9]+\.png")


def write_story(
    folder: RunFolder, story: Storyboard, plan: RenderPlan, facts: ModelFacts, images: Mapping[str, Image.Image]
) -> dict[str, str]:
    """Writes a storyboard that renders the same film from this folder alone.

    Gives the tags that let an mp4 do so too: the storyboard's text, and its images as base64 PNG by their path in it.
    """
    story = settle_profile(story, facts)
    names = {path: f"images/{number}.png" for number, path in enumerate(images)}
    scenes = tuple(scene.model_copy(update={"image": names.get(scene.image or "")}) for scene in story.scenes)
    board_image = names.get(story.image or "")
    settled = {"model": facts.name, "size": plan.size, "fps": plan.fps, "order": plan.order}
    moved = story.changed(**settled, image=board_image, scenes=scenes)
    pictures = {}
    for path, image in images.items():
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        folder.write_bytes(names[path], buffer.getvalue())
        pictures[names[path]] = base64.b64encode(buffer.getvalue()).decode("ascii")
    resolved = dump_storyboard(moved)
    folder.write_text(STORY, resolved)
    return {STORYBOARD_TAG: resolved, IMAGES_TAG: json.dumps(pictures)}


def restore(film: Path, out: Path) -> Path:
    """Writes `out`/story.yaml and its images from the tags of `film`, which is untrusted input; gives the path."""
    tags = _tags(film)
    try:
        text = tags[STORYBOARD_TAG]
        images = {str(k): base64.b64decode(v, validate=True) for k, v in json.loads(tags[IMAGES_TAG]).items()}
    except (KeyError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise RenderError(
            f"{film}: holds no storyboard; only films that framepack-relax wrote, and no program has saved anew, do"
        ) from error
    story = parse_storyboard(text, file=f"{film}, its storyboard")
    wanted = sorted({path for path in (story.image, *(scene.image for scene in story.scenes)) if path})
    for path in wanted:
        if path not in images or not IMAGE_NAME.fullmatch(path):
            raise RenderError(f"{film}: its storyboard names the image {path!r}, which the film does not carry")
    with RunFolder(out).locked() as folder:
        for path in wanted:
            folder.write_bytes(path, images[path])
        folder.write_text(STORY, text)
    return out / STORY


def provenance(film: Path) -> dict[str, Any]:
    """What a film says made it: weights, dtype, device, versions; what it does not say is absent."""
    try:
        facts = json.loads(_tags(film).get(FACTS_TAG, "{}"))
        return {name: facts[name] for name in ("weights", "dtype", "device", "versions") if name in facts}
    except (FilmError, ValueError, TypeError, RecursionError):
        return {}


def _tags(film: Path) -> dict[str, str]:
    from ..video.reader import read_metadata  # needs PyAV

    return read_metadata(film)


def what_differs(film: Path, model: VideoModel) -> str:
    """How the model that is to render a film again is another than the film's, in words; empty if it is not."""
    said = provenance(film)
    return difference(said, {name: value for name, value in made_with(model).items() if name in said})
