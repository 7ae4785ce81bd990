"""What a run leaves behind is what was scored: saved, loaded in a new process, verified."""

import json
import pickletools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen3MoeConfig

import warmline
from tests.conftest import ConfigFactory
from tests.reference.objectives import states_alone
from tests.tools import CPU, Tiny, perturb, quiet_train, write_architecture
from warmline.companion import Companion
from warmline.config import dump_config, load_config
from warmline.data.template import ChatTemplate, Message
from warmline.errors import WarmlineError
from warmline.model.artifacts import build_model, load_artifact, save_artifact
from warmline.model.base import load_tokenizer
from warmline.model.description import hashes, read_description, settings_of, weights_folder, weights_hash
from warmline.runs import RunFolder, read_json, write_json, write_text
from warmline.tasks.emotion import EMOTIONS
from warmline.tasks.strategy import STRATEGIES

MESSAGES = [Message(role="user", content="I failed my exam and I can't face my parents.")]
READ = """
import json, sys, torch
torch.set_num_threads(1)
import warmline
reading = warmline.load(sys.argv[1]).read(json.loads(sys.argv[2]))
print(json.dumps({head: {label: value.hex() for label, value in said.items()} for head, said in reading.items()}))
"""


def saved(tiny: Tiny, name: str = "tiny", **changes: Any) -> RunFolder:
    """A run folder with this model as if it had been trained."""
    perturb(tiny.model)
    with torch.no_grad():
        tiny.model.heads["strategy"].layers[-1].bias += torch.arange(8) / 10
    config = tiny.config.model_copy(update={"name": name, **changes})
    run = RunFolder(config.output_dir / name)
    run.create()
    write_text(run.config, dump_config(config))
    save_artifact(run, tiny.model, config, tiny.template, step=3)
    return run


def sign(run: RunFolder) -> None:
    """Let heads.json say of the files what they are now, as whoever changes a folder would."""
    config, description = load_config(run.config), read_json(run.heads_description)
    listed = hashes(run, weights_folder(run, config))
    signed = {"weights_sha256": weights_hash(run, config), "heads_sha256": listed["heads.safetensors"], "settings": settings_of(config)}
    newer = {**signed, "files": listed} if description["format"] > 2 else dict(list(signed.items())[:2])
    write_json(run.heads_description, {**description, **newer})


def as_format(run: RunFolder, number: int) -> None:
    """Let heads.json be as an earlier version wrote it."""
    content = read_json(run.heads_description)
    if number < 4 and "labels" in content:
        labels = content.pop("labels")
        content |= {"emotions": labels["emotion"], "strategies": labels["strategy"]}
    for key in ("files", "settings") if number < 3 else ():
        content.pop(key, None)
    write_json(run.heads_description, {**content, "format": number})


