"""A film and its folder carry the storyboard and the start images that they were made from, and give them back."""

import base64
import json
import re
from pathlib import Path
from typing import Any

from ..errors import FilmError, RenderError
from ..families.adapters import find_adapters, relocated
from ..storyboard import Storyboard, dump_storyboard, parse_storyboard
from .folder import RunFolder
from .keys import difference
from .mark import FACTS_TAG, STORY, Note, mark_of
from .session import AnyModel, Session, made_with
from .takes import takes_beside

STORYBOARD_TAG, IMAGES_TAG = "framepack_relax_storyboard", "framepack_relax_images"
KERNELS = ("attention", "compile")  # which a film names where they are not the usual ones
MADE_BY = ("weights", "lora", "dtype", "device", "versions", *KERNELS)
NAME = re.compile(r"images/[0-9a-f]+\.png|sound/[0-9a-f]+(\.\w{1,5})?", re.ASCII)  # of what a film carries
MOST_PICTURES = 1 << 25  # bytes of PNG that a film carries


def story_tags(session: Session, note: Note) -> dict[str, str]:
    """What lets an mp4 render again from itself: the storyboard's text, and its images as base64 PNG by their path in
    it, unless these are too many."""
    images = dict(session.carried)
    text = images.pop(STORY, b"")
    if (size := sum(map(len, images.values()))) > MOST_PICTURES:
        note(
            f"the start images take {size >> 20} MiB, and a film carries up to {MOST_PICTURES >> 20}: to render it "
            f"again keep the folder {session.out}"
        )
        images = {}
    coded = {name: base64.b64encode(data).decode("ascii") for name, data in images.items()}
    return {STORYBOARD_TAG: text.decode("utf8"), IMAGES_TAG: json.dumps(coded)} if text else {}


def restore(film: Path, out: Path, note: Note = lambda note: None) -> Path:
    """Writes `out`/story.yaml and its images from the tags of `film`, which is untrusted input, and the takes that it
    names from beside the film; gives the path.

    `note` hears what is put aside for them.
    """
    tags = _tags(film)
    try:
        text = tags[STORYBOARD_TAG]
        images = {str(k): base64.b64decode(v, validate=True) for k, v in json.loads(tags[IMAGES_TAG]).items()}
    except (KeyError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise RenderError(
            f"{film}: holds no storyboard; only films that framepack-relax wrote, and no program has saved anew, do"
        ) from error
    carried = parse_storyboard(text, file=f"{film}, its storyboard")
    story = relocated(carried, out, film.parent)
    for path in story.media:
        if path not in images or not NAME.fullmatch(path):
            fact = f"its storyboard names {path!r}, which the film does not carry"
            raise RenderError(f"{film}: {fact}; render from the folder that it was made in, which has them all")
    takes = takes_beside(film.parent, story)
    with RunFolder(out, mark_of(out, story, made_from=film), note=note).held() as folder:
        said = text if story == carried else dump_storyboard(story)
        folder.begin((), {**{path: images[path] for path in story.media}, STORY: said.encode("utf8"), **takes})
    return out / STORY


def provenance(film: Path) -> dict[str, Any]:
    """What a film says made it: weights, LoRA, dtype, device, versions, kernels; what it does not say is absent."""
    try:
        facts = json.loads(_tags(film).get(FACTS_TAG, "{}"))
        return {name: facts[name] for name in MADE_BY if name in facts}
    except (FilmError, ValueError, TypeError, RecursionError):
        return {}


def _tags(film: Path) -> dict[str, str]:
    from ..video.reader import read_metadata  # needs PyAV

    return read_metadata(film)


def what_differs(film: Path, story: Storyboard, model: AnyModel) -> str:
    """How the model that is to render a film's `story` again is another than the film's, in words; empty if it is not.

    Raises ModelError where it, or a LoRA, cannot be had.
    """
    adapters = find_adapters(story, model.family, download=getattr(model, "download", True))
    said, now = provenance(film), made_with(model, model.identity, adapters)
    return difference(said, {name: value for name, value in now.items() if name in said or (said and name in KERNELS)})
