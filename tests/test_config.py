import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from warmline.config import RunConfig, _all_keys, dump_config, load_config, parse_config
from warmline.errors import WarmlineError
from warmline.tasks.strategy import StrategySettings

MINIMAL = "name: trial\nmodel:\n  name: nano\n"
CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "trial.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(WarmlineError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_loads(path):
    assert load_config(path).name


def test_defaults_are_the_designs(config_file):
    config = load_config(config_file)
    assert config.loss.model_dump() == {"lm": 1.0, "emotion": 0.2, "strategy": 0.2, "safety": 0.1}
    assert config.data.alpha == 0.5
    assert config.lora is not None
    assert config.lora.dropout == 0


def test_set_changes_one_key_and_only_it(config_file):
    changed = load_config(config_file, ["training.learning_rate=1e-4"])
    assert changed.training.learning_rate == 1e-4
    default = load_config(config_file)
    assert changed.model_copy(update={"training": default.training}) == default


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("training.max_steps=5", "training", "max_steps", 5),
        ("training.max_steps=null", "training", "max_steps", None),
        ("data.system_prompt=Be kind, and brief.", "data", "system_prompt", "Be kind, and brief."),
        ("lora.rank_stabilised=true", "lora", "rank_stabilised", True),
        ("lora.target_modules=[q_proj, v_proj]", "lora", "target_modules", ("q_proj", "v_proj")),
    ],
)
def test_set_reads_yaml_values(config_file, override, section, key, value):
    assert getattr(getattr(load_config(config_file, [override]), section), key) == value


def test_set_keeps_text_that_looks_like_a_number(config_file):
    assert load_config(config_file, ["model.revision='1e10'"]).model.revision == "1e10"


def test_a_rate_without_a_point_is_a_number_in_a_file_too(config_file):
    config_file.write_text(MINIMAL + "training:\n  learning_rate: 1e-4\n", encoding="utf-8")
    assert load_config(config_file).training.learning_rate == 1e-4


@pytest.mark.parametrize("folder", ["/x/data #2", "a: b", "123", "[old]", "@x", "~", "1e5", "null", "'x'"])
def test_a_data_folder_is_taken_as_typed(config_file, folder):
    assert load_config(config_file, data_dir=folder).data.dir == folder


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("model.name=1e5", "1e5"),
        ("model.name=a: b", "a: b"),
        ('model.name="a #b"', "a #b"),
        ("model.name='it''s'", "it's"),
        ("model.name='a' b'", "'a' b'"),
    ],
)
def test_set_takes_text_as_typed_but_for_quotes_around_the_whole(config_file, override, value):
    assert load_config(config_file, [override]).model.name == value


def test_set_may_say_null(config_file):
    assert load_config(config_file, ["data.dir=null", "data.sources.safety.dir=null"]).data.dir is None
    assert load_config(config_file, ["name=null"]).name == "null"


def test_a_name_that_looks_like_a_number_is_text(config_file):
    assert load_config(config_file, ["name=123"]).name == "123"


def test_a_base_in_the_home_folder(config_file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config_file.write_text("name: trial\nmodel: {name: ~/base}\n", encoding="utf-8")
    assert load_config(config_file).model.name == str(tmp_path / "base")
    assert load_config(config_file, ["model.name=~/other"]).model.name == str(tmp_path / "other")


@pytest.mark.parametrize("override", ["output_dir=", "data.dir=", "model.name=", "output_dir=a\0b", "data.dir=a\nb", "model.name=a\udce9"])
def test_what_names_nothing_on_a_disk_is_refused(config_file, override):
    assert "expected a path" in refused(config_file, override)


def test_set_removes_lora(config_file):
    assert load_config(config_file, ["lora=null"]).lora is None


def test_later_set_wins(config_file):
    assert load_config(config_file, ["seed=1", "seed=2"]).seed == 2


def test_set_does_not_write_the_file(config_file):
    load_config(config_file, ["seed=5"])
    assert config_file.read_text(encoding="utf-8") == MINIMAL


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**31 - 1),
    rate=st.floats(1e-9, 1, allow_nan=False),
    alpha=st.floats(0.01, 1),
    prompt=st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40),
    lora=st.booleans(),
)
def test_dump_reads_back_equal(tmp_path_factory, seed, rate, alpha, prompt, lora):
    config = parse_config(
        {
            "name": "trial",
            "seed": seed,
            "model": {"name": "nano"},
            "lora": {"r": 8} if lora else None,
            "training": {"learning_rate": rate},
            "data": {"alpha": alpha, "system_prompt": prompt},
        },
        "made",
    )
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


