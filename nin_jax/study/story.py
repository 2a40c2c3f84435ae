"""What a study's page shows besides the results: commands, classes, costs, gallery."""

import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from nin_jax.errors import RunError, UserError, one_line
from nin_jax.runs import manifest
from nin_jax.study.content import Picture
from nin_jax.study.gallery import GALLERY
from nin_jax.study.networks import Networks
from nin_jax.validation import FAIL_FAST, from_json

STORY = "study.json"


@dataclass
class Story:
    """The contents of ``study.json``.

    Attributes:
        commands: that made the study.
        class_names: of its dataset.
        networks: as `networks.count` and `networks.measure` return them.
        gallery: ``file`` in ``gallery/`` and ``caption`` of each picture.
        diverged: names of the cells whose loss was not finite.
    """

    commands: list[list[str]] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    networks: Networks = field(default_factory=dict)
    gallery: list[dict[str, str]] = field(default_factory=list)
    diverged: list[str] = field(default_factory=list)

    def write(self, out: Path) -> None:
        """Write the story into the folder of the study.

        Raises:
            RunError: it cannot be written.
        """
        with one_line(f"cannot write {out / STORY}", raised=RunError):
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
    if not os.path.exists(path):  # Path's own raises where a name is too long
        return Story()
    plain = manifest.read_json(path)
    try:
        from_json(_SavedStory, plain)
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return Story(**{each.name: plain[each.name] for each in fields(Story) if each.name in plain})


def _file_name(name: str) -> str:
    """Check that a picture's name leads to no other folder."""
    if name != Path(name).name or name in ("", ".."):
        raise ValueError("must be the name of a file")
    return name


_Figure = Annotated[float, Field(ge=0, lt=1e30)]


class _SavedPicture(BaseModel, strict=True, extra="forbid"):
    file: Annotated[str, AfterValidator(_file_name)]
    caption: str


class _SavedNetwork(BaseModel, strict=True, allow_inf_nan=False, extra="allow"):
    __pydantic_extra__: dict[str, _Figure | None]
    head_map: tuple[_Figure, _Figure] = (0, 0)
    device: str = ""


class _SavedStory(BaseModel, strict=True):
    commands: Annotated[list[Annotated[list[str], FAIL_FAST]], FAIL_FAST]
    class_names: Annotated[list[str], FAIL_FAST]
    networks: dict[str, _SavedNetwork]
    gallery: Annotated[list[_SavedPicture], FAIL_FAST]
    diverged: Annotated[list[str], FAIL_FAST] = []  # earlier versions did not write it
