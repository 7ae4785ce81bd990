"""The data sets: `SOURCES` lists them, and each has one file with its addresses, checksums, licence, loader and facts.

To add one: a subclass of `Source` into `SOURCES`, and `config.declare_fields()` before a configuration is read.
"""

from warmline.sources.empathetic_dialogues import EmpatheticDialogues
from warmline.sources.esconv import ESConv
from warmline.sources.friend import Friend
from warmline.sources.goemotions import GoEmotions
from warmline.sources.retention import Retention
from warmline.sources.safety import Safety
from warmline.sources.source import RemoteFile, Source

SOURCES: dict[str, Source] = {
    source.name: source for source in (EmpatheticDialogues(), ESConv(), GoEmotions(), Safety(), Friend(), Retention())
}
"""Every data set that a run may learn from, by name, in the order of draws and tables."""


def official_files() -> tuple[RemoteFile, ...]:
    """What `warmline data fetch` gets."""
    return tuple(file for source in SOURCES.values() for file in source.official)