def test_home_is_expanded(config_file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load_config(config_file, ["output_dir=~/runs"])
    assert config.output_dir == tmp_path / "runs"


def test_config_cannot_be_changed_in_place(config_file):
    with pytest.raises(ValueError, match="frozen"):
        load_config(config_file).seed = 3  # type: ignore[misc]


def test_every_field_says_what_it_means():
    def undocumented(section, prefix=""):
        for name, field in section.model_fields.items():
            below = next(
                (part for part in (field.annotation, *getattr(field.annotation, "__args__", ())) if hasattr(part, "model_fields")), None
            )
            if below is not None:
                assert below.__doc__, prefix + name
                yield from undocumented(below, f"{prefix}{name}.")
            elif not field.description:
                yield prefix + name

    assert list(undocumented(RunConfig)) == []


def test_the_recipe_holds_every_key():
    recipe = next(path for path in CONFIGS if path.name == "training_config.yaml")
    missing = [key for key in _all_keys() if not holds(yaml.safe_load(recipe.read_text(encoding="utf-8")), key)]
    assert missing == []


def holds(content, key):
    for level in key.split("."):
        if not isinstance(content, dict) or level not in content:
            return False
        content = content[level]
    return True


def test_missing_file_is_refused(tmp_path):
    assert str(tmp_path / "none.yaml") in refused(tmp_path / "none.yaml")


def test_folder_is_refused(tmp_path):
    assert str(tmp_path) in refused(tmp_path)


def test_not_utf8_is_refused(config_file):
    config_file.write_bytes(b"name: caf\xe9\n")
    assert str(config_file) in refused(config_file)


@pytest.mark.parametrize("text", ["name: [1\nmodel: {", "a: b: c\n", "\tname: x\n"])
def test_bad_yaml_is_refused_with_its_line(config_file, text):
    config_file.write_text(text, encoding="utf-8")
    message = refused(config_file)
    assert str(config_file) in message
    assert "line " in message


@pytest.mark.parametrize(
    ("more", "key", "line"), [("name: again\n", "name", 4), ("training:\n  epochs: 1\n  max_steps: 5\n  epochs: 2\n", "epochs", 7)]
)
def test_a_key_that_stands_twice_is_refused_with_its_line(config_file, more, key, line):
    config_file.write_text(MINIMAL + more, encoding="utf-8")
    message = refused(config_file)
    assert str(config_file) in message
    assert f"key `{key}` stands twice in its section, line {line}" in message


def test_a_merged_key_may_be_overridden(config_file):
    heads = "heads:\n  emotion: &head {dropout: 0.2, hidden_size: 8}\n  strategy: {<<: *head, dropout: 0.3}\n"
    config_file.write_text(MINIMAL + heads, encoding="utf-8")
    assert load_config(config_file).heads["strategy"] == StrategySettings(hidden_size=8, dropout=0.3)


@pytest.mark.parametrize("text", ["", "just words\n", "- a\n- b\n"])
def test_a_file_without_sections_is_refused(config_file, text):
    config_file.write_text(text, encoding="utf-8")
    assert "expected a mapping" in refused(config_file)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("training.learning_rte=1", "did you mean `learning_rate`?"),
        ("modle.name=x", "did you mean `model`?"),
        ("lora.dropuot=0.1", "did you mean `dropout`?"),
        ("data.sources.esconf.enabled=false", "did you mean `esconv`?"),
        ("learning_rate=1", "did you mean `training.learning_rate`?"),
        ("training.row_tokens=64", "did you mean `data.row_tokens`?"),
        ("data.esconv.enabled=false", "did you mean `data.sources.esconv`?"),
        ("training.qqqqqq=1", "known keys: epochs, max_steps"),
    ],
)
def test_unknown_key_names_the_nearest(config_file, override, hint):
    message = refused(config_file, override)
    assert str(config_file) in message
    assert "unknown key" in message
    assert hint in message


def test_a_key_that_is_no_text_is_refused(config_file):
    config_file.write_text(MINIMAL + "7: seven\n", encoding="utf-8")
    assert str(config_file) in refused(config_file)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("training.epochs=0", "training.epochs"),
        ("training.epochs=soon", "training.epochs"),
        ("training.rows_per_micro_batch=1.5", "training.rows_per_micro_batch"),
        ("data.alpha=0", "data.alpha"),
        ("data.alpha=1.01", "data.alpha"),
        ("data.row_tokens=8", "data.row_tokens"),
        ("data.max_passes=0", "data.max_passes"),
        ("data.max_passes=-1", "data.max_passes"),
        ("loss.emotion=-0.1", "loss.emotion"),
        ("loss.lm=.nan", "loss.lm"),
        ("training.learning_rate=.inf", "training.learning_rate"),
        ("training.epochs=.inf", "training.epochs"),
        ("model.template=llama", "model.template"),
        ("data.sources.goemotions.labels=6", "data.sources.goemotions.labels"),
        ("name=../up", "name"),
        ("name=", "name"),
        ("training=5", "training"),
        ("model=null", "model"),
        ("seed=-1", "seed"),
    ],
)
def test_bad_value_names_its_key(config_file, override, key):
    message = refused(config_file, override)
    assert str(config_file) in message
    assert f"`{key}`" in message


def test_missing_key_is_named(config_file):
    config_file.write_text("name: trial\nmodel: {}\n", encoding="utf-8")
    assert "missing key `model.name`" in refused(config_file)


def test_further_problems_are_counted(config_file):
    assert "(and 1 more)" in refused(config_file, "seed=-1", "data.alpha=2")