def read_in_new_process(run: RunFolder) -> dict[str, dict[str, float]]:
    command = [sys.executable, "-c", READ, str(run.path), json.dumps(MESSAGES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    read = json.loads(done.stdout.splitlines()[-1])
    return {head: {label: float.fromhex(value) for label, value in said.items()} for head, said in read.items()}


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
def test_new_process_predicts_the_same_bits(full: bool, tiny: Tiny, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    if full:
        config = tiny_config(tmp_path, lora=None)
        tiny = Tiny(build_model(config, CPU.device, CPU.dtype), config, tiny.template)
    run = saved(tiny)
    assert read_in_new_process(run) == Companion(tiny.model.eval(), tiny.template, CPU).read(MESSAGES)


def test_adapter_is_plain_peft(tiny: Tiny) -> None:
    run = saved(tiny)
    torch.manual_seed(tiny.config.model.random_init_seed)
    base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny.config.model.name))
    tokenizer = AutoTokenizer.from_pretrained(run.path / "adapter")
    text = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == tiny.template.prompt_ids(MESSAGES)
    with torch.no_grad():
        untuned = base(input_ids=ids).logits[0]
        plain = PeftModel.from_pretrained(base, run.path / "adapter").eval()(input_ids=ids).logits[0]
        model = tiny.model.eval()
        own = states_alone(model, ids[0]) @ model.backbone.unembedding.T
    torch.testing.assert_close(own, plain, rtol=1e-5, atol=1e-5)
    assert float((own - untuned).abs().max()) > 0.1


def test_heads_file_says_what_it_is(tiny: Tiny) -> None:
    run = saved(tiny)
    content = read_json(run.heads_description)
    assert content["labels"] == {"emotion": list(EMOTIONS), "strategy": list(STRATEGIES)}
    assert (content["base_model"], content["base_random_init_seed"]) == (tiny.config.model.name, 0)
    assert (content["run"], content["step"], content["weights"], content["dtype"]) == ("tiny", 3, "adapter", "float32")
    assert set(content["reads"]) == {"emotion", "strategy"}
    assert all(tensor.dtype == torch.float32 for tensor in load_file(run.heads).values())


def test_28_labels_come_back(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, data={"sources": {"goemotions": {"labels": 28}}}, heads={"emotion": {"hidden_size": 8}})
    tiny = Tiny(build_model(config, CPU.device, CPU.dtype), config, ChatTemplate(load_tokenizer(config.model)))
    reading = warmline.load(saved(tiny).path).read(MESSAGES)
    assert list(reading["emotion"]) == [*EMOTIONS, "neutral"]


def test_heads_of_another_run_are_refused(tiny: Tiny) -> None:
    run, other = saved(tiny), saved(tiny, "other")
    shutil.copy(other.heads, run.heads)
    with pytest.raises(WarmlineError, match=r"heads\.safetensors: sha256 differs from heads\.json"):
        warmline.load(run.path)
    shutil.copy(other.heads_description, run.heads_description)
    with pytest.raises(WarmlineError, match=r"heads\.json: these heads belong to another adapter"):
        warmline.load(run.path)


def test_adapter_of_another_run_is_refused(tiny: Tiny) -> None:
    run, other = saved(tiny), saved(tiny, "other")
    shutil.rmtree(run.path / "adapter")
    shutil.copytree(other.path / "adapter", run.path / "adapter")
    with pytest.raises(WarmlineError, match=r"heads\.json: these heads belong to another adapter"):
        warmline.load(run.path)


def test_parts_of_one_other_run_are_accepted_together(tiny: Tiny) -> None:
    """The check is of belonging, not of place."""
    run, other = saved(tiny), saved(tiny, "other")
    shutil.rmtree(run.path / "adapter")
    shutil.copytree(other.path / "adapter", run.path / "adapter")
    shutil.copy(other.heads, run.heads)
    shutil.copy(other.heads_description, run.heads_description)
    assert warmline.load(run.path).read(MESSAGES) == warmline.load(other.path).read(MESSAGES)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.yaml", "not a run folder"),
        ("heads.json", "has not finished"),
        ("heads.safetensors", r"heads\.safetensors: file not found"),
        ("adapter/adapter_model.safetensors", "adapter: no weights"),
    ],
)
def test_missing_part(missing: str, message: str, tiny: Tiny) -> None:
    run = saved(tiny)
    (run.path / missing).unlink()
    with pytest.raises(WarmlineError, match=message) as caught:
        warmline.load(run.path)
    assert "\n" not in str(caught.value)


