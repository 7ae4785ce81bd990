"""An export is what others' tools expect: plain transformers and PEFT say what warmline says, and the card is of this run."""

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraModel, PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import warmline
from tests.conftest import ConfigFactory
from tests.model.test_artifacts import as_format
from tests.reporting import results
from tests.tools import Tiny, perturb, quiet_train
from warmline.companion import Companion
from warmline.config import load_config
from warmline.data.template import ChatTemplate, Message
from warmline.errors import WarmlineError
from warmline.evaluation.finished import FinishedRun
from warmline.export import merge as merging
from warmline.export.folder import EXPORT, Options, export, vllm_command, with_system_prompt
from warmline.inspection import inspect
from warmline.model.backbone import Sampling
from warmline.model.base import load_tokenizer
from warmline.runs import RunFolder, read_json, write_json

TALK = [
    Message(role="user", content="My cat ran away."),
    Message(role="assistant", content="Oh no. How long ago?"),
    Message(role="user", content="Two days.\n\nI can't sleep \u2014 caf\u00e9s don't help \U0001f63f"),
]
GREEDY = Sampling(max_new_tokens=24, temperature=0)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def exported(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run with merged fp32 weights, which tests only read."""
    out = tmp_path_factory.mktemp("export") / "friend"
    export(finished.path, out, Options(merged=True, dtype="float32"), quiet)
    return out


@pytest.fixture(scope="module")
def companion(finished: RunFolder) -> Companion:
    return warmline.load(finished.path)


def plain_reply(model: Any, tokenizer: Any) -> str:
    prompt = tokenizer.apply_chat_template(TALK, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    out = model.generate(**prompt, do_sample=False, temperature=None, top_p=None, min_p=None, top_k=None, max_new_tokens=24)
    return str(tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def test_merged_model_replies_alike_in_plain_transformers(exported: Path, companion: Companion) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(exported), AutoTokenizer.from_pretrained(exported)
    assert plain_reply(model, tokenizer) == companion.reply(TALK, GREEDY)
    assert companion.reply(TALK, GREEDY) != companion.reply(TALK, GREEDY, base=True)  # or the comparison would prove nothing
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert not [name for name in model.state_dict() if "lora" in name]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_merged_in_16_bits(dtype: merging.DType, finished: RunFolder, tmp_path: Path) -> None:
    described = export(finished.path, tmp_path / "out", Options(merged=True, dtype=dtype), quiet)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == merging.DTYPES[dtype]
    check = described["merged"]["check"]
    assert 0 < check["relative_difference"] <= check["allowed"] < check["tuning_moved"]
    assert described == read_json(tmp_path / "out" / EXPORT)


def test_adapter_loads_in_plain_peft(exported: Path, finished: RunFolder, companion: Companion) -> None:
    config = load_config(finished.config)
    torch.manual_seed(0)  # the base of this run is random numbers: its seed
    base = AutoModelForCausalLM.from_config(AutoModelForCausalLM.from_pretrained(exported).config, dtype=torch.float32)
    assert config.model.random_init_seed == 0
    model = PeftModel.from_pretrained(base, exported / "adapter").eval()
    assert GenerationConfig.from_pretrained(exported / "adapter").eos_token_id == base.config.eos_token_id
    assert plain_reply(model, AutoTokenizer.from_pretrained(exported / "adapter")) == companion.reply(TALK, GREEDY)


def test_warmline_opens_an_export(exported: Path, companion: Companion, tiny_model: Path) -> None:
    again = warmline.load(exported, base=str(tiny_model))
    assert again.read(TALK) == companion.read(TALK)
    assert again.reply(TALK, GREEDY) == companion.reply(TALK, GREEDY)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_run_of_an_earlier_format_opens_again(number: int, finished_copy: RunFolder, tiny_model: Path, tmp_path: Path) -> None:
    as_format(finished_copy, number)
    export(finished_copy.path, tmp_path / "out", Options(), quiet)
    assert read_json(tmp_path / "out" / "heads.json")["format"] == number
    assert warmline.load(tmp_path / "out", base=str(tiny_model)).read(TALK) == warmline.load(finished_copy.path).read(TALK)


def test_an_export_lists_its_own_files(exported: Path, finished: RunFolder, tmp_path: Path) -> None:
    export(finished.path, tmp_path / "plain", Options(tokenizer=False), quiet)
    for folder in (exported, tmp_path / "plain"):
        listed = read_json(folder / "heads.json")["files"]
        assert listed.keys() == {f"adapter/{path.name}" for path in (folder / "adapter").iterdir()} | {"heads.safetensors"}
        found = inspect(folder)
        assert not found.refusals
        assert not found.notes
        assert not [entry for entry in found.entries if "unknown" in entry.note]
    (tmp_path / "plain" / "adapter" / "generation_config.json").write_text("{}")
    with pytest.raises(WarmlineError, match=r"generation_config\.json: sha256 differs"):
        warmline.load(tmp_path / "plain")


def test_the_tokenizer_may_stay_out(finished: RunFolder, tmp_path: Path, companion: Companion, tiny_model: Path) -> None:
    """The base has it; the chat template and what else an adapter brings stay."""
    export(finished.path, tmp_path / "out", Options(tokenizer=False), quiet)
    export(finished.path, tmp_path / "with", Options(), quiet)
    own, both = ({path.name for path in (tmp_path / name / "adapter").iterdir()} for name in ("out", "with"))
    assert both - own == {"tokenizer.json", "tokenizer_config.json"}
    template = Path("adapter") / "chat_template.jinja"
    assert (tmp_path / "out" / template).read_bytes() == (tmp_path / "with" / template).read_bytes()
    cards = [(tmp_path / name / "README.md").read_text() for name in ("out", "with")]
    assert ["with tokenizer, chat template" in card for card in cards] == [False, True]
    assert warmline.load(tmp_path / "out", base=str(tiny_model)).reply(TALK, GREEDY) == companion.reply(TALK, GREEDY)


def test_a_base_that_lies_elsewhere(exported: Path, tiny_model: Path, tmp_path: Path, companion: Companion) -> None:
    """An export names its base as others find it; who has it in a folder says where."""
    moved, base = Path(shutil.copytree(exported, tmp_path / "moved")), Path(shutil.copytree(tiny_model, tmp_path / "base"))
    config = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(config.replace(str(load_config(moved / "config.yaml").model.name), "Nobody/Nothing"))
    with pytest.raises(WarmlineError, match="cannot load `Nobody/Nothing`"):
        warmline.load(moved)
    assert warmline.load(moved, base=str(base)).reply(TALK, GREEDY) == companion.reply(TALK, GREEDY)
    with pytest.raises(WarmlineError, match="name the base they were tuned on"):
        warmline.load(moved, base="nano")


@pytest.mark.parametrize(
    "prompt", [None, "You're a friend.", "  'Quotes' \"both\", {{ braces }} {% and %} \\n, \u00e9, \U0001f63f\nlines\t "]
)
def test_the_saved_template_renders_our_bytes(prompt: str | None, finished: RunFolder, tmp_path: Path) -> None:
    template = ChatTemplate(load_tokenizer(load_config(finished.config).model), system_prompt=prompt)
    expected = [template.render(TALK, add_generation_prompt=True), template.render(TALK[:2])]
    own = [Message(role="system", content="Mine."), *TALK]
    expected_own = template.render(own, add_generation_prompt=True)
    template.tokenizer.chat_template = with_system_prompt(template)
    template.tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rendered = [
        tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True),
        tokenizer.apply_chat_template(TALK[:2], tokenize=False),
    ]
    assert rendered == expected
    assert tokenizer.apply_chat_template(own, tokenize=False, add_generation_prompt=True) == expected_own
    assert tokenizer.apply_chat_template(TALK, add_generation_prompt=True)["input_ids"] == template.tokenize(expected[:1])[0]


def test_a_faulty_merge_is_refused(finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self, **_: self.unload())
    with pytest.raises(WarmlineError, match="from the adapter's, rounding explains"):
        export(finished.path, tmp_path / "out", Options(merged=True), quiet)
    assert list(tmp_path.iterdir()) == []


def test_tuning_that_rounding_would_swallow_is_refused(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter so small that leaving it out is within bfloat16's rounding is still not left out unseen."""
    perturb(tiny.model, 1e-3)
    tiny.model.backbone.save(tmp_path)
    there = (tiny.config.model, tiny.config.lora, tmp_path)
    assert merging.merge(*there, torch.float32, tiny.template).check.tuning_moved > 1e-6
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self, **_: self.unload())
    with pytest.raises(WarmlineError, match="the tuning would be lost"):
        merging.merge(*there, torch.bfloat16, tiny.template)