@pytest.mark.parametrize("override", ["seed", "=1", "", "name.first=x", "seed=[1", "lora={r: 8, r: 4}"])
def test_bad_set_is_refused(config_file, override):
    assert f"--set {override}" in refused(config_file, override)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["data.sources.esconv.objectives=[lm, joy]"], "data.sources.esconv.objectives: `joy` is none of what it can train: lm, strategy"),
        (["data.sources.empathetic_dialogues.objectives=[lm, emotion]"], "`emotion` is none of what it can train: lm"),
        (["data.sources.goemotions.objectives=[emotion, strategy]"], "`strategy` is none of what it can train: emotion"),
        (["data.sources.safety.objectives=[safety, emotion]"], "`emotion` is none of what it can train: lm, safety"),
        (["data.sources.goemotions.objectives=[emotion, lm]"], "`lm` is none of what it can train: emotion"),
        (["data.sources.esconv.objectives=[]"], "data.sources.esconv.objectives: empty"),
        (["heads.strategy=null"], "heads.strategy: null, but data.sources.esconv.objectives trains it"),
        (["validation.metric=joy"], "validation.metric: `joy` is none of total, flawed, lm, emotion, strategy, safety"),
        (
            ["heads.strategy=null", "data.sources.esconv.objectives=[lm]", "validation.metric=strategy"],
            "validation.metric: `strategy` is none of total, flawed, lm, emotion, safety",
        ),
        (
            [f"data.sources.{name}.enabled=false" for name in ("empathetic_dialogues", "esconv", "goemotions", "safety")],
            "every source is disabled",
        ),
        (["lora=null", "model.load_in_4bit=true"], "cannot train 4-bit weights"),
        (["data.sources.goemotions.labels=28", "heads.emotion.class_weights=0.25"], "28 labels have thresholds"),
    ],
)
def test_what_does_not_fit_together_is_refused(config_file, overrides, says):
    assert says in refused(config_file, *overrides)


def test_a_run_may_go_without_a_head(config_file):
    config = load_config(config_file, ["heads.strategy=null", "data.sources.esconv.objectives=[lm]"])
    assert [task.name for task in config.tasks] == ["emotion"]
    assert config.objectives == ("lm", "emotion", "safety")


OLD = """
model: {name: nano, bidirectional: false}
data: {sources: {empathetic_dialogues: {situation_as_emotion: false}}}
heads:
  layer: null
  emotion: {pooling: last, final_states: false, label_smoothing: 0.0, refit: null, ensemble: null, thresholds: null, dropout: 0.2}
  strategy: {final_states: false, label_smoothing: 0.0, refit: null, ensemble: null, thresholds: null}
distill: {teachers: [], share: 0.7}
"""


def test_retired_settings_that_changed_nothing_are_dropped(config_file):
    expected = load_config(config_file, ["heads.emotion.dropout=0.2"])
    config_file.write_text("name: trial" + OLD, encoding="utf-8")
    assert load_config(config_file) == load_config(config_file, ["heads.layer=null", "distill.teachers=[]", "distill.share=1"]) == expected


@pytest.mark.parametrize(
    "override",
    [
        "heads.layer=10", "heads.emotion.pooling=attention", "heads.strategy.final_states=true", "heads.emotion.refit=0.01",
        "heads.strategy.ensemble=8", "heads.strategy.thresholds=2", "heads.emotion.label_smoothing=0.1", "model.bidirectional=true",
        "distill.teachers=[runs/a]", "data.sources.empathetic_dialogues.situation_as_emotion=true",
    ],
)  # fmt: skip
def test_retired_settings_that_changed_a_run_are_refused(config_file, override):
    key, _, value = override.partition("=")
    content: dict = yaml.safe_load(MINIMAL)
    *levels, last = key.split(".")
    section = content
    for level in levels:
        section = section.setdefault(level, {})
    section[last] = yaml.safe_load(value)
    by_set = refused(config_file, override)
    config_file.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert by_set == refused(config_file)
    assert f"{config_file}: `{key}`: retired, since runs showed no gain from it (research/LOG.md says what was measured)" in by_set


def test_a_value_with_a_line_end_of_its_own_is_refused_on_one_line(config_file):
    assert "`\\x1e` is none of total" in refused(config_file, "validation.metric=\x1e")


def test_a_retired_setting_with_a_number_too_long_to_print(config_file):
    assert "got a number too long to print" in refused(config_file, f"heads.layer=0x{'f' * 4000}")


def test_dump_is_plain_yaml(config_file):
    content = yaml.safe_load(dump_config(load_config(config_file)))
    assert content["model"]["name"] == "nano"
    assert math.isclose(content["training"]["learning_rate"], 2e-4)


@pytest.mark.parametrize(("given", "exponent"), [("none", 0), ("sqrt", 0.5), ("balanced", 1), ("0.25", 0.25)])
def test_class_weights_have_names_too(config_file, given, exponent):
    assert load_config(config_file, [f"heads.strategy.class_weights={given}"]).heads["strategy"].class_weights == exponent
