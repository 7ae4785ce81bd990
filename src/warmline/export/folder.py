"""`warmline export`: what a run folder holds, as PEFT, transformers, vLLM and a model hub want it.

<folder>/
  README.md              the model card
  export.json            what was written from what, and how far merged logits are from the adapter's
  adapter/               as PEFT wrote it, with tokenizer (unless it shall stay out), chat template and how replies are drawn; absent when
                         every weight was trained
  heads.safetensors      the heads; heads.json says what they read
  config.yaml            of the run, with the base's public name and no places of the machine; with it `warmline.load` opens the folder
  manifest.json          of the run
  model*.safetensors ... with `merged`: a plain transformers model

The chat template for tools that know no system prompt of ours.

Push an exported folder to the Hugging Face Hub.
"""

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors.torch import load_file, save_file

from warmline import __version__
from warmline.config import RunConfig, dump_config
from warmline.data.enabled import SAMPLE
from warmline.data.template import ChatTemplate
from warmline.errors import WarmlineError, reason_of
from warmline.export.merge import DTYPES, DType, Merged, generation_config, merge
from warmline.model.artifacts import refuse_strength
from warmline.model.base import load_tokenizer
from warmline.model.description import ADAPTER_CONFIG, ADAPTER_WEIGHTS, hashes, keep_known, verify, weights_folder, weights_hash
from warmline.paths import public_name
from warmline.reporting.facts import Facts, gather
from warmline.reporting.model_card import base_on_hub, model_card
from warmline.runs import RunFolder, read_json, write_folder, write_json, write_text
from warmline.sources import SOURCES

EXPORT = "export.json"
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM's --max-lora-rank takes (vllm/config/lora.py)."""
_PACKAGES = ("torch", "transformers", "peft")


class Options(NamedTuple):
    """What to export.

    Attributes:
        merged: Also write the whole model, with the adapter merged into it.
        dtype: Of the merged weights.
        base: Hub id or folder under which others find the base, and into whose weights the adapter is merged; None is the run's own name.
        overwrite: Replace an earlier export.
        tokenizer: Copy the base's tokenizer too. An adapter needs none of its own, and Gemma's is twice its size.
        strength: Of the adapter, baked into what is written: whoever loads the export at 1 has the run at this strength.
    """

    merged: bool = False
    dtype: DType = "bfloat16"
    base: str | None = None
    overwrite: bool = False
    tokenizer: bool = True
    strength: float = 1.0


