"""LM judges, through MLflow, against a server that judges by a rule; and how far they agree with people."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.genai.scorers import Guidelines, RelevanceToQuery, RetrievalGroundedness, scorer
from sklearn.metrics import cohen_kappa_score

import oneturn
from oneturn.config import JudgeConfig
from oneturn.errors import DataError, OneTurnError
from oneturn.evaluation import scorers
from oneturn.evaluation.scorers import calibrate_judge
from oneturn.evaluation.statistics import cohens_kappa
from tests.evaluation.scorers.desk import ROWS, desk
from tests.evaluation.scorers.judging import JudgeServer, Rule, judging

MODEL = "openai:/judge"


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Rule], JudgeServer]]:
    """Makes a judge, to which MLflow's ``openai:/`` leads."""
    from contextlib import ExitStack

    monkeypatch.setenv("OPENAI_API_KEY", "sk-abc1234567890123")
    with ExitStack() as servers:

        def made(rule: Rule) -> JudgeServer:
            server = servers.enter_context(judging(rule))
            monkeypatch.setenv("OPENAI_API_BASE", server.url)
            return server

        yield made


def answered(gold: Any, pred: Any, trace: Any = None) -> float:
    return float(pred.answer == gold.answer)


def evaluate(target: Any, *metrics: Any, **options: Any) -> Any:
    return oneturn.evaluate(target, ROWS, [answered, *metrics], inputs=["question"], progress=False, **options)


def test_judges_are_columns_of_an_evaluation(judge: Any):
    server = judge(lambda prompt: "yes" if "8 euros" in prompt else "no")
    found = evaluate(desk(), *scorers.judges(JudgeConfig(model=MODEL, guidelines=["Be brief."])))
    assert found.rows["relevance"].tolist() == [1.0, 0.0]
    assert found.rows["relevance_feedback"].tolist() == ["It is a yes.", "It is a no."]
    assert found.rows["guidelines"].tolist() == [1.0, 0.0]
    assert found.rows["groundedness"][0] == 1.0
    (grounded,) = [prompt for prompt in server.prompts if "The monthly fee is 4 euros." in prompt]
    assert "docs/fees.md" in grounded
    assert any("Be brief." in prompt for prompt in server.prompts)
    assert found.not_judged() == {
        "groundedness": (1, "Not judged: the run has no tool results to check the answer against.")
    }


def test_an_endpoint_is_judged_alike(judge: Any):
    judge(lambda prompt: "yes" if "The monthly fee is 4 euros." in prompt else "no")
    with oneturn.running_server(oneturn.ResponsesAdapter(desk())) as url:
        found = evaluate(url, scorers.groundedness(MODEL))
    assert found.rows["groundedness"][0] == 1.0


def test_without_a_judge_the_columns_and_the_summary_say_so():
    found = evaluate(desk(), *scorers.judges(JudgeConfig()))
    feedback = "Not judged: no judge is configured; set judge.model, or give model=."
    assert found.rows["groundedness"].isna().all()
    assert found.rows["relevance_feedback"].tolist() == [feedback, feedback]
    assert found.not_judged() == {"groundedness": (2, feedback), "relevance": (2, feedback)}
    summary = found.summary()
    assert (summary["relevance_not_judged"], summary["score"], summary["errors"]) == (2.0, 0.5, 0.0)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (lambda prompt: 401, "Not judged: Failed to invoke judge model: "),
        (lambda prompt: "perhaps", "Not judged: "),
    ],
)
def test_a_judge_that_fails_costs_no_row_its_other_scores(judge: Any, rule: Rule, reason: str):
    judge(rule)
    found = evaluate(desk(), scorers.relevance(MODEL))
    assert found.rows["answered"].tolist() == [1.0, 0.0]
    assert found.rows["error"].isna().all()
    assert found.rows["relevance"].isna().all()
    assert found.rows["relevance_feedback"][0].startswith(reason)
    assert "1234567890123" not in found.rows["relevance_feedback"][0]


def test_a_judge_that_reads_the_trace_finds_what_was_retrieved(judge: Any, traced: None):
    server = judge(lambda prompt: "yes" if "The monthly fee is 4 euros." in prompt else "no")
    metric = scorers.from_mlflow(RetrievalGroundedness(model=MODEL), name="grounded")
    assert evaluate(desk(), metric, trace=True).rows["grounded"][0] == 1.0
    assert len(server.prompts) == 1
    found = evaluate(desk(), metric)
    assert found.rows["grounded_feedback"][0] == (
        "Not judged: retrieval_groundedness needs the trace of the run, and there is none; evaluate with trace=True."
    )


def test_mlflow_s_judge_of_groundedness_reads_the_trace_of_a_served_agent(judge: Any, traced: None):
    judge(lambda prompt: "yes" if "The monthly fee is 4 euros." in prompt else "no")
    oneturn.ResponsesAdapter(desk()).predict({"input": [{"role": "user", "content": ROWS[0]["question"]}]})
    trace = mlflow.get_trace(mlflow.get_last_active_trace_id())
    (feedback,) = RetrievalGroundedness(model=MODEL)(trace=trace)
    assert feedback.value == "yes"


