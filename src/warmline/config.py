"""A run's configuration: every knob with its unit and meaning. Unknown keys are refused; `load_config` reads YAML and `--set`."""

import difflib
import types
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from warmline.errors import WarmlineError, printable
from warmline.paths import refuse_no_path
from warmline.plain_yaml import read_yaml
from warmline.retired import without_retired
from warmline.settings import (
    CheckpointConfig,
    Count,
    Folder,
    LoraSettings,
    ModelConfig,
    NonNegative,
    Positive,
    Section,
    TrainingConfig,
    ValidationConfig,
)
from warmline.sources import SOURCES
from warmline.sources.source import SourceSettings
from warmline.tasks import TASKS, all_objectives
from warmline.tasks.task import HeadSettings, HeadTask


class SourcesConfig(Section):
    """The data sets that are mixed, a section each: the fields are those of `SOURCES`."""

    def __getitem__(self, name: str) -> SourceSettings:
        section: SourceSettings = getattr(self, name)
        return section


class DataConfig(Section):
    """What is read, how it is mixed and packed."""

    dir: Annotated[str, BeforeValidator(refuse_no_path)] | None = Field(
        None,
        description="Folder with the official files, `~` is home; `sample` is the data inside this package; null is where `data fetch` "
        "puts them.",
    )
    sources: SourcesConfig = SourcesConfig()
    own_words: Folder | None = Field(
        None,
        description="Folder where `warmline rewrite` puts replies in the base's own words, which are learned in place of people's; a reply "
        "for which it has none is context. null: people's replies.",
    )
    alpha: float = Field(0.5, gt=0, le=1, description="Mixture temperature: p_i = n_i^alpha / sum n_j^alpha. 1 keeps proportions.")
    max_passes: Positive | None = Field(
        None,
        description="A source is drawn at most this many times its size, then leaves the mixture, and the others share on in their "
        "proportions; the run stays as long while any source is left. null: as often as alpha and epochs come to; the plan says how often.",
    )
    row_tokens: Annotated[int, Field(ge=16)] = Field(2048, description="Capacity of a packed row, in tokens.")
    lookahead: Count = Field(256, description="Drawn conversations among which the packer finds one that fills a gap.")
    system_prompt: str | None = Field(None, description="Put before every conversation, in training and when serving; null for none.")
    long_conversations: Literal["split", "refuse"] = Field(
        "split", description="A conversation longer than a row: split it between turns (counted and reported), or refuse it."
    )


class HeadsConfig(Section):
    """The heads, a section each: the fields are those of `TASKS`. null is no such head, as of one that was added and not named."""

    def __getitem__(self, name: str) -> HeadSettings:
        section: HeadSettings = getattr(self, name)
        return section


class LossWeights(Section):
    """The weights of the objectives in the total loss: of each head too."""

    lm: NonNegative = Field(1.0, description="Mean cross-entropy of a reply token (nats).")
    safety: NonNegative = Field(0.1, description="Mean over safety conversations of KL(base || tuned) a reply token (nats).")

    def __getitem__(self, name: str) -> float:
        weight: float = getattr(self, name)
        return weight


class RunConfig(Section):
    """A whole run."""

    name: str = Field(description="Names the run in its folder, its reports and its trackers.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    output_dir: Folder = Field(Path("runs"), description="Where the run folder `<output_dir>/<name>` is made; `~` is home.")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(13, description="Of weights, draws, dropout and validation sets.")
    model: ModelConfig
    lora: LoraSettings | None = Field(LoraSettings(), description="null trains every weight: for tiny models only.")
    data: DataConfig = DataConfig()
    heads: HeadsConfig = HeadsConfig()
    loss: LossWeights = LossWeights()
    training: TrainingConfig = TrainingConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        (), description="Live trackers fed through Accelerate; each must be installed."
    )

    @property
    def pass_tokens(self) -> int:
        """Tokens of one forward pass, in training and, since that fits without gradients too, when finished states are read."""
        return self.training.rows_per_micro_batch * self.data.row_tokens

    @property
    def tasks(self) -> tuple[HeadTask, ...]:
        """The heads of this run, in order."""
        return tuple(task for name, task in TASKS.items() if getattr(self.heads, name) is not None)

    @property
    def objectives(self) -> tuple[str, ...]:
        """What this run can train, in order: the language model, its heads, and the safety term."""
        return ("lm", *(task.name for task in self.tasks), "safety")

    def outputs(self, task: HeadTask) -> tuple[str, ...]:
        """The labels that a head of this run answers with."""
        return task.outputs({name: self.data.sources[name] for name in SOURCES})

    @model_validator(mode="after")
    def _fits_together(self) -> "RunConfig":
        enabled = {name: source for name, source in SOURCES.items() if self.data.sources[name].enabled}
        for name, source in SOURCES.items():
            for objective in self.data.sources[name].objectives:
                if objective not in source.carries:
                    raise ValueError(
                        f"data.sources.{name}.objectives: `{objective}` is none of what it can train: {', '.join(source.carries)}"
                    )
        if not enabled:
            raise ValueError("data.sources: every source is disabled")
        for name in enabled:
            if not self.data.sources[name].objectives:
                raise ValueError(f"data.sources.{name}.objectives: empty, so it would train nothing; name one, or set enabled: false")
            for objective in self.data.sources[name].objectives:
                if objective not in self.objectives:
                    raise ValueError(
                        f"heads.{objective}: null, but data.sources.{name}.objectives trains it; give it a section, or leave it out there"
                    )
        for task in self.tasks:
            task.refuse(self.heads[task.name], len(self.outputs(task)))
        if self.validation.metric not in ("total", "flawed", *self.objectives):
            raise ValueError(f"validation.metric: `{self.validation.metric}` is none of total, flawed, {', '.join(self.objectives)}")
        if self.validation.metric == "flawed" and not self.validation.replies:
            raise ValueError("validation.metric: flawed needs validation.replies, such as 24")
        if self.model.random_init_seed is not None and self.model.load_in_4bit:
            raise ValueError("model.random_init_seed: random weights are not quantised; save them in a folder and name that, or drop 4-bit")
        if self.lora is None and self.model.load_in_4bit:
            raise ValueError("lora: null cannot train 4-bit weights; set model.load_in_4bit: false")
        return self


