"""The GPU drill as far as a CPU carries it: what it loads, what it leaves however it ends, what is made of it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import drill
import pytest
import report
import torch
from drill_geometry import Setup, pass_flops, random_model
from drill_record import Record
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from framepack_relax.families.memory import GIB

ROOT = Path(__file__).parents[1]
GPU = ROOT / "scripts" / "gpu"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
WHEELS = GPU / "wheels" / VERSION
NOT_THERE = ("av", "cv2", "matplotlib")  # on a GPU machine; the wheels would be too large
FROM_WHEELS = ("diffusers", "pydantic", "pydantic_core", "annotated_types", "typing_inspection", "importlib_metadata")


@pytest.fixture
def without(tmp_path):
    """The environment of processes that cannot import some packages."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in NOT_THERE:
        (blocked / f"{name}.py").write_text(f"raise ModuleNotFoundError('not here', name={name!r})\n")
    return {**os.environ, "PYTHONPATH": str(blocked), "OMP_NUM_THREADS": "1"}


def test_all_but_mp4_works_without_pyav(without, tiny, board):
    story = board("  - {id: a, prompt: a red figure waves, seconds: 1.2}")
    code = f"""
import importlib, sys
import framepack_relax as fr
from framepack_relax.errors import RenderError
for name in {NOT_THERE}:
    try: importlib.import_module(name)
    except ModuleNotFoundError: continue
    sys.exit(name + " is there")
model = fr.load({str(tiny)!r}, device="cpu")
story = {str(story)!r}
assert len(fr.plan(story).sections) == 1
assert [len(done.frames) for done in fr.stream(story, model=model, out={str(story.parent / "out")!r})] == [37]
try: fr.render(story, model=model, out={str(story.parent / "film")!r})
except RenderError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], env=without, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "av is not installed, and films need it: pip install av\n"
    assert not (story.parent / "film").exists(), "it is said before anything is made"


def rehearse(folder: Path, python: str, environment: dict[str, str]) -> dict[str, dict]:
    """The results of all parts, which must be finished and without failures."""
    command = [GPU / "drill.sh", "--cpu", folder]
    done = subprocess.run(command, env={**environment, "PYTHON": python}, capture_output=True, text=True)
    assert done.returncode == 0 and "all went well" in done.stdout, done.stdout + done.stderr
    parts = {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}
    assert set(parts) == {"tests", "geometry"}
    assert all(part["finished"] and part["rehearsal"] and not part["failures"] for part in parts.values())
    return parts


@pytest.mark.slow
def test_the_drill_runs_without_pyav(without, tmp_path):
    parts = rehearse(tmp_path / "out", sys.executable, without)
    assert set(report.NEEDED) <= set(parts["geometry"]["results"])
    outcomes = [said["outcome"] for said in parts["tests"]["results"].values()]
    assert outcomes.count("passed") >= 7 and set(outcomes) <= {"passed", "skipped"}
    assert len(list((tmp_path / "out").iterdir())) <= 8, "more than a device machine gives back"


@pytest.mark.slow
@pytest.mark.skipif(not WHEELS.exists(), reason=f"no wheels: scripts/gpu/fetch_wheels.sh {VERSION}")
def test_the_drill_runs_on_its_wheels(tmp_path):
    """In an environment that has neither PyAV nor what the wheels bring."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = str(tmp_path / "env" / "bin" / "python")
    site = tmp_path / "env" / "lib" / f"python{VERSION}" / "site-packages"
    left_out = (*NOT_THERE, *FROM_WHEELS, "framepack_relax", "__editable__")
    for entry in Path(torch.__file__).parents[1].iterdir():
        if not entry.name.startswith(left_out) and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for name in ("av", "diffusers", "pydantic"):
        bare = subprocess.run([python, "-c", f"import {name}"], env=environment, capture_output=True, text=True)
        assert f"No module named '{name}'" in bare.stderr
    rehearse(tmp_path / "out", python, {**environment, "OMP_NUM_THREADS": "1"})


def test_results_are_on_disk_after_every_measurement_and_failures_stop_nothing(tmp_path):
    record = Record(tmp_path / "part.json", torch.device("cpu"))

    def on_disk():
        return json.loads((tmp_path / "part.json").read_text())

    record.measure("first", lambda: 1)
    assert on_disk()["results"] == {"first": 1} and not on_disk()["finished"]
    record.measure("second", lambda: 1 / 0)
    record.measure("third", lambda: 3)
    assert on_disk()["results"] == {"first": 1, "third": 3}
    assert on_disk()["failures"] == {"second": "ZeroDivisionError: division by zero"}
    assert record.finish() == 1 and on_disk()["finished"]
    assert Record(tmp_path / "other.json", torch.device("cpu")).finish() == 0


