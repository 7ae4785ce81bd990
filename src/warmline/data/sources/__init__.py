"""The four sources, by the names that configurations and reports use."""

import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import platformdirs

from warmline.config import DataConfig
from warmline.data.conversation import SPLITS, Loaded, Objective, Split
from warmline.data.sources import empathetic_dialogues, esconv, goemotions, safety
from warmline.errors import WarmlineError
from warmline.paths import expand_home

SOURCE_NAMES: tuple[str, ...] = ("empathetic_dialogues", "esconv", "goemotions", "safety")
SAMPLE = "sample"


class Source(NamedTuple):
    """An enabled source: its name, its folder and what it trains."""

    name: str
    folder: Path
    objectives: tuple[Objective, ...]


def sample_dir() -> Path:
    """Folder of the sample data inside this package."""
    return Path(str(resources.files("warmline") / "assets" / SAMPLE))


def fetched_dir() -> Path:
    """Folder where `warmline data fetch` puts the official files unless told otherwise."""
    return Path(platformdirs.user_cache_dir("warmline")) / "data"


def data_dir(config: DataConfig) -> Path:
    """Folder that holds one sub-folder a source.

    Raises:
        WarmlineError: the folder is not there.
    """
    if config.dir == SAMPLE:
        return sample_dir()
    folder = fetched_dir() if config.dir is None else expand_home(Path(config.dir))
    if not folder.is_dir():
        raise WarmlineError(f"{folder}: data folder not found; run `warmline data fetch`, or point --data-dir at a copy")
    return folder


def enabled_sources(config: DataConfig) -> list[Source]:
    """The sources that the configuration enables, in the fixed order of SOURCE_NAMES.

    Raises:
        WarmlineError: the data folder is not there, and a source other than safety needs it.
    """
    settings = config.sources
    safety_dir = settings.safety.dir or sample_dir() / "safety"
    found = []
    for name, section in (
        ("empathetic_dialogues", settings.empathetic_dialogues),
        ("esconv", settings.esconv),
        ("goemotions", settings.goemotions),
        ("safety", settings.safety),
    ):
        if section.enabled:
            found.append(Source(name, safety_dir if name == "safety" else data_dir(config) / name, section.objectives))
    return found


def load_source(source: Source, split: Split, config: DataConfig) -> Loaded:
    """Load one split of one source as its configuration says.

    Raises:
        WarmlineError: bad or missing files.
    """
    if source.name == "empathetic_dialogues":
        return empathetic_dialogues.load(source.folder, split)
    if source.name == "esconv":
        return esconv.load(source.folder, split)
    if source.name == "goemotions":
        return goemotions.load(source.folder, split, with_neutral=config.sources.goemotions.labels == 28)
    return safety.load(source.folder, split)


def source_files(source: Source, split: Split) -> Sequence[Path]:
    """The official files that a split of a source is read from."""
    if source.name == "esconv":
        return [source.folder / "ESConv.json"]
    if source.name == "goemotions":
        return [source.folder / goemotions.FILE_NAMES[split]]
    return [source.folder / f"{split}.{'jsonl' if source.name == 'safety' else 'csv'}"]


def data_checksums(config: DataConfig) -> dict[str, str]:
    """sha256 of every official file that the enabled sources are read from, by `source/file`.

    Raises:
        WarmlineError: a file cannot be read.
    """
    sums = {}
    for source in enabled_sources(config):
        for path in (path for split in SPLITS for path in source_files(source, split)):
            try:
                sums[f"{source.name}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                raise WarmlineError(f"{path}: cannot be read ({error.strerror}); fetch it with `warmline data fetch`") from None
    return sums
