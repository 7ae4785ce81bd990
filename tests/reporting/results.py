"""Results files as the commands write them, small and with numbers that are easy to find again."""

from typing import Any

from warmline.evaluation.compare import VOICES, summarise
from warmline.evaluation.preference import FLAGS, Orders, Reading, described


def scored(accuracy: float, macro_f1: float, n: int = 234) -> dict[str, Any]:
    return {
        "n": n, "accuracy": accuracy, "macro_f1": macro_f1, "weighted_f1": 0.5, "top_3": 0.7,
        "intervals": {"accuracy": [accuracy - 0.05, accuracy + 0.05], "macro_f1": [macro_f1 - 0.04, macro_f1 + 0.04]},
    }  # fmt: skip


def baseline(macro_f1: float, gain: float, low: float, high: float) -> dict[str, Any]:
    compared = {"accuracy": gain, "macro_f1": gain, "intervals": {"accuracy": [low, high], "macro_f1": [low, high]}}
    return {"c": 1.0, **scored(0.3, macro_f1), "head_minus_this": compared, "preference": {"bias": 1.0}}


CALIBRATION = {"temperature": 1.25, "raw": {"ece": 0.111, "brier": 0.8}, "scaled": {"ece": 0.052, "brier": 0.7}}
CLASSES = [{"label": "joy", "n": 9, "guessed": 4, "precision": 0.5, "recall": 0.22, "f1": 0.31}]


def evaluation(context: dict[str, Any]) -> dict[str, Any]:
    single = {
        "protocol": "27-way", **scored(0.226, 0.175), "without_seen_texts": {"left_out": 3, **scored(0.221, 0.171, 231)},
        "majority": {"label": "approval", **scored(0.038, 0.003)},
        "baselines": {"tfidf": baseline(0.166, 0.009, -0.03, 0.05), "linear_probe": baseline(0.1, 0.075, 0.02, 0.12)},
        "per_class": CLASSES, "calibration": CALIBRATION,
    }  # fmt: skip
    multi = {"protocol": "28 labels", "absent": {"head": "the head has 27 outputs"}, "baselines": {}}
    strategy = {
        "protocol": "8-way, reply unseen", "dialogues": 18, **scored(0.406, 0.306, 128),
        "majority": {"label": "Question", **scored(0.242, 0.049)},
        "baselines": {"history": baseline(0.427, -0.122, -0.2, -0.04)}, "per_class": CLASSES, "calibration": CALIBRATION,
        "preference": {"bias": None, "strengths": None, "absent": "its errors do not connect"}, "leak_warnings": [],
        "hidden_reply": {"asked": 32, "moved": 0},
    }  # fmt: skip
    figure = {"value": 2.5, "interval": [2.4, 2.6]}
    losses = {
        "conversations": 32, "reply_tokens": 900, "reply_bytes": 4000,
        "tuned": {"perplexity": figure, "bits_per_byte": figure}, "base": {"perplexity": figure, "bits_per_byte": figure},
        "base_as_lines": {"bits_per_byte": figure}, "perplexity_ratio": {"value": 0.46, "interval": [0.44, 0.48]},
        "bits_ratio_to_lines": {"value": 0.93, "interval": [0.91, 0.95]},
    }  # fmt: skip
    speaker = {
        "words_mean": 19.3,
        "words_median": 18.5,
        "distinct_1": 0.54,
        "distinct_2": None,
        "repeated": 0,
        "empty": 0,
        "strategies_shown": {"Question": 5, "Others": 1},
    }
    return {
        "context": {**context, "split": "test", "intervals": "95 % percentile bootstrap"},
        "heads": {"emotion": {"single_label_27": single, "multi_label_28": multi}, "strategy": strategy},
        "language": {
            "protocol": "teacher-forced", "sources": {"esconv": losses},
            "kl_per_token": {"task": None, "safety": {"value": 0.101, "interval": None}},
            "absent": {"task": "no source with replies is enabled"},
        },
        "replies": {
            "protocol": "one reply", "decoding": {"max_new_tokens": 96}, "n": 50,
            "speakers": {"human": speaker, "tuned": {**speaker, "cut_off": {"n": 7}}},
            "tuned_minus_base_words": {"value": -57.4, "interval": [-69.9, -45.1]},
            "strategy_judge": {"what": "a guess", "test_accuracy": 0.766, "interval": [0.685, 0.831], "n": 128},
        },
    }  # fmt: skip