def test_a_scorer_of_ones_own_is_a_metric():
    @scorer
    def brief(outputs: str) -> bool:
        return len(outputs) < 10

    found = evaluate(desk(), scorers.from_mlflow(brief))
    assert found.rows["brief"].tolist() == [1.0, 0.0]


def test_correctness_reads_the_gold_answer(judge: Any):
    server = judge(lambda prompt: "yes")
    assert evaluate(desk(), scorers.correctness(MODEL)).rows["correctness"].tolist() == [1.0, 1.0]
    assert "at 9" in server.prompts[1]


LABELLED = [
    {"question": f"{number}?", "answer": "yes" if number % 2 else "no", "context": "It is so.", "label": number % 3 > 0}
    for number in range(30)
]


def agrees(prompt: str) -> str:
    """As people do, for the rows of ``LABELLED``; but for the questions 0? and 1?."""
    number = next(number for number in range(29, -1, -1) if f"{number}?" in prompt)
    right = LABELLED[number]["label"] is True
    return "yes" if right != (number < 2) else "no"


@pytest.mark.parametrize("made", [scorers.groundedness, scorers.relevance])
def test_a_judge_is_compared_with_people(judge: Any, made: Any):
    judge(agrees)
    found = calibrate_judge(made(MODEL), LABELLED)
    assert (found.judged, found.unjudged) == (30, 0)
    assert found.accuracy == pytest.approx(28 / 30)
    assert found.confusion == {"both_yes": 19, "both_no": 9, "judge_yes": 1, "judge_no": 1}
    assert found.kappa == pytest.approx(0.85)  # 28/30 seen, (20·20 + 10·10)/900 by chance
    low, high = found.kappa_interval
    assert low < 0.85 < high <= 1.0
    assert found.accuracy_interval[0] < found.accuracy < found.accuracy_interval[1]
    assert found.trusted
    assert "agrees with people: kappa 0.85" in found.verdict
    assert found.rows["verdict"].notna().all()


def test_a_judge_that_guesses_is_flagged(judge: Any):
    judge(lambda prompt: "yes")
    found = calibrate_judge(scorers.relevance(MODEL), LABELLED)
    assert found.kappa == 0.0
    assert not found.trusted
    assert found.verdict.startswith("Don't trust relevance: kappa 0.00")


def test_what_evaluate_has_written_is_labelled_and_judged(judge: Any, tmp_path: Path):
    server = judge(lambda prompt: "yes")
    rows = [{**row, "pred_answer": "8 euros", "run_tool_calls": [{"name": "f", "output": "found"}]} for row in LABELLED]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    calibrate_judge(scorers.groundedness(MODEL), tmp_path / "rows.jsonl")
    assert all("8 euros" in prompt and "found" in prompt for prompt in server.prompts)


def test_all_of_one_kind_tell_nothing(judge: Any):
    judge(lambda prompt: "yes")
    found = calibrate_judge(scorers.relevance(MODEL), [row | {"label": "yes"} for row in LABELLED])
    assert math.isnan(found.kappa)
    assert not found.trusted
    assert "is undefined: judge and people" in found.verdict
    assert json.loads(found.to_json())["kappa"] is None


def test_rows_without_a_label_and_judges_without_an_lm_are_refused():
    with pytest.raises(DataError, match="row 1: 'label' is 'maybe'"):
        calibrate_judge(scorers.relevance(MODEL), [LABELLED[0] | {"label": "maybe"}])
    with pytest.raises(OneTurnError, match=r"no verdict for any of the 30 answers. First reason: .* no judge"):
        calibrate_judge(scorers.relevance(None), LABELLED)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_kappa_is_one_for_agreement_and_below_for_less(pairs: list[tuple[bool, bool]]):
    one, other = np.array(pairs).T
    kappa = float(cohens_kappa(one, other))
    if len(set(one)) == len(set(other)) == 1 and one[0] == other[0]:
        assert math.isnan(kappa)
    else:
        assert -1 - 1e-9 <= kappa <= 1 + 1e-9
        assert math.isclose(kappa, 1) == bool((one == other).all())
    assert np.isclose(kappa, float(cohens_kappa(other, one)), equal_nan=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where kappa is undefined
        assert np.isclose(kappa, cohen_kappa_score(one, other, labels=[False, True]), equal_nan=True)


def test_mlflow_s_own_scorer_stays_what_it_is():
    assert scorers.from_mlflow(RelevanceToQuery(model=MODEL)).name == "relevance_to_query"


def test_another_guideline_is_another_judge():
    kind, brief = (
        scorers.from_mlflow(Guidelines(name="tone", guidelines=text, model=MODEL)) for text in ("Be kind.", "Be brief.")
    )
    assert kind.key != brief.key
    assert kind.key == scorers.from_mlflow(Guidelines(name="tone", guidelines="Be kind.", model=MODEL)).key
