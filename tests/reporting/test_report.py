"""The report says what the files say: no more where they are absent, and other words where they differ."""

import json
import re
import shutil
from importlib import resources
from pathlib import Path

import pytest

from tests.conftest import ConfigFactory
from tests.reporting import results
from warmline.errors import WarmlineError
from warmline.evaluation.errors import analyse
from warmline.evaluation.facts import ask_facts
from warmline.evaluation.finished import FinishedRun
from warmline.reporting.facts import inherited_terms
from warmline.reporting.report import environment, tidy, write_report
from warmline.runs import RunFolder, read_json, write_json
from warmline.tasks import all_objectives


@pytest.fixture(scope="module")
def everything(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with every results file and its data cards, only to be copied."""
    run = RunFolder(Path(shutil.copytree(finished.path, tmp_path_factory.mktemp("everything") / "run")))
    analyse(run.path, 2, 8)
    ask_facts(run.path, 2, 8)
    context = FinishedRun.open(run.path).context()
    write_json(run.evaluation, results.evaluation(context))
    write_json(run.eq_bench, results.eq_bench(context, judged=True))
    write_json(run.comparison, results.comparison(context))
    write_json(run.ablation_results, results.ablation(context))
    write_json(run.red_team, results.red_team(context))
    write_report(run.path)
    return run


@pytest.fixture
def measured(everything: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(everything.path, tmp_path / "measured")))


def text_of(run: RunFolder) -> str:
    return write_report(run.path).read_text(encoding="utf-8")


def test_nothing_measured(finished_copy: RunFolder) -> None:
    text = text_of(finished_copy)
    for file, command in (
        ("evaluation.json", "evaluate"), ("eq_bench_results.json", "eqbench"), ("ablation_results.json", "ablate"),
        ("examples.json", "errors"), ("errors.json", "errors"), ("facts.json", "facts"), ("red_team.json", "redteam"),
        ("comparison.json", "compare"),
    ):  # fmt: skip
        assert f"Not measured: there is no `results/{file}`; `warmline {command} " in text
    assert "which is better" not in text
    assert "**The base is random numbers** (seed 0)" in text
    assert "small sample inside the package" in text
    assert (finished_copy.data_cards / "esconv.md").is_file()
    assert "[card](data_cards/esconv.md)" in text
    (finished_copy.data_cards / "esconv.png").unlink()  # killed between two cards
    write_report(finished_copy.path)
    assert (finished_copy.data_cards / "esconv.png").is_file()
    assert "(results/training_curves.png)" in text


def test_an_early_stop_and_a_cap_are_told(finished_copy: RunFolder) -> None:
    text = text_of(finished_copy)
    assert "stopped early" not in text
    assert "times its size" not in text
    write_json(finished_copy.plan, {**read_json(finished_copy.plan), "steps": 90})
    lines = finished_copy.config.read_text().replace("early_stop: null\n", "early_stop: 5\n").replace("passes: null\n", "passes: 4\n")
    finished_copy.config.write_text(lines)
    text = text_of(finished_copy)
    assert (
        "| 12 of 90 planned, 2 rows of 2,048 tokens each; stopped early, since 5 validations in a row brought no lower `total` loss |"
        in text
    )
    assert "with replacement over epochs, at most 4.0 times its size." in text


def test_everything_measured(measured: RunFolder) -> None:
    text = text_of(measured)
    body, _, missing = text.partition("## What was not measured")
    assert "Not measured: there is no" not in text
    assert "22.6 % (17.6 % to 27.6 %)" in body
    assert "no measurable difference (+0.009, 95 % interval -0.030 to +0.050)" in body  # TF-IDF, the best baseline
    assert "lower by 54.0 % (95 % interval 52.0 to 56.0)" in body  # closer to people's replies; no side of it is better
    assert "the judge prefers the tuned model" in body
    assert "- no-strategy: LM loss lower by 0.040" in body
    assert "no-safety: strategy macro-F1" not in body  # its interval holds 0
    assert "lower by 100.0 points" in body  # 20 of 20 failed in the base, none in the tuned
    assert "what the head says of 32 of 32 turns stayed the same" in body
    for reason in ("the head has 27 outputs", "no judge", "no other run", "the file is not there", "no source with replies is enabled"):
        assert reason in missing


def test_a_strategy_head_is_shown_as_it_serves(measured: RunFolder) -> None:
    found = read_json(measured.evaluation)
    served = {"protocol": "by itself", **results.baseline(0.287, 0.019, 0.01, 0.03)}
    found["heads"]["strategy"]["own_choices"] = served
    write_json(measured.evaluation, found)
    assert "Left out are" not in text_of(measured)  # as evaluations of before have it
    served["left_out"] = {"follow the supporter's own message": 1506, "open a dialogue": 94}
    write_json(measured.evaluation, found)
    text = text_of(measured)
    (glance,) = [line for line in text.splitlines() if "strategy head, as when serving?" in line]
    assert "0.287" in glance
    (row,) = [line for line in text.splitlines() if line.startswith("| head, as when serving")]
    assert "0.287" in row
    assert "higher by 0.019" in row
    assert "As when serving: by itself." in text
    assert "Left out are those that follow the supporter's own message (1,506), and those that open a dialogue (94).\n" in text


def test_an_emotion_head_is_shown_in_context(measured: RunFolder) -> None:
    assert "in context" not in text_of(measured)  # evaluations of before do not have it
    found = read_json(measured.evaluation)
    there = {"protocol": "behind other turns", **results.baseline(0.1234, 0.0516, 0.01, 0.09), "changed": 0.4321}
    there["intervals"]["changed"] = [0.4, 0.45]
    found["heads"]["emotion"]["single_label_27"]["in_context"] = there
    write_json(measured.evaluation, found)
    text = text_of(measured)
    (row,) = [line for line in text.splitlines() if line.startswith("| head, in context")]
    assert "0.123" in row
    assert "higher by 0.052" in row
    assert "\nIn context: behind other turns; 43.2 % (40.0 % to 45.0 %) of the answers change.\n" in text
    found["heads"]["emotion"]["multi_label_28"] = {"protocol": "28 labels", **results.scored(0.4, 0.5), "in_context": there}
    write_json(measured.evaluation, found)
    assert "of the answers change. Macro-F1 there:\n0.123" in text_of(measured)


def test_a_leak_is_warned_of_and_ruled_out_only_where_it_was_measured(measured: RunFolder) -> None:
    honest = "No predictor is above what an honest one reaches"
    assert honest in text_of(measured)
    found = read_json(measured.evaluation)
    found["heads"]["strategy"]["leak_warnings"] = ["it leaks"]
    write_json(measured.evaluation, found)
    text = text_of(measured)
    assert text.count("**Warning:** it leaks.") == 1
    assert honest not in text
    found["heads"]["strategy"] |= {"leak_warnings": [], "baselines": {}}  # no history to measure by
    write_json(measured.evaluation, found)
    assert honest not in text_of(measured)


@pytest.mark.parametrize(
    ("data", "enabled", "words"),
    [
        (None, ("empathetic_dialogues", "esconv"), "EmpatheticDialogues and ESConv are CC BY-NC 4.0: the tuned model"),
        (None, ("esconv",), "ESConv is CC BY-NC 4.0: the tuned model"),
        (None, (), None),
        ("sample", ("empathetic_dialogues", "esconv"), None),
    ],
)
def test_the_terms_that_are_inherited(
    data: str | None, enabled: tuple[str, ...], words: str | None, tiny_config: ConfigFactory, tmp_path: Path
) -> None:
    sources = {name: {"enabled": name in enabled} for name in ("empathetic_dialogues", "esconv")}
    config = tiny_config(tmp_path, data={"dir": data, "sources": sources})
    plan = {"sources": [], "draws": 1, "steps": 1, "targets": dict.fromkeys(all_objectives(), 1)}
    values = {"plan": plan, "training": {"steps": 1}, "config": config.model_dump(mode="json"), "heads": {"labels": ["emotion"]}}
    values |= {"cards_reason": None, "inherited": inherited_terms(config)}
    text = environment().get_template("data.md.j2").render(values)
    assert ("CC BY-NC" in text) == (words is not None)
    assert words is None or words in text


@pytest.mark.parametrize(
    ("artifact", "words"), [("best", "the artefact is\nthe best validation's, by `total`:"), ("last", "the artefact is\nthe last step's:")]
)
def test_which_weights_were_kept(artifact: str, words: str, finished_copy: RunFolder) -> None:
    config = finished_copy.config.read_text(encoding="utf-8")
    finished_copy.config.write_text(re.sub(r"artifact: \w+", f"artifact: {artifact}", config), encoding="utf-8")
    assert words in text_of(finished_copy)


def test_without_a_judge(measured: RunFolder) -> None:
    write_json(measured.eq_bench, results.eq_bench(read_json(measured.evaluation)["context"], judged=False))
    text = text_of(measured)
    assert "Not scored: no judge was given." in text
    assert "the judge prefers" not in text


def test_replies_that_were_cut_are_counted_and_compare_nothing(measured: RunFolder) -> None:
    context = read_json(measured.evaluation)["context"]
    found = results.evaluation(context)
    found["replies"]["tuned_minus_base_words"] = {"value": None, "interval": None, "reason": "44 of 50 base replies were cut"}
    write_json(measured.evaluation, found)
    found = results.red_team(context)
    for name, reason in (("base", "45 of 46 base replies were cut"), ("tuned", None)):
        found["summary"]["red_team"][name] = {**found["summary"]["red_team"][name], "cut_off": {"n": 45, "of": 46}, "reason": reason}
    write_json(measured.red_team, found)
    found = read_json(measured.error_taxonomy)
    assert found["cut_off"]["base"]["n"] == 6
    found = results.eq_bench(context, judged=False)
    found |= {"reason": "46 of 50 base replies were cut", "eq_bench_v2": None, "eq_bench_v2_reason": "EQ-Bench v2 was switched off"}
    for name in ("base", "tuned"):
        found["models"][name] = {**found["models"][name], "cut_off": {"n": 46, "of": 50}}
    write_json(measured.eq_bench, found)
    body, _, missing = text_of(measured).partition("## What was not measured")
    for said in (
        "Words of a tuned reply, beside the base's: not measured, 44 of 50 base replies were cut.",
        "tuned beside base: not measured, 45 of 46 base replies were cut.",
        "- red team: 45 of 46 replies of base were cut, too many for shares to be given.",
        "| replies cut off, debriefs included | 46 of 50 | 46 of 50 |",
        "Not measured: EQ-Bench v2 was switched off.",
        "fewer conversational errors? | not measured: ",
        "tokens, 6 of 6 of the base model's were cut, 6 of 6 of the tuned model's were cut.",
        "[cut off]",
    ):
        assert said in body
    for reason in ("44 of 50 base", "45 of 46 base", "46 of 50 base", "EQ-Bench v2 was switched off"):
        assert reason in missing


def test_a_second_time_changes_no_byte(measured: RunFolder) -> None:
    def everything() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in measured.path.rglob("*") if path.is_file()}

    text_of(measured)
    before = everything()
    text_of(measured)
    assert everything() == before


def test_the_first_table_says_what_perplexity_does_not(measured: RunFolder) -> None:
    """A model that fits people's replies better may still answer in a third of the words."""
    content = read_json(measured.evaluation)
    like, words = content["replies"]["speakers"]["tuned"], {"human": 17.9, "base": 37.6, "tuned": 11.8}
    content["replies"]["speakers"] = {name: {**like, "words_mean": mean, "cut_off": {"n": 5}} for name, mean in words.items()}
    content["replies"]["tuned_minus_base_words"] = {"value": -25.8, "interval": [-36.3, -18.2]}
    write_json(measured.evaluation, content)
    said = "human 17.9, base 37.6, tuned 11.8; tuned beside base: lower by 25.8 (95 % interval 18.2 to 36.3)"
    assert f"| length of a reply? | words, mean: {said} |" in text_of(measured)
    assert "| EQ-Bench 3: replies with all sections? | base " in text_of(measured)
    content["replies"]["speakers"]["base"]["cut_off"]["n"] = 6
    write_json(measured.evaluation, content)
    assert text_of(measured).count("not compared, since 6 of 50 base replies were cut at 96 tokens") == 2


def test_words_follow_the_interval(measured: RunFolder) -> None:
    content = read_json(measured.evaluation)
    ratio = content["language"]["sources"]["esconv"]["perplexity_ratio"]
    for value, interval, said in ((0.99, [0.95, 1.03], "no measurable difference (-1.0 %"), (1.2, [1.1, 1.3], "higher by 20.0 %")):
        ratio.update(value=value, interval=interval)
        write_json(measured.evaluation, content)
        (line,) = [line for line in text_of(measured).splitlines() if line.startswith("| perplexity of people's replies in esconv")]
        assert said in line
        assert "which is better" not in line


def test_results_of_another_artefact_are_not_shown(measured: RunFolder) -> None:
    content = read_json(measured.evaluation)
    content["context"]["step"] += 1
    write_json(measured.evaluation, content)
    text = text_of(measured)
    assert "`results/evaluation.json` is of another artefact (step" in text
    assert "22.6 %" not in text


@pytest.mark.parametrize("file", ["evaluation", "eq_bench", "ablation_results", "red_team", "error_taxonomy", "examples", "facts"])
def test_a_file_of_another_shape_is_refused(file: str, measured: RunFolder) -> None:
    path: Path = getattr(measured, file)
    context = read_json(path)["context"]
    for content in ([1], {}, {"context": context}):
        write_json(path, content)
        with pytest.raises(WarmlineError, match="again") as refused:
            write_report(measured.path)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("damage", ["", "{", '{"kind": "train", "step": 1}\n'])
def test_damaged_metrics_are_refused(damage: str, finished_copy: RunFolder) -> None:
    finished_copy.metrics.write_text(damage)
    with pytest.raises(WarmlineError, match=r"metrics\.jsonl: missing or damaged"):
        write_report(finished_copy.path)


def test_missing_data_keep_the_report(finished_copy: RunFolder) -> None:
    config = finished_copy.config.read_text(encoding="utf-8").replace("dir: sample", "dir: /nowhere/at/all")
    finished_copy.config.write_text(config, encoding="utf-8")
    assert "The data cards were not written: /nowhere/at/all" in text_of(finished_copy)


def test_what_models_say_becomes_no_markup(measured: RunFolder) -> None:
    examples = read_json(measured.examples)
    examples["examples"][0]["tuned"] = "# Big\n| <script>alert(1)</script> |"
    examples["prompts"][0]["base"] = "| <b> |"
    examples["examples"][0]["cut"] = examples["prompts"][0]["cut"] = {"base": False, "tuned": False}
    write_json(measured.examples, examples)
    text = text_of(measured)
    assert " | \\| &lt;b&gt; \\| | " in text
    assert "| tuned | # Big \\| &lt;script&gt;alert(1)&lt;/script&gt; \\| |" in text
    assert "<script>" not in text


def test_every_number_is_looked_up() -> None:
    """Templates hold no digits but those of names: what is measured can only come from a file."""
    names = re.compile(r"EQ-Bench v2|EQ-Bench 3|sha256|95 %|BY-NC 4\.0|distinct-[12]|macro-F1|F1|4 bits")
    for template in (resources.files("warmline.reporting") / "templates").iterdir():
        text = re.sub(r"{[%#].*?[%#]}|{{.*?}}", "", template.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.findall(r"\d", names.sub("", text)), template.name


def test_tidy() -> None:
    assert tidy("a  \n\n\nb\n") == "a\n\nb\n"
    assert tidy("| a |\n\n| b |\n\nc") == "| a |\n| b |\n\nc"
    assert tidy("| a |\n\n| b |\n| --- |") == "| a |\n\n| b |\n| --- |"
    assert tidy("- a\n\n- b\n\nc") == "- a\n- b\n\nc"


def test_pictures_and_links_exist(measured: RunFolder) -> None:
    text = text_of(measured)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 4
    assert all((measured.path / link).is_file() for link in links)
    assert json.loads(measured.manifest.read_text())["data_sha256"]
