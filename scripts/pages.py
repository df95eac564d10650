"""Hooks of mkdocs (mkdocs.yml): pages that are made when the site is built, and links that lead out of docs/.

docs/ is written to be read on any page that shows a repository, too: a link such as `../RESULTS.md` is right there. In
the site the file that it names comes along, at the same place below the site's root, and the link leads to it.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import TYPE_CHECKING, Any

from reference import PAGES

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))")  # but to other sites, in the page, absolute
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
MADE = {f"reference/{name}.md": text for name, text in PAGES.items()}
OUTSIDE = "docs/"


def in_repository(uri: str) -> str:
    """Where a page of the site lies in the repository."""
    return f"{OUTSIDE}{uri}" if uri in MADE or (ROOT / OUTSIDE / uri).exists() else uri


def in_site(path: str) -> str:
    """Where a file of the repository lies in the site."""
    return path.removeprefix(OUTSIDE)


def links(text: str, path: str) -> Iterator[str]:
    """Files of the repository that a page at `path` links to."""
    for part in CODE.split(text)[::2]:
        yield from (normpath(str(PurePosixPath(path).parent / found[1])) for found in LINK.finditer(part))


def named(nav: Any) -> Iterator[str]:
    """The pages that mkdocs.yml names."""
    for entry in nav.values() if isinstance(nav, dict) else nav:
        yield from [entry] if isinstance(entry, str) else named(entry)


def on_files(files: "Files", config: Any) -> "Files":
    """Adds the reference, and what pages, or the site's own list of them, name outside docs/."""
    from mkdocs.structure.files import File  # its extra is not needed to look at links

    for uri, made in MADE.items():
        files.append(File.generated(config, uri, content=made()))
    todo = list(named(config.nav))
    for file in files.documentation_pages():
        todo += links(file.content_string, in_repository(file.src_uri))
    while todo:
        target = todo.pop()
        outside = ROOT / target
        if not target.startswith((OUTSIDE, "..")) and outside.is_file() and target not in files.src_uris:
            files.append(File.generated(config, target, abs_src_path=str(outside)))
            if target.endswith(".md"):
                todo += links(outside.read_text(encoding="utf8"), target)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: "Files") -> str:
    """Leads links as they are in the repository to where the files lie in the site."""
    here = page.file.src_uri
    home = PurePosixPath(in_repository(here)).parent

    def led(found: re.Match[str]) -> str:
        target = in_site(normpath(str(home / found[1])))
        return relpath(target, str(PurePosixPath(here).parent)) + (found[2] or "")

    parts = CODE.split(markdown)
    parts[::2] = [LINK.sub(led, part) for part in parts[::2]]
    return "".join(parts)
