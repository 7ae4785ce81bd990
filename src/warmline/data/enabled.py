"""A run's sources: those that its configuration enables, each with its folder and what it trains."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from warmline.config import DataConfig
from warmline.conversation import SPLITS, Conversation, Loaded, Split
from warmline.data.own_words import with_own_words, words_file
from warmline.errors import WarmlineError
from warmline.paths import expand_home
from warmline.sources import SOURCES
from warmline.sources.files import sample_dir
from warmline.sources.source import Source
from warmline.tasks import TASKS, all_objectives

SAMPLE = "sample"


class EnabledSource(NamedTuple):
    """A source of a run.

    Attributes:
        source: The data set.
        folder: Where its files lie.
        objectives: What it trains.
        settings: Its section, of the type `source.settings`.
        own_words: Replies in the base's own words (`data.own_words`); None for those of people.
    """

    source: Source
    folder: Path
    objectives: tuple[str, ...]
    settings: Any
    own_words: Path | None = None

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.source.name

    def load(self, split: Split) -> Loaded:
        """One split.

        Raises:
            WarmlineError: bad or missing files.
        """
        loaded = self.source.load(self.folder, split, self.settings)
        return loaded if self.own_words is None else with_own_words(loaded, self.own_words, self.name, split, self.source.unanswered)

    def depends_on(self, split: Split) -> Sequence[Path]:
        """The files that what `load` gives depends on: the official ones, and the base's own words."""
        own = [] if self.own_words is None else [words_file(self.own_words, self.name, split)]
        return [*self.files(split), *(path for path in own if path.is_file())]

    def files(self, split: Split) -> Sequence[Path]:
        """The official files that a split is read from."""
        return [self.folder / name for name in self.source.files(split)]


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


def enabled_sources(config: DataConfig) -> list[EnabledSource]:
    """The sources that the configuration enables, in the fixed order of SOURCES.

    Raises:
        WarmlineError: the data folder is not there, and a source needs it.
    """
    if config.own_words is not None and not config.own_words.is_dir():
        raise WarmlineError(f"data.own_words: {config.own_words} is not there; `warmline rewrite` makes it, and null takes people's words")
    found = []
    for name, source in SOURCES.items():
        settings = config.sources[name]
        if settings.enabled and config.own_words is not None and getattr(settings, "clean", False):
            raise WarmlineError(f"data.sources.{name}.clean: is for people's words; leave it out, or data.own_words, whose places it moves")
        if settings.enabled:
            found.append(
                EnabledSource(source, source.folder(lambda: data_dir(config), settings), settings.objectives, settings, config.own_words)
            )
    return found


def data_checksums(config: DataConfig) -> dict[str, str]:
    """sha256 of every official file that the enabled sources are read from, by `source/file`.

    Raises:
        WarmlineError: a file cannot be read.
    """
    sums = {}
    for source in enabled_sources(config):
        for path in (path for split in SPLITS for path in source.depends_on(split)):
            try:
                sums[f"{source.name}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                raise WarmlineError(f"{path}: cannot be read ({error.strerror}); fetch it with `warmline data fetch`") from None
    return sums


def count_targets(conversations: Sequence[Conversation], trained: Sequence[str]) -> dict[str, int]:
    """How many targets each objective finds.

    Args:
        conversations: Any number.
        trained: Objectives of the source.

    Returns:
        `lm` and `safety`: assistant turns; a head: turns with a label of its own. An objective that the source does not train counts 0.
    """
    turns = [turn for conversation in conversations for turn in conversation.turns]
    replies = sum(turn.role == "assistant" and turn.target for turn in turns)
    found = {name: sum(bool(turn.labels.get(name)) for turn in turns) if name in TASKS else replies for name in all_objectives()}
    return {name: number if name in trained else 0 for name, number in found.items()}
