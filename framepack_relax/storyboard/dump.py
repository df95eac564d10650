"""A storyboard as YAML."""

import re
from typing import Any

import yaml

from .schema import Storyboard


def dump_storyboard(story: Storyboard, *, brief: bool = False) -> str:
    """YAML that reads back to an equal storyboard; `brief` leaves out what it does not say itself."""
    data = _without_empty(story.model_dump(mode="json", exclude_unset=brief))
    return yaml.dump(data, Dumper=_QuotingDumper, sort_keys=False, allow_unicode=True, width=110)


def _without_empty(value: Any) -> Any:
    """Mappings without what is None, or has nothing in it."""
    if isinstance(value, dict):
        kept = {name: _without_empty(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item not in (None, {})}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


class _QuotingDumper(yaml.SafeDumper):
    """Writes every text in double quotes unless it is a plain word, so that nothing is taken for a number."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if re.fullmatch(r"[A-Za-z][A-Za-z_ ]*", text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_QuotingDumper.add_representer(str, _represent_text)
