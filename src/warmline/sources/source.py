"""What a data set is: its files and where they come from, its licence, how it is loaded, and what its conversations can train."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from warmline.conversation import Conversation, Loaded, Split
from warmline.settings import Section


class SourceSettings(Section):
    """One data set."""

    enabled: bool = Field(True, description="Use this source.")
    objectives: tuple[str, ...] = Field((), description="What it trains.")


class RemoteFile(NamedTuple):
    """One file to get.

    Attributes:
        source: The folder it belongs to.
        name: Its name there.
        url: Official address, from which no redirect leads to another host.
        digest: `sha256:<hex>` of the file, or `git-blob:<hex>`, the id git gives its content.
        most: Bytes that are read at most: its size, or where that is not known a round number above.
        members: For a tar archive, the files to take out of it; the archive itself is not kept.
    """

    source: str
    name: str
    url: str
    digest: str
    most: int
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardFacts:
    """What no count can tell; the data card says it.

    Attributes:
        title: The data set's name.
        what: What it is, and what it trains.
        origin: Paper and repository.
        licence: In a sentence.
        preprocessing: What was done to it, line by line.
        problems: What is known to be wrong with it.
        pictured: Whose counts the card's picture shows: a head's `plural`, or the source's `kinds`.
        hub: Id of the data set on the Hugging Face hub; None where there is none.
        inherits: The licence that a model inherits which is tuned on it, as in "CC BY-NC 4.0"; None where it inherits none.
    """

    title: str
    what: str
    origin: str
    licence: str
    preprocessing: tuple[str, ...]
    problems: tuple[str, ...]
    pictured: str
    hub: str | None = None
    inherits: str | None = None


class Source:
    """A data set. Subclass it, in a file of its own, and put it into `SOURCES`.

    Attributes:
        name: In configurations (`data.sources.<name>`), results and as the name of its folder.
        standard: Whether a configuration that does not name it reads it.
        version: Of what `load` makes of the files; to be raised when that changes, since encoded data and baselines are cached.
        carries: Every objective that its conversations can train, and the first of them that it can be scored by.
        settings: Its section.
        kinds: What `Conversation.kind` sorts by, in the plural; None where it is not set.
        danger: Those kinds in which someone may come to harm.
        official: The files to fetch; none for data that ship with the package.
        of_people: Whether base and tuned are compared on its test turns, and `warmline rewrite` writes its replies anew. False for texts
            that were written in the very words that are to be learned or kept.
        unanswered: Its conversations end with the user's turn: `warmline rewrite` lets the base answer, without which they train nothing.
        facts: For its card.
    """

    name: str
    standard: bool = False
    version: int = 1
    carries: tuple[str, ...]
    settings: type[SourceSettings] = SourceSettings
    kinds: str | None = None
    danger: frozenset[str] = frozenset()
    official: tuple[RemoteFile, ...] = ()
    unanswered: bool = False
    of_people: bool = True
    facts: CardFacts

    def files(self, split: Split) -> tuple[str, ...]:
        """Names of the official files that a split is read from."""
        raise NotImplementedError

    def load(self, folder: Path, split: Split, settings: Any) -> Loaded:
        """Load one split.

        Args:
            folder: Holds the official files.
            split: Which part.
            settings: Its section of the configuration, of the type `settings`.

        Raises:
            WarmlineError: a missing or damaged file, a line that does not fit.
        """
        raise NotImplementedError

    def for_evaluation(self, settings: Any) -> Any:
        """Its settings as evaluation reads it, whatever the run trained on: all rows that any protocol asks for."""
        return settings

    def portable(self, settings: Any) -> Any:
        """Its settings without places of this machine."""
        return settings

    def folder(self, data: Callable[[], Path], settings: Any) -> Path:
        """Where its files lie.

        Args:
            data: Gives the data folder, with a sub-folder a source, or raises where there is none.
            settings: Its section.
        """
        return data() / self.name

    def counts(self, conversations: Sequence[Conversation]) -> Mapping[str, int]:
        """Counts of its own for the data card, beside those of every source."""
        return {}
