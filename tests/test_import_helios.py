"""Prompt lists of Helios."""

from exchanged import imported, survives

TEXT = """\
id,prompt_index,prompt,refined_prompt,extra
b,1,"he sits, then",,x
b,0,he walks,He walks slowly,x
a,0,a dog,,x
"""


def test_an_id_is_a_shot_and_its_prompts_scenes_in_order(tmp_path):
    seen = imported(tmp_path, "p.csv", "\ufeff" + TEXT, "--seconds", 3)
    assert seen.scenes == [
        ("He walks slowly", 3.0, "continue"),
        ("he sits, then", 3.0, "continue"),
        ("a dog", 3.0, "cut"),
    ]
    assert seen.story.model == "helios" and [scene.id for scene in seen.story.scenes] == ["b", "b-2", "a"]
    assert "the column 'extra'" in seen.said and "line 3: the refined prompt is taken" in seen.said


def test_films_come_in_the_order_of_their_first_line(tmp_path):
    rows = "".join(
        f"{name},{turn},{name} {turn}\n" for name, turn in (("9", 1), ("10", 0), ("9", 0), ("b", 0), ("a", 0))
    )
    seen = imported(tmp_path, "p.csv", f"id,prompt_index,prompt\n{rows}")
    assert [prompt for prompt, _, _ in seen.scenes] == ["9 0", "9 1", "10 0", "b 0", "a 0"]


def test_broken_csv_is_located(tmp_path):
    for text, fact in {
        TEXT + '"b': "p.csv:5: is not CSV",
        TEXT + "c,0\n": "p.csv:5: has 2 cells, the first line has 5",
        TEXT + "c,x,y,z,w\n": "p.csv: prompt_index must be whole numbers",
        "id,prompt\n": "is of no format that is known",
    }.items():
        seen = imported(tmp_path, "p.csv", text)
        assert seen.code == 2 and fact in seen.said and len(seen.said.splitlines()) == 1, seen.said
    assert "must begin with the names" in imported(tmp_path, "p.csv", "id\n", "--as", "helios").said


def test_damage_is_one_message(tmp_path):
    survives(tmp_path, "p.csv", TEXT)
