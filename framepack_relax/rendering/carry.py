"""A film and its folder carry the storyboard and the start images that they were made from, and give them back."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import FilmError, RenderError
from ..families.base import Family
from ..planning.settings import settle_profile
from ..storyboard import dump_storyboard, parse_storyboard
from .folder import RunFolder
from .keys import difference
from .mark import FACTS_TAG, STORY, mark_of
from .session import AnyModel, Session, made_with

STORYBOARD_TAG, IMAGES_TAG = "framepack_relax_storyboard", "framepack_relax_images"
IMAGE_NAME = re.compile(r"images/[0-9a-f]+\.png")


def write_story(session: Session, family: Family) -> None:
    """Writes a storyboard that renders the same film from this folder alone; the folder's own stays as it is."""
    if not session.is_own:
        for path, image in session.images.items():
            session.folder.write(session.picture_names[path], _png(image))
        session.folder.write(STORY, _resolved(session, family).encode("utf8"))


def story_tags(session: Session) -> dict[str, str]:
    """What lets an mp4 do so too: the storyboard's text, and its images as base64 PNG by their path in it."""
    pictures = {session.picture_names[path]: _png(image) for path, image in session.images.items()}
    coded = {name: base64.b64encode(data).decode("ascii") for name, data in pictures.items()}
    return {STORYBOARD_TAG: _resolved(session, session.model.family), IMAGES_TAG: json.dumps(coded)}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _resolved(session: Session, family: Family) -> str:
    story, plan, names = settle_profile(session.story, family), session.plan, session.picture_names
    scenes = tuple(scene.model_copy(update={"image": names.get(scene.image or "")}) for scene in story.scenes)
    settled = {"model": family.name, "size": plan.size, "fps": plan.fps, "sampler": plan.sampler}
    settled |= {"order": plan.options.get("order")}
    return dump_storyboard(story.changed(**settled, image=names.get(story.image or ""), scenes=scenes))


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
    with RunFolder(out, mark_of(out, story, made_from=film)).held() as folder:
        folder.begin((*wanted, STORY), {}, "")
        for path in wanted:
            folder.write(path, images[path])
        folder.write(STORY, text.encode("utf8"))
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


def what_differs(film: Path, model: AnyModel) -> str:
    """How the model that is to render a film again is another than the film's, in words; empty if it is not."""
    said = provenance(film)
    return difference(said, {name: value for name, value in made_with(model, model.identity).items() if name in said})
