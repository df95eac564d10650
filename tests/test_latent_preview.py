"""While a section is sampled, a small picture of what it will show; the film is the same with it and without."""

import os
from pathlib import Path

import numpy as np
import pytest
from faults import here, same
from PIL import Image

import framepack_relax as fr
from framepack_relax.video.reader import read_frames

BOARDS = Path(__file__).parents[1] / "storyboards"
SCENES = [fr.Scene(id="a", prompt="a red figure stands still", seconds=2.2), fr.Scene(id="b", prompt="x", seconds=1.1)]


def shown(film, height: int, width: int):
    """The strip of preview.png, and the frames that the film's last section has there, [9, h, w, 3] both in 0..1."""
    image = Image.open(film.folder / "preview.png")
    times = image.height // height
    strip = np.asarray(image)[times // 2 :: times, times // 2 :: times] / 255
    section = film.plan.sections[-1]
    frames = np.stack([*read_frames(film.path)])[-4 * section.latents :] / 255
    side = frames.shape[1] // height
    small = frames.reshape(section.latents, 4, height, side, width, side, 3).mean(axis=(1, 3, 5))
    chosen = np.linspace(0, section.latents - 1, min(9, section.latents)).round().astype(int)
    return strip.reshape(height, -1, width, 3).transpose(1, 0, 2, 3), small[chosen]


def test_the_strip_shows_the_newest_section_in_the_films_own_colours(tmp_path):
    events = []
    film = fr.render(SCENES, model="fake", out=tmp_path / "out", preview=True, on_event=events.append)
    strip, frames = shown(film, 8, 8)
    assert np.corrcoef(strip.ravel(), frames.ravel())[0, 1] > 0.95 and np.abs(strip - frames).mean() < 0.1
    told = [event for event in events if event.kind == "preview"]
    assert {event.section for event in told} == {section.index for section in film.plan.sections}
    assert told[0].text == f"{film.folder}/preview.png: in false colours, of principal components: this film has no " \
        "frames yet" and told[-1].text.endswith("preview.png: colours fitted to frames that this film has")  # fmt: skip
    assert "fitted" in Image.open(film.folder / "preview.png").text["Description"]
    plain = fr.render(SCENES, model="fake", out=tmp_path / "plain")
    assert same(plain.folder, film.folder) and not (plain.folder / "preview.png").exists()


def test_with_a_start_image_colours_are_known_from_the_first_step(model, tiny, tmp_path):
    Image.radial_gradient("L").resize((32, 32)).convert("RGB").save(tmp_path / "hero.png")
    events, board = [], {"image": str(tmp_path / "hero.png"), "steps": 2}
    fr.render(SCENES, model=model, out=tmp_path / "out", preview=True, on_event=events.append, **board)
    told = [event.text for event in events if event.kind == "preview"]
    assert told and all("colours fitted" in text for text in told)


def test_what_a_maker_has_under_its_name_is_kept_and_what_cannot_be_written_stops_nothing(tmp_path):
    film = fr.render(SCENES, model="fake", out=tmp_path / "out")
    mine = film.folder / "preview.png"
    Image.new("RGB", (8, 8)).save(mine)
    data, notes = mine.read_bytes(), []
    given = {"model": "fake", "preview": True, "fresh": True, "on_note": notes.append}
    fr.render(SCENES, out=film.folder, **given)
    assert (film.folder / "preview-2.png").read_bytes() == data and "preview-2.png" in notes[0] and len(notes) == 1
    fr.render(SCENES, out=film.folder, **given)
    assert len(notes) == 1 and len(list(film.folder.glob("preview*"))) == 2, "its own is written over"
    os.unlink(mine)
    mine.mkdir()
    fr.render(SCENES, out=film.folder, **given)
    assert len(notes) == 2 and "preview.png: cannot be written" in notes[1] and mine.is_dir()


def test_from_the_command_line_it_is_drawn_where_it_is_asked_for(tmp_path):
    file = tmp_path / "story.yaml"
    file.write_text("model: fake\nscenes: [{id: a, prompt: x, seconds: 2}]\n")
    done = here("render", file, "--out", tmp_path / "log")
    assert done.returncode == 0 and not (tmp_path / "log/preview.png").exists(), "nobody watches a log"
    done = here("render", file, "--preview", "--out", tmp_path / "out")
    assert done.returncode == 0 and "preview.png: in false colours" in done.stdout


@pytest.mark.slow
def test_on_the_puppet_a_preview_correlates_with_what_is_decoded(tmp_path):
    board = fr.read(BOARDS / "draft.yaml", size=(64, 64), steps=9)
    film = fr.render(board, model=fr.load("puppet", device="cpu"), out=tmp_path / "out", preview=True)
    strip, frames = shown(film, 8, 8)
    assert np.corrcoef(strip.ravel(), frames.ravel())[0, 1] > 0.8
    changes = [x - x.mean(axis=0) for x in (strip, frames)]
    assert np.corrcoef(*(x.ravel() for x in changes))[0, 1] > 0.5, "what moves, not the place alone"
