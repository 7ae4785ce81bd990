"""A run's configuration: every knob with its unit and meaning. Unknown keys are refused; `load_config` reads YAML and `--set`."""

import difflib
import types
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from warmline.errors import WarmlineError
from warmline.paths import expand_home_in_name, refuse_no_path
from warmline.plain_yaml import read_yaml
from warmline.settings import Count, Folder, NonNegative, Positive, Section, Share
from warmline.sources import SOURCES
from warmline.sources.source import Source, SourceSettings
from warmline.tasks import TASKS, all_objectives
from warmline.tasks.task import HeadSettings, HeadTask

SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class ModelConfig(Section):
    """The base model."""

    name: Annotated[str, BeforeValidator(refuse_no_path), AfterValidator(expand_home_in_name)] = Field(
        description="Hub id or folder of the base model, `~` is home; `nano` is the small base inside this package."
    )
    revision: str | None = Field(None, description="Hub commit, branch or tag; null takes the hub's default branch.")
    load_in_4bit: bool = Field(False, description="The base in 4 bits: NF4, double-quantised (needs bitsandbytes).")
    random_init_seed: int | None = Field(
        None,
        description="Build the architecture with random weights from this seed instead of loading weights: tests, demos, speed.",
    )
    checkpointing: Literal["auto", "none", "selective", "full", "offload"] = Field(
        "auto",
        description="What each layer keeps for its backward pass; the rest is computed again. none: everything. selective: its input, "
        "attention's output and the state between attention and MLP. offload: the same three, in the host's memory. full: its input "
        "alone; slower than offload, for hosts short of memory. auto: the fastest of none, selective and offload that fits the card's "
        "free memory by the plan's estimate; none on a CPU. Without fused kernels selective and offload are full.",
    )
    backend: Literal["auto", "unsloth", "transformers"] = Field(
        "auto",
        description="Library that runs the model while training; the saved adapter is the same. auto: transformers, fused where it can "
        "be; Unsloth where it cannot be fused, the base is in 4-bit and plain transformers would not fit the card (docs/design.md). "
        "unsloth: Llama, Mistral, Qwen2 and Qwen3 on CUDA, with adapters; needs `pip install 'warmline[unsloth]'`.",
    )
    fused: bool = Field(True, description="On CUDA, run Qwen3 or Gemma 3 with adapters in all seven projections through fused kernels.")
    template: Literal["auto", "qwen3", "chatml", "gemma"] = Field(
        "auto", description="Our prefix-stable chat template; auto picks it by the tokenizer's special tokens."
    )


class LoraSettings(Section):
    """Low-rank adapters."""

    r: Count = Field(16, description="Rank: higher learns more, costs memory in proportion.")
    alpha: Positive = Field(16, description="Scale; the update is multiplied by alpha / r.")
    dropout: Share = Field(0.0, description="Dropout on the adapter's input; 0 is fastest and keeps runs reproducible.")
    target_modules: tuple[str, ...] = Field(
        SEVEN_PROJECTIONS,
        min_length=1,
        description="Linear layers inside the decoder's layers that get an adapter, each by the last part of its name; one that the base "
        "lacks is refused.",
    )
    rank_stabilised: bool = Field(False, description="Scale by alpha / sqrt(r) instead (rsLoRA).")


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


class TrainingConfig(Section):
    """The optimisation."""

    epochs: Positive = Field(
        2.0, description="Draws = epochs x conversations over all sources; each source is passed so often only with data.alpha 1."
    )
    max_steps: Count | None = Field(None, description="Stop after so many optimiser steps, whatever epochs says.")
    rows_per_micro_batch: Count = Field(2, description="Packed rows in one forward pass on one device.")
    accumulation: Count = Field(4, description="Micro-batches a device adds up before one optimiser step.")
    learning_rate: Positive = Field(2e-4, description="Peak rate of the adapter (or of the whole model without LoRA).")
    head_learning_rate: Positive = Field(1e-3, description="Peak rate of the heads, which start from nothing.")
    warmup: Share = Field(0.03, description="Share of the steps over which the rate rises from 0.")
    final_rate: Share = Field(0.0, description="Share of the peak rate at which the cosine ends.")
    weight_decay: NonNegative = Field(0.01, description="AdamW's decoupled weight decay, on matrices only.")
    max_grad_norm: Positive = Field(1.0, description="Gradients are scaled down to this global norm.")
    optimizer: Literal["adamw", "adamw_8bit"] = Field("adamw", description="adamw_8bit (bitsandbytes) quarters the state's memory.")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: bf16 where the GPU has it, else fp16; fp32 on CPU."
    )
    sharding: Literal["auto", "never", "always"] = Field(
        "auto",
        description="FSDP2: each GPU holds a part of every layer. auto: with several GPUs, a 16-bit base and adamw, when the model does "
        "not fit one of them. Without it every GPU holds the whole base (DDP), which is faster.",
    )
    early_stop: Count | None = Field(
        None, description="Stop when so many validations in a row brought no lower validation.metric; null never stops."
    )