def test_a_part_ends_at_its_limit_with_all_that_it_started(tmp_path):
    code = "import subprocess, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    how = drill.run_part([sys.executable, "-c", code], tmp_path / "log", 2)
    assert how == "stopped at its limit of 2 s"
    child = Path("/proc", (tmp_path / "log").read_text().strip(), "stat")
    for _ in range(50):
        if not child.exists() or child.read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("what the part had started runs on")
    assert drill.run_part([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log", 20) == "exit status 3"
    assert drill.run_part([sys.executable, "-c", ""], tmp_path / "log", 20) == ""


def test_without_a_gpu_the_drill_says_so_and_measures_nothing(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    command = [GPU / "drill.sh", tmp_path / "out"]
    done = subprocess.run(command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True)
    assert done.returncode == 2 and "--cpu rehearses" in done.stderr and not (tmp_path / "out").exists()


def test_operations_are_counted_as_pytorch_counts_them(model):
    """Of a network's blocks, to 2 %: PyTorch sees what modulates them too. Of FramePack's, by hand, 497.9 T."""
    transformer = model.transformer
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    config = transformer.config
    width, video, text = config.num_attention_heads * config.attention_head_dim, 240, 16
    turned = (torch.ones(video, config.attention_head_dim), torch.zeros(video, config.attention_head_dim))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        for block in blocks:
            block(torch.randn(1, video, width), torch.randn(1, text, width), torch.randn(1, width), None, turned)
    assert pass_flops(transformer, video + text) == pytest.approx(counter.get_total_flops(), rel=0.02)
    big = random_model(Setup(device=torch.device("meta"))).transformer
    assert pass_flops(big, 18_357) == pytest.approx(497.9e12, rel=1e-4)
    assert sum(p.numel() for p in big.parameters()) == 12_874_314_816


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A rehearsed geometry, said to come from a GPU, and a part beside it."""
    folder = tmp_path_factory.mktemp("drill")
    file = folder / "geometry.json"
    command = [sys.executable, GPU / "drill_geometry.py", file, "--cpu"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True)
    part = json.loads(file.read_text()) | {"rehearsal": False}
    part["machine"]["hardware"] = "NVIDIA Test 80GB"
    for number, preset in enumerate(("full", "tiled", "offload")):
        peaks = {"allocated": 7 * GIB, "reserved": (50 - 10 * number) * GIB}
        part["results"][f"memory {preset}"] |= {"pass_peak": peaks, "decode_peak": {**peaks, "reserved": 3 * GIB}}
    file.write_text(json.dumps(part))
    (folder / "tests.json").write_text(json.dumps({**part, "results": {"test_a": {"outcome": "passed"}}}))
    return [file, folder / "tests.json"]


def test_a_measured_run_is_on_its_page_and_twice_is_once(results, tmp_path):
    run = report.merge(results)
    assert report.file_name(run) == f"{run['date']}-nvidia-test-80gb.json" and set(run["parts"]) == {
        "geometry",
        "tests",
    }
    (tmp_path / report.file_name(run)).write_text(json.dumps(run))
    (tmp_path / "2020-01-01-old.json").write_text(json.dumps({}))
    assert report.newest(tmp_path) == run
    before = report.rewrite(report.PAGE.read_text(encoding="utf8"), None)
    after = report.rewrite(before, run)
    assert f"Measured on NVIDIA Test 80GB, {run['date']}" in after and "By estimate, counted" not in after
    assert [f"{need} GiB (" in after for need in (50, 40, 30, 3)] == [True, True, True, False]
    assert report.rewrite(after, run) == after and report.rewrite(after, None) == before
    assert max(len(line) for line in report.speed(run["parts"]["geometry"]["results"]).splitlines()) <= 120


def test_the_page_is_what_the_committed_runs_say():
    page = report.PAGE.read_text(encoding="utf8")
    assert report.rewrite(page, report.newest()) == page, "run python scripts/gpu/report.py"


def test_results_that_make_no_run_are_refused_with_every_reason(results, tmp_path):
    part = json.loads(results[0].read_text())
    del part["results"]["forward"]
    (tmp_path / "geometry.json").write_text(json.dumps(part))
    part["machine"]["hardware"], part["rehearsal"] = "another", True
    (tmp_path / "tests.json").write_text(json.dumps(part))
    with pytest.raises(report.Refused) as refused:
        report.merge([tmp_path / "geometry.json", tmp_path / "tests.json"])
    said = str(refused.value).splitlines()
    assert [line.split(":")[0] for line in said] == ["tests", "geometry", "the parts come from different machines"]
    assert "has no 'forward'" in said[1]


def test_pins_fit_the_constraints():
    """The wheels are those that the tests run against."""

    def pins(file: Path) -> dict[str, str]:
        lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
        return dict(line.split("==") for line in lines)

    wheels, tested = pins(GPU / "wheels.txt"), pins(ROOT / "constraints.txt")
    both = wheels.keys() & tested.keys()
    assert {"diffusers", "pydantic"} <= both and all(wheels[name] == tested[name] for name in both)
