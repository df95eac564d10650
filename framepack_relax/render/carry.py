"""A film and its folder carry the storyboard and the start images that they were made from, and give them back."""

import base64
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

from av import FFmpegError
from PIL import Image

from ..errors import RenderError
from ..plan.facts import ModelFacts
from ..plan.renderplan import RenderPlan
from ..plan.settings import settle_profile
from ..storyboard import Storyboard, dump_storyboard, parse_storyboard
from ..video.writer import read_metadata
from .folder import RunFolder

STORYBOARD_TAG, IMAGES_TAG = "framepack_relax_storyboard", "framepack_relax_images"
IMAGE_NAME = re.compile(r"images/[0-9]+\.png")


def write_story(
    folder: RunFolder, story: Storyboard, plan: RenderPlan, facts: ModelFacts, images: Mapping[str, Image.Image]
) -> dict[str, str]:
    """Writes plan.json and a storyboard that renders the same film from this folder alone.

    Gives the tags that let an mp4 do so too: the storyboard's text, and its images as base64 PNG by their path in it.
    """
    story = settle_profile(story, facts)
    names = {path: f"images/{number}.png" for number, path in enumerate(images)}
    scenes = tuple(scene.model_copy(update={"image": names.get(scene.image or "")}) for scene in story.scenes)
    board_image = names.get(story.image or "")
    moved = story.changed(size=plan.size, fps=plan.fps, order=plan.order, image=board_image, scenes=scenes)
    pictures = {}
    for path, image in images.items():
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        folder.write_bytes(names[path], buffer.getvalue())
        pictures[names[path]] = base64.b64encode(buffer.getvalue()).decode("ascii")
    resolved = dump_storyboard(moved)
    folder.write_text("story.yaml", resolved)
    folder.write_text("plan.json", json.dumps(plan.to_json(), indent=1))
    return {STORYBOARD_TAG: resolved, IMAGES_TAG: json.dumps(pictures)}


def restore(film: Path, out: Path) -> Path:
    """Writes `out`/story.yaml and its images from the tags of `film`, which is untrusted input; gives the path."""
    try:
        tags = read_metadata(film)
        text = tags[STORYBOARD_TAG]
        images = {str(k): base64.b64decode(v, validate=True) for k, v in json.loads(tags[IMAGES_TAG]).items()}
    except (OSError, FFmpegError) as error:
        raise RenderError(f"{film}: cannot be read as a film ({error.strerror or error})") from error
    except (KeyError, ValueError, AttributeError, TypeError) as error:
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
        folder.write_text("story.yaml", text)
    return out / "story.yaml"