def test_every_weight_trained(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    run = quiet_train(tiny_config(tmp_path, lora=None, training={"max_steps": 2, "learning_rate": 1e-3}, validation={"conversations": 2}))
    with pytest.raises(WarmlineError, match="add --merged"):
        export(run.path, tmp_path / "out", Options(), quiet)
    described = export(run.path, tmp_path / "out", Options(merged=True, dtype="float32"), quiet)
    assert "absent" in described["adapter"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    assert plain_reply(model, tokenizer) == warmline.load(run.path).reply(TALK, GREEDY)
    assert not (tmp_path / "out" / "adapter").exists()
    assert ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()["library_name"] == "transformers"


def test_what_is_there_is_kept(finished: RunFolder, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    export(finished.path, mine, Options(), quiet)
    card = (mine / "README.md").read_bytes()
    with pytest.raises(WarmlineError, match="--overwrite"):
        export(finished.path, mine, Options(), quiet)
    (mine / "README.md").write_text("mine")
    export(finished.path, mine, Options(overwrite=True), quiet)
    assert (mine / "README.md").read_bytes() == card
    (mine / EXPORT).unlink()
    for taken in (mine, finished.path, mine / "README.md"):
        with pytest.raises(WarmlineError, match="no earlier export"):
            export(finished.path, taken, Options(overwrite=True), quiet)


def test_a_broken_disk_leaves_nothing_half_written(finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("warmline.export.folder.model_card", full)
    with pytest.raises(WarmlineError, match="No space left"):
        export(finished.path, tmp_path / "out", Options(), quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_quantised_base_needs_another(finished_copy: RunFolder, tmp_path: Path, tiny_model: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "quantised"))
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**content, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}})
    )
    text = finished_copy.config.read_text().replace(str(tiny_model), str(folder)).replace("random_init_seed: 0", "random_init_seed: null")
    finished_copy.config.write_text(text)
    with pytest.raises(WarmlineError, match="--base Qwen/Qwen3-8B"):
        export(finished_copy.path, tmp_path / "out", Options(merged=True), quiet)