MOST_LABELS = 63
"""Of a head: encoded data hold those of a turn as the bits of an int64 without its sign."""
_TAKEN = {"lm", "safety", "total", "absent", "risk"}
"""Beside the heads' names in objectives, losses, scores or the API."""


def declare_fields() -> None:
    """Give the sections of heads, losses and sources the fields that `TASKS` and `SOURCES` name.

    To be called when something was added to them.

    Raises:
        ValueError: a head has too many labels, or a name that is taken.
    """
    for name, task in TASKS.items():
        if len(task.labels) > MOST_LABELS:
            raise ValueError(f"{name}: has {len(task.labels)} labels, expected at most {MOST_LABELS}")
        if name != task.name or name in _TAKEN:
            raise ValueError(f"TASKS: `{name}` is not its name, or one of {', '.join(sorted(_TAKEN))}, which mean something else")
    HeadsConfig.model_fields.clear()
    SourcesConfig.model_fields.clear()
    for task in TASKS.values():
        made = task.settings() if task.standard else None
        HeadsConfig.model_fields[task.name] = FieldInfo(annotation=task.settings | None, default=made)  # type: ignore[arg-type]
        words = f"Mean loss of a target of the {task.name} head (nats)."
        LossWeights.model_fields[task.name] = FieldInfo.from_annotated_attribute(NonNegative, Field(task.weight, description=words))
    order = {name: LossWeights.model_fields[name] for name in all_objectives()}
    LossWeights.model_fields.clear()
    LossWeights.model_fields.update(order)
    for source in SOURCES.values():
        own = source.settings() if source.standard else source.settings(enabled=False)
        SourcesConfig.model_fields[source.name] = FieldInfo(annotation=source.settings, default=own)
    for table in (HeadsConfig, LossWeights, SourcesConfig):
        table.model_rebuild(force=True)
    DataConfig.model_fields["sources"] = FieldInfo(annotation=SourcesConfig, default=SourcesConfig())
    DataConfig.model_rebuild(force=True)
    for name, default in (("data", DataConfig()), ("heads", HeadsConfig()), ("loss", LossWeights())):
        RunConfig.model_fields[name] = FieldInfo(annotation=type(default), default=default)
    RunConfig.model_rebuild(force=True)


declare_fields()


_LONGEST_SHOWN = 300
"""Characters of a person's own text that an error repeats."""
_LARGEST = 128 * 1024
"""Bytes of a configuration file; the one with every knob and its comment has about a tenth."""


