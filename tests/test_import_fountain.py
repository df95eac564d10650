"""Screenplays in Fountain."""

from exchanged import imported, survives

TEXT = """\
Title: The Beach
Author: Somebody

INT. HUT - DAY #1# [[intensity: 0.2, seconds: 2.5]]

A man *stands* at the window.
He waits.

MAN (quietly)
Not yet.

/* He never
says this.

EXT. NOWHERE - DAY */

CUT TO:

EXT. BEACH - DAY

[[ask the pilot]]

He runs. [[seconds: 4, intensity: auto]]

.THE SEA [[transition: continue]]

Waves.
"""


def test_headings_are_scenes_and_the_action_is_the_prompt(tmp_path):
    seen = imported(tmp_path, "s.fountain", TEXT)
    assert seen.scenes == [
        ("INT. HUT - DAY. A man stands at the window. He waits.", 2.5, "continue"),
        ("EXT. BEACH - DAY. He runs.", 4.0, "cut"),
        ("THE SEA. Waves.", 4.0, "continue"),
    ]
    assert [scene.intensity for scene in seen.story.scenes] == [0.2, "auto", 0.0]
    assert [scene.id for scene in seen.story.scenes] == ["hut-day", "beach-day", "the-sea"]
    assert seen.story.title == "The Beach"
    for fact in (
        "1 speeches",
        "1 entries of its title page",
        "line 19: a note is not carried over",
        "line 25: no length is said",
    ):
        assert fact in seen.said, fact


LEFT = """\
Title:
    _**BRICK &
    STEEL**_
Credit: by

FADE IN:

# Act one

= What happens

INT. HUT - DAY

= He waits.
A man stands.

~ La la
~ la

He sits.
> THE END <

> FADE OUT.

===

Waves.
"""


def test_what_is_no_action_is_told_and_not_in_the_prompt(tmp_path):
    seen = imported(tmp_path, "s.fountain", LEFT)
    assert seen.story.title == "BRICK & STEEL"
    assert [prompt for prompt, _, _ in seen.scenes] == ["INT. HUT - DAY. A man stands. He sits. Waves."]
    told = ("2 synopses", "1 sections", "2 lyrics", "1 centred lines", "1 transitions besides cuts")
    for fact in (*told, "1 entries of its title page", "1 paragraphs before the first heading"):
        assert f"{fact} are not carried over" in seen.said, fact


def test_a_note_that_is_no_number_has_its_line(tmp_path):
    seen = imported(tmp_path, "s.fountain", "INT. HUT\n\nA man. [[seconds: soon]]\n")
    assert seen.code == 2 and seen.said == "s.fountain:1: seconds is 'soon'; write a number\n"


def test_damage_is_one_message(tmp_path):
    survives(tmp_path, "s.fountain", TEXT)