def export(path: Path, out: Path, options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Export a finished run into a folder, which is complete or absent.

    Args:
        path: The run.
        out: The folder; a new or empty one, unless `overwrite` finds an earlier export there.
        options: What to write.
        say: Takes a line about each step that takes time.

    Returns:
        What `export.json` holds.

    Raises:
        WarmlineError: an unfinished or damaged run, a folder that is taken, a base that cannot be loaded, a full disk.
    """
    _refuse_taken(out, options.overwrite)
    facts = gather(path, cards=False)
    run, config = facts.folder, facts.config
    facts = facts._replace(heads={**facts.heads, "base_model": public_name(facts.heads["base_model"])})
    verify(run, config)
    if config.lora is None and not options.merged:
        raise WarmlineError(f"{path}: this run trained every weight, so there is no adapter to export; add --merged for the whole model")
    refuse_strength(options.strength, config)
    if options.base and config.model.random_init_seed is not None:
        raise WarmlineError(f"--base {options.base}: this run's base is random numbers, which no other model has; leave it out")
    template = ChatTemplate(load_tokenizer(config.model), facts.heads["template"], facts.heads["system_prompt"])
    merged = _merge(facts, options, template, say) if options.merged else None
    described = _describe(facts, options, template, merged)

    def fill(folder: Path) -> None:
        template.tokenizer.chat_template = with_system_prompt(template)
        if config.lora is not None:
            _copy_adapter(weights_folder(run, config), folder, public_name(options.base or config.model.name), options.strength)
            if options.tokenizer:
                template.tokenizer.save_pretrained(folder / "adapter")
            else:
                write_text(folder / "adapter" / "chat_template.jinja", template.tokenizer.chat_template)
            generation_config(template).save_pretrained(folder / "adapter")
            keep_known(folder / "adapter", "adapter")
            write_text(folder / "config.yaml", dump_config(_portable(config, options.base)))
            write_json(folder / run.manifest.name, _portable_manifest(facts.manifest))
        shutil.copy(run.heads, folder)
        listed = {"files": hashes(RunFolder(folder), folder / "adapter")} if "files" in facts.heads else {}
        described_heads = {**read_json(run.heads_description), "base_model": facts.heads["base_model"], **listed}  # in the format it has
        if config.lora is not None:
            described_heads["weights_sha256"] = weights_hash(RunFolder(folder), config)
        if options.strength != 1:
            described_heads["strength"] = options.strength
        write_json(folder / run.heads_description.name, described_heads)
        if merged is not None:
            merged.model.save_pretrained(folder)
            template.tokenizer.save_pretrained(folder)
        write_json(folder / EXPORT, described)
        write_text(folder / "README.md", model_card(facts, described, template))

    say("writing")
    write_folder(out, fill)
    return described


def vllm_command(base: str, rank: int, folder: str) -> str:
    """The line that starts vLLM's OpenAI-compatible server with this adapter as the model `friend`.

    Args:
        base: Hub id or folder of the base.
        rank: Of the adapter.
        folder: The export.
    """
    allowed = next((each for each in VLLM_RANKS if each >= rank), rank)
    return (
        f"vllm serve {base} --enable-lora --lora-modules friend={folder}/adapter --max-lora-rank {allowed} "
        f"--chat-template {folder}/adapter/chat_template.jinja --generation-config {folder}/adapter"
    )


def _refuse_taken(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / EXPORT).is_file():
        raise WarmlineError(f"{out}: is there already and no earlier export; choose a new folder for --out")
    if not overwrite:
        raise WarmlineError(f"{out}: an earlier export is there; --overwrite replaces it, or choose another folder")


def _merge(facts: Facts, options: Options, template: ChatTemplate, say: Callable[[str], None]) -> Merged:
    config = facts.config
    unquantised = " unquantised (it was trained in 4 bits)" if config.model.load_in_4bit else ""
    model = config.model if options.base is None else config.model.model_copy(update={"name": options.base, "revision": None})
    say(f"loading {model.name}{unquantised}, merging on the CPU in {options.dtype}, comparing logits")
    return merge(model, config.lora, weights_folder(facts.folder, config), DTYPES[options.dtype], template, options.strength)


def _copy_adapter(source: Path, folder: Path, base: str, strength: float) -> None:
    target = folder / "adapter"
    target.mkdir()
    if strength == 1:
        shutil.copy(source / ADAPTER_WEIGHTS, target)
    else:
        tensors = load_file(source / ADAPTER_WEIGHTS)
        weakened = {name: tensor * strength if "lora_B" in name else tensor for name, tensor in tensors.items()}
        save_file(weakened, target / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    settings = read_json(source / ADAPTER_CONFIG)
    write_json(target / ADAPTER_CONFIG, {**settings, "base_model_name_or_path": base})


def _portable(config: RunConfig, base: str | None) -> RunConfig:
    """The configuration without places of this machine; the base goes by the id under which others find it, or else by its public name."""
    sources = config.data.sources.model_copy(update={name: source.portable(config.data.sources[name]) for name, source in SOURCES.items()})
    data = config.data.model_copy(update={"dir": SAMPLE if config.data.dir == SAMPLE else None, "sources": sources})
    hub_id = base_on_hub(config.model, base).hub_id
    renamed = {"name": public_name(config.model.name)} if hub_id in (None, config.model.name) else {"name": hub_id, "revision": None}
    model = config.model.model_copy(update=renamed)
    output_dir = RunConfig.model_fields["output_dir"].default
    return config.model_copy(update={"output_dir": output_dir, "data": data, "model": model})


def _portable_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without places of this machine."""
    return {**manifest, "base_model": public_name(manifest["base_model"])}


def _describe(facts: Facts, options: Options, template: ChatTemplate, merged: Merged | None) -> dict[str, Any]:
    config, heads = facts.config, facts.heads
    base = base_on_hub(config.model, options.base)
    adapter: dict[str, Any] = {"absent": "every weight was trained"}
    if config.lora is not None:
        adapter = {
            "folder": "adapter",
            "rank": config.lora.r,
            "tokenizer": options.tokenizer,
            **({} if options.strength == 1 else {"strength": options.strength}),
            "vllm": None if base.hub_id is None else vllm_command(base.hub_id, config.lora.r, "."),
            "vllm_reason": base.reason,
        }
    return {
        "context": {
            **{key: heads[key] for key in ("run", "step", "base_model", "base_revision", "base_random_init_seed")},
            "seed": config.seed,
            "weights_sha256": heads["weights_sha256"],  # of the run that was measured
            "heads_sha256": heads["heads_sha256"],
            "trained_on_sha256": facts.manifest["data_sha256"],
            "versions": {"warmline": __version__, **{name: version(name) for name in _PACKAGES}},
        },
        "base": {"name": public_name(options.base or config.model.name), "hub_id": base.hub_id, "reason": base.reason},
        "trained_in_4bit": config.model.load_in_4bit,
        "end_of_turn": template.layout.end_of_turn,
        "adapter": adapter,
        "merged": {"absent": "not asked for; --merged writes it"}
        if merged is None
        else {"dtype": options.dtype, "check": merged.check._asdict()},
    }


def with_system_prompt(template: ChatTemplate) -> str:
    """Jinja source that renders what `ChatTemplate.render` does: a run's system prompt stands before conversations that bring none.

    Args:
        template: Of the run.
    """
    if not template.system_prompt:
        return template.source
    literal = template.clean(template.system_prompt).encode("unicode_escape").decode("ascii").replace("'", "\\'")
    return (
        "{%- if not messages or messages[0].role != 'system' -%}"
        f"{{%- set messages = [{{'role': 'system', 'content': '{literal}'}}] + messages -%}}"
        "{%- endif -%}\n" + template.source
    )


_FAILURES = (HfHubHTTPError, HFValidationError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError)
"""The last three are what a proxy's address that cannot be used comes to."""


class Destination(NamedTuple):
    """A model repository that may be written to."""

    hub_id: str
    private: bool
    api: HfApi

    @classmethod
    def check(cls, hub_id: str, private: bool = False) -> "Destination":
        """Look for a token and ask the hub whose it is, before anything is written.

        Args:
            hub_id: Such as `me/friend`.
            private: Of the repository, when it is made anew.

        Raises:
            WarmlineError: no token, one that the hub refuses, or no hub to be reached.
        """
        if hub_id.count("/") != 1 or not all(hub_id.split("/")):
            raise WarmlineError(f"--push {hub_id}: expected an owner and a name, as in me/friend")
        token = get_token()
        if token is None:
            raise WarmlineError("--push: no Hugging Face token; set HF_TOKEN, or log in with `hf auth login`")
        api = HfApi(token=token)
        try:
            api.whoami()
        except HfHubHTTPError as error:
            raise WarmlineError(f"--push: the hub does not accept the token ({reason_of(error)}); log in with `hf auth login`") from None
        except _FAILURES as error:
            raise WarmlineError(
                f"--push: the hub cannot be reached ({reason_of(error)}); leave --push out, and upload the folder later"
            ) from None
        return cls(hub_id, private, api)

    def upload(self, folder: Path) -> str:
        """Make the repository where it is missing, and upload everything in a folder as one commit.

        Returns:
            The repository's address.

        Raises:
            WarmlineError: the hub refused; the folder stays as it is.
        """
        try:
            made = self.api.create_repo(self.hub_id, repo_type="model", private=self.private, exist_ok=True)
            self.api.upload_folder(
                repo_id=self.hub_id, folder_path=folder, repo_type="model", commit_message="Upload a model exported by warmline"
            )
        except _FAILURES as error:
            raise WarmlineError(
                f"--push {self.hub_id}: the hub refused ({reason_of(error)}); the export is in {folder}, "
                f"`hf upload {self.hub_id} {folder}` tries again"
            ) from None
        return str(made)