def load_config(path: Path, overrides: Sequence[str] = (), data_dir: str | None = None) -> RunConfig:
    """Read a YAML configuration.

    Args:
        path: The file.
        overrides: `key=value` with dots between the levels. Where the key is text or a path the value is taken as typed, but for quotes
            around the whole of it, and `null` where the key may be null; the texts of a list likewise. Any other value is YAML, as in
            `training.learning_rate=1e-4`.
        data_dir: Instead of `data.dir`, exactly as typed; None leaves it.

    Raises:
        WarmlineError: missing file, bad YAML, a key that stands twice, unknown key (with the nearest known one), a value that does not fit.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise WarmlineError(f"{path}: configuration not found; the repository's configs/ folder has examples") from None
    except (OSError, ValueError) as error:
        raise WarmlineError(f"{path}: cannot be read ({error})") from None
    if len(text) > _LARGEST:
        raise WarmlineError(
            f"{path}: has more than {_LARGEST // 1024} KiB; expected a configuration, as those in the repository's configs/"
        )
    try:
        content = read_yaml(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise WarmlineError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise WarmlineError(f"{path}: not valid YAML: {_short(str(error))}") from None
    if not isinstance(content, dict):
        raise WarmlineError(f"{path}: expected a mapping of sections such as `model:` and `training:`")
    for override in overrides:
        _apply(content, override)
    if data_dir is not None:
        _put(content, "data.dir", data_dir, f"--data-dir {data_dir}")
    return parse_config(content, str(path))


def parse_config(content: dict[str, Any], place: str) -> RunConfig:
    """Validate a configuration that came as plain data.

    Raises:
        WarmlineError: the first problem, with its key, what was expected and the nearest known key.
    """
    try:
        return RunConfig.model_validate(without_retired(content, place))
    except ValidationError as error:
        raise WarmlineError(f"{place}: {printable(_explain(error))}") from None


def dump_config(config: RunConfig) -> str:
    """The configuration as YAML that `load_config` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def differing_keys(first: RunConfig, second: RunConfig) -> list[str]:
    """Keys with dots between the levels, such as `training.max_steps`, at which two configurations differ."""

    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        return {key: leaf for name, below in value.items() for key, leaf in flat(below, f"{prefix}.{name}".lstrip(".")).items()}

    before, after = flat(first.model_dump(mode="json")), flat(second.model_dump(mode="json"))
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    said = f"--set {_short(override)}"
    if not equals or not key:
        raise WarmlineError(f"{said}: expected key=value, as in --set training.learning_rate=1e-4")
    try:
        _put(content, key, _typed(_annotation(key), value), said)
    except yaml.YAMLError:
        raise WarmlineError(f"{said}: `{_short(value)}` is not a YAML value") from None


def _put(content: dict[str, Any], key: str, value: Any, said: str) -> None:
    *levels, last = key.split(".")
    target = content
    for level in levels:
        below = target.get(level)
        if below is None:
            below = target[level] = {}
        if not isinstance(below, dict):
            raise WarmlineError(f"{said}: `{_short(level)}` is a value, not a section")
        target = below
    target[last] = value


def _typed(annotation: Any, value: str) -> Any:
    """A value from the command line, read as its key's type asks."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    if not {_plain(kind) for kind in kinds} & {str, Path}:
        texts = any(get_origin(kind) is tuple and _plain(get_args(kind)[0]) in (str, Path) for kind in kinds)
        return read_yaml(value, as_text=texts)
    if value == "null" and type(None) in kinds:
        return None
    return _without_quotes(value)


def _plain(annotation: Any) -> Any:
    """The type inside `Annotated`."""
    return annotation.__origin__ if get_origin(annotation) is Annotated else annotation


def _without_quotes(value: str) -> str:
    """The text of a quoted YAML scalar; any other as it is."""
    if value[:1] in ("'", '"') and value[-1:] == value[:1]:
        with suppress(yaml.YAMLError):
            unquoted = read_yaml(value)
            return unquoted if isinstance(unquoted, str) else value
    return value


def _explain(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    key = _short(".".join(str(part) for part in problem["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        parent, _, name = key.rpartition(".")
        known = _known_keys(parent.split(".") if parent else [])
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        elsewhere = [path for path in _all_keys() if path.rpartition(".")[2] == name]
        hint = f"did you mean `{nearest[0]}`?" if nearest else f"known keys: {', '.join(known)}"
        if elsewhere:
            hint = f"did you mean `{elsewhere[0]}`?"
        return f"unknown key `{key}`; {hint}{more}"
    message = problem["msg"].removeprefix("Value error, ")
    if not key:
        return message + more
    if problem["type"] == "missing":
        return f"missing key `{key}`{more}"
    return f"`{key}`: {message}, got {_shown(problem['input'])}{more}"


def _shown(value: Any) -> str:
    try:
        return _short(repr(value))
    except ValueError:  # Python prints no integer of thousands of digits
        return "a number too long to print"


def _short(text: str) -> str:
    """On one line of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_SHOWN else f"{line[:_LONGEST_SHOWN]}..."


def _annotation(key: str) -> Any:
    """The type of a key with dots between its levels; None of an unknown one."""
    section: type[BaseModel] | None = RunConfig
    annotation: Any = None
    for level in key.split("."):
        field = section.model_fields.get(level) if section else None
        if field is None:
            return None
        annotation = field.annotation
        section = _section(annotation)
    return annotation


def _section(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _known_keys(levels: Sequence[str]) -> list[str]:
    section: type[BaseModel] = RunConfig
    for level in levels:
        field = section.model_fields.get(level)
        below = _section(field.annotation) if field else None
        if below is None:
            return []
        section = below
    return list(section.model_fields)


def _all_keys(section: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        below = _section(field.annotation)
        if below is not None:
            yield from _all_keys(below, f"{prefix}{name}.")
