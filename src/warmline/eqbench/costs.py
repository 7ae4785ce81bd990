"""What judging will cost, said before it starts."""

from typing import NamedTuple

from warmline.eqbench.suites import Suite
from warmline.errors import WarmlineError

CHARACTERS_A_TOKEN = 4.0
"""Of English prose, roughly."""
JUDGE_ANSWER_TOKENS = 750
"""Mean length of the 6,362 pairwise answers in the leaderboard file of 2025-04-28, at four characters a token."""
WORDS_ASKED, TOKENS_A_WORD = {"turn": 1000, "debrief": 800}, 1.35
"""What the prompts ask the models for; a model that writes less costs less."""


class Prices(NamedTuple):
    """Of the judge, per million tokens, in whatever currency.

    Attributes:
        prompt: Of a token that is sent.
        completion: Of a token that comes back.
    """

    prompt: float
    completion: float

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Of so many tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class Estimate(NamedTuple):
    """Calls and tokens to come.

    Attributes:
        model_calls: Replies of the models under test.
        judge_calls: Answers of the judge, if each is usable at once.
        prompt_tokens: Sent to the judge.
        completion_tokens: Back from it.
    """

    model_calls: int
    judge_calls: int
    prompt_tokens: int
    completion_tokens: int

    def cost(self, prices: Prices | None) -> float | None:
        """None without prices."""
        return prices.cost(self.prompt_tokens, self.completion_tokens) if prices else None


def estimate_before(suite: Suite, iterations: int, reply_tokens: int) -> Estimate:
    """The whole run, before a single reply exists.

    Args:
        suite: What is played.
        iterations: Times.
        reply_tokens: Longest reply of the models, if shorter than what the prompts ask for.
    """
    tokens = 0.0
    for scenario in suite.scenarios:
        form = suite.form(scenario)
        turns = len(scenario.prompts)
        reply = min(WORDS_ASKED["turn"] * TOKENS_A_WORD, reply_tokens) * turns
        reply += min(WORDS_ASKED["debrief"] * TOKENS_A_WORD, reply_tokens) * scenario.debriefed
        asked = (sum(map(len, scenario.prompts)) + len(form.master) * turns) / CHARACTERS_A_TOKEN
        tokens += 2 * (len(form.rubric) / CHARACTERS_A_TOKEN + asked + reply)  # base and tuned
        tokens += 2 * (len(form.pairwise + scenario.notes) / CHARACTERS_A_TOKEN + 2 * (asked + reply))  # both orders
    calls = 4 * len(suite.scenarios) * iterations
    models = 2 * (suite.turns + suite.debriefs) * iterations
    return Estimate(models, calls, round(tokens * iterations), calls * JUDGE_ANSWER_TOKENS)


def estimate_prompts(prompts: list[str]) -> Estimate:
    """What is left to judge, once the prompts are known."""
    return Estimate(0, len(prompts), round(sum(map(len, prompts)) / CHARACTERS_A_TOKEN), len(prompts) * JUDGE_ANSWER_TOKENS)


def check_cost(estimate: Estimate, prices: Prices | None, max_cost: float | None) -> None:
    """Refuse to start what is likely to cost more than allowed.

    Raises:
        WarmlineError: above the limit, or a limit without prices.
    """
    if max_cost is None:
        return
    cost = estimate.cost(prices)
    if cost is None:
        raise WarmlineError("--max-cost: the judge's prices are not known; give --price-in and --price-out, per million tokens")
    if cost > max_cost:
        raise WarmlineError(
            f"--max-cost {max_cost:g}: {estimate.judge_calls} judge calls are likely to cost {cost:.2f}; raise the limit or take fewer "
            "--iterations"
        )