class ValidationConfig(Section):
    """The fixed validation sets."""

    every: Count = Field(100, description="Optimiser steps between validations; one more at the start and at the end.")
    conversations: Count = Field(200, description="Conversations of each source's validation split, chosen once by the seed.")
    metric: str = Field(
        "total", description="Objective whose lowest validation loss makes a checkpoint the best; total is the weighted sum of all."
    )
    artifact: Literal["best", "last"] = Field(
        "best", description="Whose weights the run leaves behind: the best validation's, or the last step's."
    )


class CheckpointConfig(Section):
    """What survives a crash."""

    every: Count = Field(100, description="Optimiser steps between checkpoints.")
    keep: Count = Field(2, description="Newest checkpoints kept, beside the best one.")


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
                        f"data.sources.{name}.objectives: `{objective}` has no head; give it a section under heads, or leave it out"
                    )
        for task in self.tasks:
            task.refuse(self.heads[task.name], len(self.outputs(task)))
        if self.validation.metric not in ("total", *self.objectives):
            raise ValueError(f"validation.metric: `{self.validation.metric}` is none of total, {', '.join(self.objectives)}")
        if self.model.random_init_seed is not None and self.model.load_in_4bit:
            raise ValueError("model.random_init_seed: random weights are not quantised; save them in a folder and name that, or drop 4-bit")
        if self.lora is None and self.model.load_in_4bit:
            raise ValueError("lora: null cannot train 4-bit weights; set model.load_in_4bit: false")
        return self


MOST_LABELS = 63
"""Bits of an int64 without its sign."""


def add_task(task: HeadTask) -> None:
    """Make a head known; a configuration that has a section for it under `heads` then trains it.

    Args:
        task: Of a name of its own, with at most 63 labels: encoded data hold them as the bits of an integer.

    Raises:
        ValueError: more labels.
    """
    if len(task.labels) > MOST_LABELS:
        raise ValueError(f"{task.name}: has {len(task.labels)} labels, expected at most {MOST_LABELS}")
    TASKS[task.name] = task
    _declare_fields()


def add_source(source: Source) -> None:
    """Make a data set known; it is used where a configuration enables it.

    Args:
        source: Of a name of its own.
    """
    SOURCES[source.name] = source
    _declare_fields()


_OURS = (*TASKS, *SOURCES)


def _declare_fields() -> None:
    """Give the sections of heads, losses and sources their fields: what was added is off until a configuration names it."""
    for task in TASKS.values():
        made = task.settings() if task.name in _OURS else None
        HeadsConfig.model_fields[task.name] = FieldInfo(annotation=task.settings | None, default=made)  # type: ignore[arg-type]
        words = f"Mean loss of a target of the {task.name} head (nats)."
        LossWeights.model_fields[task.name] = FieldInfo.from_annotated_attribute(NonNegative, Field(task.weight, description=words))
    order = {name: LossWeights.model_fields[name] for name in all_objectives()}
    LossWeights.model_fields.clear()
    LossWeights.model_fields.update(order)
    for source in SOURCES.values():
        own = source.settings() if source.name in _OURS else source.settings(enabled=False)
        SourcesConfig.model_fields[source.name] = FieldInfo(annotation=source.settings, default=own)
    for table in (HeadsConfig, LossWeights, SourcesConfig):
        table.model_rebuild(force=True)
    DataConfig.model_fields["sources"] = FieldInfo(annotation=SourcesConfig, default=SourcesConfig())
    DataConfig.model_rebuild(force=True)
    for name, default in (("data", DataConfig()), ("heads", HeadsConfig()), ("loss", LossWeights())):
        RunConfig.model_fields[name] = FieldInfo(annotation=type(default), default=default)
    RunConfig.model_rebuild(force=True)


_declare_fields()


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
        raise WarmlineError(f"{place}: {_explain(error)}") from None


_ANY: Any = object()
_RETIRED: dict[str, Any] = {
    "model.bidirectional": False,
    "data.sources.empathetic_dialogues.situation_as_emotion": False,
    "heads.layer": None,
    "heads.emotion.pooling": "last",
    **{
        f"heads.{head}.{name}": neutral
        for head in ("emotion", "strategy")
        for name, neutral in {"final_states": False, "refit": None, "ensemble": None, "thresholds": None, "label_smoothing": 0}.items()
    },
    "distill.teachers": [],
    "distill.share": _ANY,
    "distill": {},
}
"""Settings that are no more, and the value at which each changed nothing. A section follows its keys."""


def without_retired(content: dict[str, Any], place: str) -> dict[str, Any]:
    """A configuration that came as plain data, without the retired settings that older ones have.

    Args:
        content: Left as it is.
        place: Where it came from.

    Raises:
        WarmlineError: a retired setting has a value that would change the run.
    """
    for key, neutral in _RETIRED.items():
        content = _without(content, key.split("."), key, neutral, place)
    return content


def _without(section: Any, levels: Sequence[str], key: str, neutral: Any, place: str) -> Any:
    first, *below = levels
    if not isinstance(section, dict) or first not in section:
        return section
    if below:
        return {**section, first: _without(section[first], below, key, neutral, place)}
    if neutral is not _ANY and section[first] != neutral:
        raise WarmlineError(
            f"{place}: `{key}`: retired, since runs showed no gain from it (research/LOG.md says what was measured); leave it out, "
            f"got {_shown(section[first])}"
        )
    return {name: value for name, value in section.items() if name != first}


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
