"""What a study's page shows besides the results: commands, classes, costs, gallery."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nin_jax.errors import UserError
from nin_jax.reading import shown
from nin_jax.runs import manifest
from nin_jax.study.content import Picture
from nin_jax.study.networks import Networks

STORY, GALLERY = "study.json", "gallery"


@dataclass
class Story:
    """The contents of ``study.json``.

    Attributes:
        commands: that made the study.
        class_names: of its dataset.
        networks: as `networks.count` and `networks.measure` return them.
        gallery: ``file`` in ``gallery/`` and ``caption`` of each picture.
    """

    commands: list[list[str]] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    networks: Networks = field(default_factory=dict)
    gallery: list[dict[str, str]] = field(default_factory=list)

    def write(self, out: Path) -> None:
        manifest.write_json(out / STORY, asdict(self))

    def pictures(self, out: Path) -> list[Picture]:
        """Return the pictures of the gallery whose files exist."""
        return [
            Picture((out / GALLERY / picture["file"]).read_bytes(), picture["caption"])
            for picture in self.gallery
            if (out / GALLERY / picture["file"]).is_file()
        ]


def read_story(out: Path) -> Story:
    """Read ``study.json``; without one, return an empty story.

    Raises:
        UserError: the file is damaged, or names a file outside ``gallery/``.
    """
    path = out / STORY
    if not path.exists():
        return Story()
    plain = manifest.read_json(path)
    for name, holds in _FIELDS.items():
        if not holds(plain.get(name)):
            raise UserError(f"{path} is damaged: {name} cannot be {shown(plain.get(name))}")
    return Story(**{name: plain[name] for name in _FIELDS})


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_picture(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"file", "caption"}
        and _texts([*value.values()])
        and value["file"] == Path(value["file"]).name
        and value["file"] not in ("", "..")
    )


def _is_network(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_figure, value.items()))


def _is_figure(item: tuple[str, Any]) -> bool:
    name, value = item
    if name == "head_map":
        return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
    return isinstance(value, str) if name == "device" else value is None or _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e30


_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "commands": lambda value: isinstance(value, list) and all(map(_texts, value)),
    "class_names": _texts,
    "networks": lambda value: isinstance(value, dict) and all(map(_is_network, value.values())),
    "gallery": lambda value: isinstance(value, list) and all(map(_is_picture, value)),
}
