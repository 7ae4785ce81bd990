"""A fuzzer over the OpenAPI schema: no 5xx, nothing undocumented, no hang.

`WARMLINE_FUZZ_EXAMPLES=1000 pytest tests/serving/test_schema.py` looks longer.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.core import NOT_SET

EXAMPLES = int(os.environ.get("WARMLINE_FUZZ_EXAMPLES", "12"))
SECONDS = 20
PATHS = {
    "/v1/chat/completions": "POST",
    "/v1/models": "GET",
    "/v1/models/{model}": "GET",
    "/metrics": "GET",
    "/about": "GET",
    "/health": "GET",
}


@pytest.fixture(scope="module")
def api(url: str) -> Any:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


def test_every_operation_is_fuzzed(api: Any) -> None:
    assert {found.ok().path: found.ok().method.upper() for found in api.get_all_operations()} == PATHS


@pytest.mark.slow(8)
@pytest.mark.parametrize("path", PATHS)
def test_what_the_schema_allows_is_answered(api: Any, path: str) -> None:
    """Every check of schemathesis, after what no schema can say: the last turn is the user's, and the model is one of two."""

    def allowed(case: Any) -> None:
        if case.body is not NOT_SET:
            case.body["messages"].append({"role": "user", "content": "Hello"})
            case.body.pop("model", None)
            case.body["max_tokens"] = min(case.body.get("max_tokens") or 8, 8)
            case.body.pop("max_completion_tokens", None)
        case.call_and_validate(timeout=SECONDS)

    fuzz(api[path][PATHS[path]], GenerationMode.POSITIVE, allowed)


@pytest.mark.slow(8)
def test_what_the_schema_forbids_is_refused(api: Any) -> None:
    fuzz(api["/v1/chat/completions"]["POST"], GenerationMode.NEGATIVE, lambda case: case.call_and_validate(timeout=SECONDS))


def fuzz(operation: Any, mode: GenerationMode, check: Callable[[Any], Any]) -> None:
    """`check` on examples, the same ones each time."""

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        check(case)

    one()