@pytest.fixture(scope="module")
def at_home(tiny_config: ConfigFactory, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose base, output and safety set lie in folders called `trainers-own`."""
    secret = tmp_path_factory.mktemp("trainers-own")
    base = Path(shutil.copytree(tiny_model, secret / "own-base"))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base)).save_pretrained(base)
    there = {"model": {"name": str(base), "random_init_seed": None}, "training": {"max_steps": 2}, "validation": {"conversations": 2}}
    safety = resources.files("warmline") / "assets" / "sample" / "safety"
    shutil.copytree(str(safety), secret / "set")
    data = {"sources": {"safety": {"dir": str(secret / "set")}}}
    return quiet_train(tiny_config(secret, data=data, **there))


def files_that_say(folder: Path, word: str) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes())


@pytest.mark.parametrize("base", [None, "org/nano"])
def test_nothing_says_where_the_trainer_keeps_things(base: str | None, at_home: RunFolder, tmp_path: Path) -> None:
    merged = base is None  # the other is on no hub
    export(at_home.path, tmp_path / "out", Options(merged=merged, dtype="float32", base=base), quiet)
    assert files_that_say(tmp_path / "out", "trainers-own") == []
    assert files_that_say(tmp_path / "out", str(tmp_path.parent)) == []
    heads, config = read_json(tmp_path / "out" / "heads.json"), load_config(tmp_path / "out" / "config.yaml")
    assert heads["base_model"] == read_json(tmp_path / "out" / "manifest.json")["base_model"] == "./own-base"
    assert config.model.name == read_json(tmp_path / "out" / "adapter" / "adapter_config.json")["base_model_name_or_path"]
    assert config.model.name == (base or "./own-base")


def test_an_export_whose_base_is_a_folder_opens_with_it(at_home: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    export(at_home.path, tmp_path / "out", Options(), quiet)
    with pytest.raises(WarmlineError, match=r"no such folder; [^\n]*--base"):
        warmline.load(tmp_path / "out")
    base = load_config(at_home.config).model.name
    assert 'warmline.load("FOLDER", base="PATH")' in (tmp_path / "out" / "README.md").read_text()
    assert warmline.load(tmp_path / "out", base=base).reply(TALK, GREEDY) == warmline.load(at_home.path).reply(TALK, GREEDY)


def test_every_file_has_the_rights_of_a_new_file(finished: RunFolder, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    rights = {oct(path.stat().st_mode) for folder in (finished.path, exported) for path in folder.rglob("*") if path.is_file()}
    assert rights == {oct((tmp_path / "new").stat().st_mode)}


def test_no_place_of_this_machine_is_exported(finished_copy: RunFolder, tmp_path: Path) -> None:
    places = {"output_dir": str(tmp_path / "secret"), "dir": "sample"}
    text = finished_copy.config.read_text()
    config = load_config(finished_copy.config)
    text = text.replace(f"output_dir: {config.output_dir}", f"output_dir: {places['output_dir']}")
    finished_copy.config.write_text(text)
    export(finished_copy.path, tmp_path / "out", Options(), quiet)
    for name in ("README.md", "config.yaml", "export.json", "manifest.json"):
        assert "secret" not in (tmp_path / "out" / name).read_text(encoding="utf-8"), name


@pytest.mark.parametrize(("rank", "said"), [(1, 1), (4, 8), (16, 16), (17, 32), (200, 256)])
def test_vllm_command(rank: int, said: int) -> None:
    assert vllm_command("Qwen/Qwen3-8B", rank, "out") == (
        "vllm serve Qwen/Qwen3-8B --enable-lora --lora-modules friend=out/adapter "
        f"--max-lora-rank {said} --chat-template out/adapter/chat_template.jinja --generation-config out/adapter"
    )


@pytest.fixture
def on_official_data(finished_copy: RunFolder) -> RunFolder:
    """A run with results, whose files say that its base has a hub id and its data are the official ones."""
    context = FinishedRun.open(finished_copy.path).context()
    write_json(finished_copy.evaluation, results.evaluation({**context, "base_model": "Qwen/Qwen3-8B"}))
    write_json(finished_copy.eq_bench, results.eq_bench({**context, "base_model": "Qwen/Qwen3-8B"}, judged=True))
    write_json(
        finished_copy.heads_description,
        {**read_json(finished_copy.heads_description), "base_model": "Qwen/Qwen3-8B", "base_random_init_seed": None},
    )
    text = (
        finished_copy.config.read_text()
        .replace("dir: sample", "dir: /data/official")
        .replace("random_init_seed: 0", "random_init_seed: null")
    )
    finished_copy.config.write_text(text)
    return finished_copy


def test_the_card_s_strategy_scores_are_as_when_serving(on_official_data: RunFolder, tmp_path: Path) -> None:
    found = read_json(on_official_data.evaluation)
    found["heads"]["strategy"]["own_choices"] = {"protocol": "by itself", **results.baseline(0.287, 0.019, 0.01, 0.03)}
    write_json(on_official_data.evaluation, found)
    export(on_official_data.path, tmp_path / "out", Options(base="Qwen/Qwen3-8B"), quiet)
    scores = ModelCard.load(tmp_path / "out" / "README.md").data.eval_results
    assert [one.metric_value for one in scores if one.dataset_name == "ESConv" and one.metric_name == "macro-F1"] == [0.287]


def test_the_card(on_official_data: RunFolder, tmp_path: Path) -> None:
    export(on_official_data.path, tmp_path / "out", Options(base="Qwen/Qwen3-8B"), quiet)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    data = card.data.to_dict()
    assert (data["license"], data["base_model"], data["library_name"]) == ("cc-by-nc-4.0", "Qwen/Qwen3-8B", "peft")
    assert data["datasets"] == ["facebook/empathetic_dialogues", "thu-coai/esconv", "google-research-datasets/go_emotions"]
    numbers = {(one.dataset_name, one.metric_name): one.metric_value for one in card.data.eval_results}
    assert numbers == {
        ("GoEmotions", "accuracy"): 0.226, ("GoEmotions", "macro-F1"): 0.175,
        ("ESConv", "accuracy"): 0.406, ("ESConv", "macro-F1"): 0.306, ("ESConv", "perplexity"): 2.5,
        ("EQ-Bench 3 rubric", "score"): 61.2,  # v2 has no score in these results
    }  # fmt: skip
    assert "22.6 % (17.6 % to 27.6 %)" in card.text
    assert "not measured: there is no `results/ablation_results.json`; `warmline ablate RUN/config.yaml` would" in card.text
    assert "vllm serve Qwen/Qwen3-8B --enable-lora --lora-modules friend=./adapter --max-lora-rank 8" in card.text
    assert "inherited from EmpatheticDialogues and ESConv" in card.text
    assert "not a therapist" in card.text
    assert "<|im_start|>assistant\n" in card.text
    settings = read_json(tmp_path / "out" / "adapter" / "adapter_config.json")
    assert settings["base_model_name_or_path"] == "Qwen/Qwen3-8B"
    assert load_config(tmp_path / "out" / "config.yaml").model.name == "Qwen/Qwen3-8B"  # where others find the base
    assert "copy of that base" not in card.text


def test_a_base_that_the_run_called_otherwise(on_official_data: RunFolder, tmp_path: Path) -> None:
    write_json(on_official_data.heads_description, {**read_json(on_official_data.heads_description), "base_model": "models/qwen3-4bit"})
    export(on_official_data.path, tmp_path / "out", Options(base="Qwen/Qwen3-8B"), quiet)
    assert "a copy of that base that the run calls `models/qwen3-4bit`" in (tmp_path / "out" / "README.md").read_text()


def test_the_card_of_a_demonstration(exported: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "other"
    assert data["library_name"] == "transformers"
    for absent in ("model-index", "datasets", "base_model"):
        assert absent not in data
    assert "**The base is random numbers** (seed 0)" in card.text
    assert "vllm serve" not in card.text
    check = read_json(exported / EXPORT)["merged"]["check"]
    assert f"{check['tuning_moved']:.3f} of their size" in card.text


def test_the_cards_python_runs(exported: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its lines, one block after another, on this export."""
    blocks = (exported / "README.md").read_text(encoding="utf-8").split("```python\n")[1:]
    assert len(blocks) == 2
    code = "\n".join(block.partition("```")[0] for block in blocks).replace("FOLDER", str(exported)).replace("PATH", str(tiny_model))
    exec(compile(code, "card", "exec"), {})
    assert capsys.readouterr().out.strip()
