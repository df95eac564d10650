"""The same work for farms: commands that may run in any order and again, an OpenJD bundle, a Flamenco job."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from faults import here
from test_batch import write_board

import framepack_relax as fr
from framepack_relax.farm.emit import commands, flamenco, openjd

HERE = Path(sys.executable).parent
NODE = shutil.which("node")
JOB_TYPE = Path(__file__).parent.parent / "scripts/deploy/flamenco/framepack_relax.js"


@pytest.fixture
def films(tmp_path, monkeypatch):
    """A board with three shots, and one with a single one and an apostrophe; nothing is rendered yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{HERE}{os.pathsep}{os.environ['PATH']}")
    write_board(Path("boards/a.yaml"), shots=3)
    write_board(Path("boards/it's.yaml"), shots=1)
    return fr.batch_plan("boards", out="out", workers=fr.Workers(device="cpu"), priorities={"it*": 1})


def whole(out: Path) -> list[str]:
    return [entry.name for entry in fr.ledger(out) if entry.state == "done"]


@pytest.mark.soak
def test_commands_render_the_films_in_any_order_and_again(films, tmp_path):
    lines = commands(films)
    assert (
        len(lines) == 4 and "it'" in lines[0] and "--shot" not in lines[0] and all("--seed" in line for line in lines)
    )
    assert str(tmp_path) not in "\n".join(lines), "paths are relative"
    random.Random(1).shuffle(lines)
    for line in (*lines, lines[-1]):
        done = subprocess.run(line, shell=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert whole(tmp_path / "out") == ["a", "it's"]
    alone = fr.render("boards/a.yaml", out="alone")
    assert (tmp_path / "out/a/video.mp4").read_bytes() == alone.path.read_bytes()
    there = fr.batch_plan("boards", out="out", workers=fr.Workers(device="cpu"))
    assert commands(there) == []
    with pytest.raises(fr.RenderError, match="all films are there"):
        openjd(there, tmp_path / "bundle", "night")


@pytest.mark.slow
def test_a_bundle_is_checked_and_run_by_openjd(films, tmp_path):
    pytest.importorskip("openjd.cli", reason="needs openjd-cli")
    run = lambda *words: subprocess.run([HERE / "openjd", *words], capture_output=True, text=True)  # noqa: E731
    bundle = openjd(films, tmp_path / "bundle", "night")
    assert run("check", str(bundle / "template.yaml")).returncode == 0
    for name in ("parameter_values.yaml", "asset_references.yaml"):
        assert yaml.safe_load((bundle / name).read_text())
    assert "amount.worker.gpu" not in (bundle / "template.yaml").read_text(), "the films were planned for the CPU"
    done = run("run", str(bundle / "template.yaml"), "--step", "Render", "-p", f"Folder={tmp_path}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "openjd_progress: 100.0" in done.stdout and "openjd_status: section 2 of 2" in done.stdout
    assert whole(tmp_path / "out") == ["a", "it's"]


def test_a_command_that_fails_fails_its_task(films, tmp_path):
    pytest.importorskip("openjd.cli", reason="needs openjd-cli")
    bundle = openjd(films, tmp_path / "bundle", "night")
    Path("boards/it's.yaml").write_text("scenes: 7")
    words = [
        HERE / "openjd",
        "run",
        bundle / "template.yaml",
        "--step",
        "Render",
        "-p",
        f"Folder={tmp_path}",
        "-tp",
        "Line=1",
    ]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode != 0 and "it's.yaml" in done.stdout


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_flamenco_makes_a_task_of_each_command(films, tmp_path):
    job = json.loads(flamenco(films, "night"))
    code = (
        "const made = [];\n"
        "const author = {\n"
        "  Task: (name, type) => ({name, type, commands: [], addCommand(c) { this.commands.push(c); }}),\n"
        "  Command: (name, parameters) => ({name, parameters})};\n"
        f"{JOB_TYPE.read_text()}\n"
        f"const job = {json.dumps(job)};\n"
        "compileJob({...job, addTask: (task) => made.push(task)});\n"
        "console.log(JSON.stringify({made, JOB_TYPE}));\n"
    )
    said = json.loads(subprocess.run([NODE, "-e", code], check=True, capture_output=True, text=True).stdout)
    assert job["type"] in JOB_TYPE.stem.replace("_", "-") and len(said["made"]) == 4
    assert {setting["key"] for setting in said["JOB_TYPE"]["settings"]} == set(job["settings"])
    for task in said["made"]:
        (command,) = task["commands"]
        assert (
            command["name"] == "exec"
            and command["parameters"]["exe"]
            and "boards/" in str(command["parameters"]["args"])
        )


@pytest.mark.parametrize("shot, code", [(3, 2), (-1, 2)])
def test_a_shot_that_is_not_there_is_told(films, shot, code):
    done = here("render", "boards/a.yaml", "--out", "out/a", "--shot", shot)
    assert done.returncode == code and "the film has 3" in done.stderr and not Path("out").exists()
