"""What one part of the package takes for a secret, all parts do."""

from __future__ import annotations

from collections.abc import Callable

import dspy
import pandas as pd
import pytest

from oneturn.config import AgentConfig
from oneturn.conformance import check_stream
from oneturn.core.secrets import KINDS, UNCERTAIN
from oneturn.datasets.redaction import Redaction
from oneturn.errors import ConfigError, ProgramError
from oneturn.evaluation.report.rows import records
from oneturn.evaluation.row import judge_row
from oneturn.programs.state import refuse_secrets_in
from oneturn.tools.errors import to_lm_error

SECRETS = {
    "environment": "plum/4711/orchard",
    "private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg",
    "anthropic": "sk-ant-api03-a1b2c3d4e5f6g7h8i9j0",
    "stripe": "sk_live_a1b2c3d4e5f6g7h8i9j0k1l2",
    "openai": "sk-proj-a1b2c3d4e5f6g7h8i9j0",
    "databricks": "dapi0123456789abcdef0123456789abcdef",
    "github": "ghp_a1b2c3d4e5f6g7h8i9j0",
    "gitlab": "glpat-a1b2c3d4e5f6g7h8i9j0",
    "slack": "xoxb-123456789012-a1b2c3d4e5f6g7h8",
    "npm": "npm_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8",
    "pypi": "pypi-AgEIcHlwaS5vcmcCJGE4ZTQyYjI0",
    "huggingface": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "groq": "gsk_a1b2c3d4e5f6g7h8i9j0k1l2",
    "aws": "ASIA1234567890ABCDEF",
    "google": "ya29.a1b2c3d4e5f6g7h8i9j0k1",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.a1b2c3",
    "other_issuer": "hvs.a1b2c3d4e5f6g7h8i9j0",
    "azure": "abc8Q~a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7",
    "webhook": "https://hooks.slack.com/services/T0001/B0001/a1b2c3d4e5f6g7h8i9j0",
    "url_password": "postgres://app:a1b2c3@db.test/shop",
    "signed_url": "https://x.blob.core.windows.net/c?sv=1&sig=a1B2c3D4e5F6g7H8i9J0k1L2m3%3D",
    "authorization": "Authorization: Bearer a1b2c3d4e5f6g7",
    "cookie": "Cookie: session=a1b2c3d4e5f6",
    "assignment": "password=hunter22",
}


def test_there_is_an_example_of_each_kind():
    assert set(SECRETS) == {*KINDS} - UNCERTAIN


def in_tool_error(text: str) -> bool:
    return to_lm_error(ValueError(text)) != text


def in_program(text: str) -> bool:
    with pytest.raises(ProgramError) as caught:
        refuse_secrets_in({"demos": [{"answer": text}]}, "p.json")
    return text not in str(caught.value)


def in_configuration(text: str) -> bool:
    with pytest.raises(ConfigError, match="looks like a secret") as caught:
        AgentConfig.read({"judge": {"guidelines": [text]}})
    return text not in str(caught.value)


def in_conformance_check(text: str) -> bool:
    found = check_stream([{"type": "error", "code": "server_error", "message": text}])
    leaks = [each.message for each in found if each.check == "error-leaks"]
    return any("secret" in message for message in leaks) and text not in "".join(leaks)


def in_examples(text: str) -> bool:
    return "[secret]" in Redaction().apply({"question": text})["question"]


def in_evaluation(text: str) -> bool:
    def metric(gold: dspy.Example, pred: dspy.Prediction, trace: object = None) -> float:
        raise ValueError(text)

    row = judge_row({}, {"score": metric}, dspy.Example(), dspy.Prediction())
    return text not in row["error"] and text not in row["feedback"]


def in_report(text: str) -> bool:
    (row,) = records(pd.DataFrame({"answer": [f"It is {text}"], "calls": [[{"output": text}]]}))
    return text not in row["answer"] and text not in row["calls"][0]["output"]


PARTS = (in_tool_error, in_program, in_configuration, in_conformance_check, in_examples, in_evaluation, in_report)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", SECRETS)
def test_each_part_knows_each_kind(part: Callable[[str], bool], kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHOP_API_KEY", SECRETS["environment"])
    assert part(f"refused: {SECRETS[kind]}")