def test_missing_adapter_config(tiny: Tiny) -> None:
    run = saved(tiny)
    (run.path / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(WarmlineError, match="adapter") as caught:
        warmline.load(run.path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 2}'])
def test_damaged_description(content: str, tiny: Tiny) -> None:
    run = saved(tiny)
    run.heads_description.write_text(content)
    with pytest.raises(WarmlineError, match=r"heads\.json"):
        warmline.load(run.path)


@pytest.mark.parametrize("number", [2, 3])
def test_heads_of_an_earlier_format_say_the_same(number: int, tiny: Tiny) -> None:
    run = saved(tiny)
    expected = warmline.load(run.path).read(MESSAGES)
    as_format(run, number)
    assert set(read_json(run.heads_description)) > {"emotions", "strategies"}
    assert warmline.load(run.path).read(MESSAGES) == expected


@pytest.mark.parametrize("labels", [[], "joy", {"emotion": ["joy"]}])
def test_labels_that_an_earlier_format_did_not_have_are_passed_over(labels: Any, tiny: Tiny) -> None:
    run = saved(tiny)
    as_format(run, 3)
    write_json(run.heads_description, {**read_json(run.heads_description), "labels": labels})
    assert read_description(run)["labels"] == {"emotion": list(EMOTIONS), "strategy": list(STRATEGIES)}


@pytest.mark.parametrize("labels", [[], "joy", {"emotion": "joy"}, {"emotion": list(EMOTIONS)}, {"emotion": [], "strategy": []}])
def test_other_labels_are_refused(labels: Any, tiny: Tiny) -> None:
    run = saved(tiny)
    write_json(run.heads_description, {**read_json(run.heads_description), "labels": labels})
    with pytest.raises(WarmlineError, match=r"heads\.json: .*labels") as caught:
        warmline.load(run.path)
    assert "\n" not in str(caught.value)


def test_heads_that_do_not_fit_are_refused(tiny: Tiny) -> None:
    run = saved(tiny)
    wrong = {name: torch.zeros(3, 3) for name in load_file(run.heads)}
    save_file(wrong, run.heads)
    sign(run)
    with pytest.raises(WarmlineError, match=r"heads\.safetensors: the heads do not fit") as caught:
        warmline.load(run.path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize(
    "said", ["learned mean of the scaled final hidden states of the user's turn", "scaled layer-10 state at the last token"]
)
def test_heads_that_read_what_is_retired_are_refused(said: str, number: int, tiny: Tiny) -> None:
    run = saved(tiny)
    if number < 3:
        as_format(run, number)
    content = read_json(run.heads_description)
    write_json(run.heads_description, {**content, "reads": {**content["reads"], "emotion": said}})
    with pytest.raises(WarmlineError, match=rf"^[^\n]+heads\.json: the emotion head reads a {said}: retired[^\n]+$"):
        warmline.load(run.path)


def test_heads_trained_with_retired_settings(tiny: Tiny) -> None:
    """As heads.json had them: at values that changed nothing, and at another."""
    run = saved(tiny)
    content = read_json(run.heads_description)
    settings = content["settings"]
    older = {"layer": None, **settings["heads"], "emotion": {**settings["heads"]["emotion"], "pooling": "last", "refit": None}}
    write_json(run.heads_description, {**content, "settings": {**settings, "heads": older}})
    warmline.load(run.path)
    write_json(run.heads_description, {**content, "settings": {**settings, "heads": {**older, "layer": 10}}})
    with pytest.raises(WarmlineError, match=r"^[^\n]+heads\.json: `heads\.layer`: retired[^\n]+$"):
        warmline.load(run.path)


def test_loaded_for_reading_only(tiny: Tiny) -> None:
    _, model, template = load_artifact(saved(tiny), CPU.device, CPU.dtype)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    assert (template.name, template.system_prompt) == (tiny.template.name, None)


def test_system_prompt_comes_back(tiny: Tiny) -> None:
    prompt = "You are a good friend."
    template = ChatTemplate(load_tokenizer(tiny.config.model), system_prompt=prompt)
    config = tiny.config.model_copy(update={"data": tiny.config.data.model_copy(update={"system_prompt": prompt})})
    run = saved(Tiny(tiny.model, config, template))
    assert load_artifact(run, CPU.device, CPU.dtype)[2].prompt_ids(MESSAGES) == template.prompt_ids(MESSAGES)
    assert prompt in template.tokenizer.decode(template.prompt_ids(MESSAGES))


def test_an_adapter_beside_experts_comes_back(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    shape = {"vocab_size": 8192, "hidden_size": 32, "moe_intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "bos_token_id": None}  # fmt: skip
    base = write_architecture(tmp_path / "experts", Qwen3MoeConfig(**shape))
    config = tiny_config(tmp_path, model={"name": str(base)}, lora={"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]})
    tiny = Tiny(build_model(config, CPU.device, CPU.dtype), config, ChatTemplate(load_tokenizer(config.model)))
    run = saved(tiny)
    assert warmline.load(run.path).read(MESSAGES) == Companion(tiny.model.eval(), tiny.template, CPU).read(MESSAGES)


def test_nothing_is_pickled(finished: RunFolder) -> None:
    files = [path for path in finished.path.rglob("*") if path.is_file() and path.name != ".lock"]
    suffixes = {path.suffix for path in files}
    assert suffixes <= {".json", ".jsonl", ".yaml", ".safetensors", ".jinja", ".png"}
    assert {".safetensors", ".json"} <= suffixes
    assert not [path for path in files if _is_pickle(path)]


def _is_pickle(path: Path) -> bool:
    content = path.read_bytes()
    if content[:2] == b"PK":  # torch.save's zip
        return True
    try:
        list(pickletools.genops(content))
    except (ValueError, KeyError, IndexError):
        return False
    return True


def test_pickle_detector_detects(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.json")
    torch.save({"a": torch.ones(2)}, tmp_path / "b.json", _use_new_zipfile_serialization=False)
    assert _is_pickle(tmp_path / "a.json")
    (tmp_path / "c.json").write_text('{"a": 1}')
    assert not _is_pickle(tmp_path / "c.json")


@pytest.mark.slow
def test_full_weights_are_saved_as_a_model(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    run = quiet_train(tiny_config(tmp_path, lora=None, training={"max_steps": 4, "learning_rate": 1e-3}))
    assert not (run.path / "adapter").exists()
    config, model, template = load_artifact(run, CPU.device, CPU.dtype)
    stock = AutoModelForCausalLM.from_pretrained(run.path / "model").eval()
    ids = torch.tensor(template.prompt_ids(MESSAGES))
    with torch.no_grad():
        own = states_alone(model, ids) @ model.backbone.unembedding.T
        torch.testing.assert_close(stock(input_ids=ids[None]).logits[0], own, rtol=1e-5, atol=1e-5)
        with model.backbone.reference():
            base = states_alone(model, ids) @ model.backbone.base_unembedding.T
    fresh = build_model(config, CPU.device, CPU.dtype).eval()
    with torch.no_grad():
        assert torch.equal(base, states_alone(fresh, ids) @ fresh.backbone.unembedding.T)
    assert float((own - base).abs().max()) > 1e-3
