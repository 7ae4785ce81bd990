"""A finished run, its saved artefact loaded in this process, and the context that every number made from it carries."""

from pathlib import Path
from typing import Any, NamedTuple

from warmline.companion import Companion, PromptReader
from warmline.config import RunConfig, load_config
from warmline.data.enabled import data_checksums
from warmline.data.template import ChatTemplate
from warmline.model.artifacts import load_artifact
from warmline.model.description import read_description, whole_strength
from warmline.model.device import Place, choose_place
from warmline.model.multitask import MultiTaskModel
from warmline.model.reader import Reader
from warmline.runs import RunFolder, read_manifest


class FinishedRun(NamedTuple):
    """What evaluation works with.

    Attributes:
        folder: Where the run lies.
        config: Its configuration.
        model: The saved artefact, in evaluation mode; `model.backbone.reference()` is the base.
        template: The one it was trained with.
        place: Device and precision.
    """

    folder: RunFolder
    config: RunConfig
    model: MultiTaskModel
    template: ChatTemplate
    place: Place

    @classmethod
    def open(cls, path: Path, strength: float = 1.0) -> "FinishedRun":
        """Load the artefact of a finished run.

        Args:
            path: The folder.
            strength: Of the adapter, as of `load_artifact`; what is made of it lies apart (`RunFolder`).

        Raises:
            WarmlineError: an unfinished run, or parts that do not belong together.
        """
        folder = RunFolder.open(path, strength)
        place = choose_place(load_config(folder.config).training)
        return cls(folder, *load_artifact(folder, place.device, place.dtype, strength=strength), place)

    @property
    def companion(self) -> Companion:
        """The same model, to read and reply with."""
        return Companion(self.model, self.template, self.place)

    @property
    def reader(self) -> Reader:
        """What reads encoded conversations."""
        return Reader(self.model, self.place, self.config.pass_tokens)

    @property
    def prompt_reader(self) -> PromptReader:
        """What reads for a person, in every place that serves."""
        return PromptReader(self.model.backbone, self.model.heads, self.template, self.place)

    def context(self) -> dict[str, Any]:
        """What stands at the head of every results file: the run, its base model, seed and data.

        A file adds to it what its own numbers depend on: split, decoding settings, protocol and its revision, judge.
        """
        return {**run_context(self.folder, self.config), "dtype": str(self.place.dtype).removeprefix("torch.")}


def run_context(folder: RunFolder, config: RunConfig) -> dict[str, Any]:
    """The context without a loaded model, for numbers that other processes' models gave."""
    manifest, heads = read_manifest(folder), read_description(folder)
    strength = whole_strength(folder.strength, heads)
    return {
        "run": config.name,
        "step": heads["step"],
        "base_model": heads["base_model"],
        "base_revision": heads["base_revision"],
        "base_random_init_seed": heads["base_random_init_seed"],
        "seed": config.seed,
        "data_sha256": data_checksums(config.data),
        "trained_on_sha256": manifest["data_sha256"],
        **({} if strength == 1 else {"strength": strength}),
    }