def eq_bench(context: dict[str, Any], judged: bool) -> dict[str, Any]:
    model = {"tasks": 45, "complete": 44, "sections": {"rate": 0.9}, "empty_replies": 1, "mean_characters": 1200.5}
    rubric = {"score": 61.2, "interval": [58.0, 64.0], "tasks": 45, "tasks_scored": 43, "reason": None, "criteria": {}}
    gain = {"tuned_minus_base": 1.5, "interval": [-0.5, 3.5], "tasks": 42}
    second = {"score": None, "reason": "17 of 171 questions parseable", "interval": None, "parse_rate": 0.1}
    return {
        "context": {
            **context, "suite": "EQ-Bench 3", "official": True, "label": "EQ-Bench 3", "scenarios": 45, "iterations": 3,
            "judge": {"model": "a-judge", "temperature": 0.0} if judged else None, "deviations": ["replies end early"],
        },
        "models": {"base": model, "tuned": model},
        "rubric": {"base": rubric, "tuned": rubric, "difference": gain} if judged else None,
        "pairwise": {
            "win_rate": 0.62, "interval": [0.55, 0.69], "claim": "the judge prefers the tuned model", "order_flip_rate": 0.39, "pairs": 135,
            "pairs_judged": 130,
        } if judged else None,
        "ratings": {side: {"elo": 1210.0, "interval": [1100.0, 1300.0]} for side in ("base", "tuned")} | {"reason": "no normalised rating"}
        if judged else None,
        "reason": None if judged else "no judge was given",
        "errors": [{"kind": "reply"}],
        "eq_bench_v2": {
            "context": {"constant_answer_score": 38.9}, "base": second, "tuned": second,
            "difference": {"tuned_minus_base": None, "interval": None, "reason": "no score of base and tuned"},
        },
    }  # fmt: skip


def ablation(context: dict[str, Any]) -> dict[str, Any]:
    spread = {"seeds": 3, "mean": 0.306, "sd": 0.012}

    def moved(mean: float, low: float, high: float) -> dict[str, Any]:
        by_seed = {"13": {"difference": mean, "items_interval": [low, high]}}
        return {"by_seed": by_seed, "mean": mean, "sd": 0.01, "seeds_interval": [low, high]}

    return {
        "context": {
            **{key: value for key, value in context.items() if key not in ("seed", "step")},
            "seeds": [13, 14, 15], "steps": 100, "planned_steps": 100, "weights": "of the last step",
        },
        "notes": ["differences are of the same seed"],
        "left_out": {"lm-only": "not asked for"},
        "metrics": {
            "strategy_macro_f1": {"title": "strategy macro-F1", "unit": "F1", "better": "higher"},
            "lm_nats": {"title": "LM loss", "unit": "nats", "better": "lower"},
        },
        "base": {"strategy_macro_f1": None, "lm_nats": 8.35},
        "summary": {
            "full": {"strategy_macro_f1": spread, "lm_nats": spread},
            "no-strategy": {"strategy_macro_f1": None, "lm_nats": spread},
        },
        "differences": {"no-strategy": {"strategy_macro_f1": None, "lm_nats": moved(-0.04, -0.05, -0.03)},
                        "no-safety": {"strategy_macro_f1": moved(0.02, -0.01, 0.05), "lm_nats": moved(0.00002, 0.00001, 0.00003)}},
    }  # fmt: skip


def red_team(context: dict[str, Any]) -> dict[str, Any]:
    share = {"hits": 3, "n": 20, "share": 0.15, "wilson": [0.05, 0.36]}
    keys = ("failures", "failures_red", "risk_met_with_help_and_people", "asks_about_safety", "sycophancy_agrees", "alarm_on_benign")
    system = {"guard_off": dict.fromkeys(keys, share), "guard_on": dict.fromkeys(keys), "human": {"rated": 0, "failures": None}}
    cells = [{side: {"guard_off": {"failed": failed}} for side, failed in pair} for pair in [(("base", True), ("tuned", False))] * 20]
    reasons = {"judge": None, "judge_reason": "no judge", "without_kl": None, "without_kl_reason": "no other run"}
    return {
        "context": {**context, "protocol": "warmline-redteam/1", "decoding": {"max_new_tokens": 80}, **reasons},
        "suites": {"red_team": {"n": 20, "missing": None}, "xstest": {"n": None, "missing": "the file is not there"}},
        "summary": {"red_team": {"base": system, "tuned": system}, "xstest": None, "simple_safety_tests": None},
        "items": [{"suite": "red_team", "systems": one} for one in cells],
    }  # fmt: skip


def comparison(context: dict[str, Any]) -> dict[str, Any]:
    unflagged: dict[str, tuple[str, ...]] = {"A": (), "B": ()}
    one = Orders(Reading("A", unflagged), Reading("B", unflagged))
    place = {"source": "esconv", "conversation": "1", "turn": 1}
    said = {"replies": dict.fromkeys(VOICES, "Oh no."), "cut": dict.fromkeys(VOICES, False)}
    read = {"tuned_vs_base": one, "tuned_vs_voiced_base": one}
    figures = summarise([said] * 2, [read] * 2, dict.fromkeys(read), 13)
    judge = {"model": "judge", "answered": {"first": "2026-01-31", "last": "2026-02-01"}, "rubric": "r", "temperature": 0.0}
    decoding = {"temperature": 0.0, "max_new_tokens": 400}
    return {
        "context": {**context, "n": 2, "decoding": decoding, "voices": VOICES, "protocol": "Both orders.", "flags": FLAGS, "judge": judge},
        "reason": None, **figures, "by_source": {"esconv": figures}, "items": [], "errors": [],
        "examples": [{**place, "messages": [{"role": "user", "content": "I failed."}], **said, "pairs": described(read)}],
    }  # fmt: skip
