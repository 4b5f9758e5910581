"""The metric pays for what is right, for what is grounded and for honesty, and for nothing else."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizers.answers import same_answer
from optimizers.metric import correct, grade, support_metric

RIGHT = [
    ("€55.50", "€55.50"),
    ("€55.50", "55.5 EUR"),
    ("€55.50", "55.50"),
    ("€55.50", "**€55.50**"),
    ("€55.50", "55,50 €"),
    ("€55.50", "It costs €55.50 for 3 bags and 1 kit."),
    ("€55.50", "3 * 14.50 + 12 = 55.50"),
    ("€55.50", "3 × €14.50 + €12.00 = €55.50"),
    ("€55.50", "Beans are €43.50 and the kit is €12.00, so €55.50."),
    ("€1130.00", "€1,130.00"),
    ("€1130.00", "1.130,00 euros"),
    ("3 working days", "within three working days"),
    ("3 working days", "3 days"),
    ("60 days", "60-day notice"),
    ("2", "Order M-1045 has 2 milk coolers."),
    ("5.1", "Firmware 5.1"),
    ("10 °C", "below 10°C"),
    ("12%", "12 percent"),
    ("750 g", "1200 - 450 = 750 grams"),
    ("13:00", "1 pm"),
    ("8:00 to 16:00", "between 8:00 and 16:00"),
    ("8:00 to 16:00", "8 am–4 pm"),
    ("2025-09-17", "17 September 2025"),
    ("2025-09-17", "It arrived on September 17th, 2025."),
    ("18 December", "December 18"),
    ("18 December", "2025-12-18"),
    ("delivered", "Delivered."),
    ("delivered", "It was delivered to Germany."),
    ("delivered", "No longer on its way: it was delivered."),
    ("E10", "error E10"),
    ("O'Dowd Surveyors", "the customer is O’Dowd Surveyors"),
    ("Tuesdays and Fridays", "every Tuesday and Friday"),
    ("cards and phones", "phones and cards, but no coins"),
    ("10 days", "10 days; an invitation expires after 48 hours"),
    ("36 months", "36 months (3 years)"),
    ("3 weeks", "at least 20 packs, and three weeks for printing, so 3 weeks"),
]

WRONG = [
    ("€55.50", ""),
    ("€55.50", "€55.00"),
    ("€55.50", "$55.50"),
    ("€55.50", "55.50 kg"),
    ("€55.50", "€14.50, €12.00 or €55.50"),
    ("€55.50", "€55.50 or €43.50"),
    ("€55.50", "I don't know"),
    ("60 days", "Start 14 days, Team 30 days, Floor 60 days"),
    ("3 working days", "3 weeks"),
    ("2", "M-1042 has more than M-1045"),
    ("10", "E10"),
    ("5.1", "5.2"),
    ("13:00", "13 days"),
    ("8:00 to 16:00", "from 8:00"),
    ("2025-09-17", "18 September 2025"),
    ("18 December", "18 November"),
    ("delivered", "It has not been delivered."),
    ("delivered", "shipped or delivered"),
    ("delivered", "undelivered"),
    ("Start", "the Team plan"),
    ("E10", "E22"),
    ("3 weeks", "three packs in two weeks"),
    ("3 weeks", "3 packs; printing takes 2 weeks"),
    ("5 working days", "1 week"),
    ("30 days", "1 month"),
    ("4 weeks", "9 months unopened"),
    ("Cork", "Handbook: " + "many words about everything " * 10 + "Cork"),
]

# gold, the same in another form, and a wrong answer near that form
FORMS = [
    ("Helder & Zonen", "Helder and Zonen", "Helder and Sons"),
    ("cards and phones", "cards & phones", "cards & coins"),
    ("50%", "half", "half a day"),
    ("50%", "You pay half the rent if you cancel less than 5 days before.", "You pay a quarter of the rent."),
    ("half the rent", "50% of the rent", "15% of the rent"),
    ("half", "50 per cent", "half or all of it"),
    ("75%", "three quarters", "three quarters of an hour"),
    ("24 hours", "24h", "24 days"),
    ("24 hours", "one day", "one working day"),
    ("48 hours", "The link is valid for 2 days.", "The link is valid for 3 days."),
    ("1 working day", "one business day", "24 hours"),
    ("7 days", "one week", "one month"),
    ("12 months", "a warranty of 1 year", "2 years"),
    ("18 months", "a year and a half", "half a year"),
    ("18 months", "1½ years", "1.4 years"),
    ("90 minutes", "one and a half hours", "two and a half hours"),
    ("30 minutes", "half an hour", "an hour"),
    ("15 minutes", "a quarter of an hour", "three quarters of an hour"),
    ("40 seconds", "forty seconds", "fourteen seconds"),
    ("35 minutes", "thirty-five minutes", "thirty minutes"),
    ("9:00 to 17:30", "9 am – 5:30 pm", "9 am – 5 pm"),
    ("9:00 to 17:30", "from 9 to 17:30", "from 9 to 17:00"),
    ("8:00 to 14:00", "8 o'clock to 2 pm", "8 o'clock to noon"),
    ("12:00", "noon", "midnight"),
    ("2025-06-17", "17.06.2025", "16.06.2025"),
    ("2025-06-17", "06/17/2025", "07/16/2025"),
    ("2025-09-05", "05.09.2025", "09/05/2025"),
    ("18 September", "Sept 18", "Sept 8"),
    ("€55.50", "EUR 55.50", "USD 55.50"),
    ("€55.50", "55 euros and 50 cents", "55 euros and 5 cents"),
    ("€0.60", "60 cents", "6 cents"),
    ("1200 g", "1.2 kg", "12 kg"),
    ("100 ml", "0.1 litres", "1 litre"),
    ("3 metres", "300 cm", "30 cm"),
    ("2300 watts", "2.3 kW", "23 kW"),
    ("1.5 bar", "one and a half bar", "one bar"),
    ("10 °C", "10 degrees Celsius", "10 days"),
    ("2", "two", "twelve"),
    ("one", "1 machine", "11 machines"),
    ("one", "1", "one or two"),
    ("one free visit", "1 free visit", "1 visit"),
    ("once", "1 time", "2 times"),
    ("twice", "two times", "two days"),
    ("twice", "2x", "3x"),
    ("twice", "2", "2 bags"),
    ("one", "1 machine", "at once"),
    ("9 months", "nine months", "from 9 to 17:30"),
    ("paper box", "paper boxes", "paper boxer"),
    ("batteries", "a battery", "a batter"),
    ("the burrs", "one burr", "one burner"),
    ("free", "free of charge", "It is not free of charge."),
    ("free", "There is no charge.", "There is a charge."),
    ("free", "€0.00", "€0.60"),
    ("free", "Nothing", "Nothing is known about it."),
]


@pytest.mark.parametrize(("gold", "answer", "wrong"), FORMS)
def test_an_equal_form_is_right_and_a_wrong_answer_near_it_is_wrong(gold: str, answer: str, wrong: str) -> None:
    assert same_answer(gold, gold)
    assert same_answer(gold, answer)
    assert not same_answer(gold, wrong)


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_the_same_answer_in_other_words(gold: str, answer: str) -> None:
    assert same_answer(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_another_answer(gold: str, answer: str) -> None:
    assert not same_answer(gold, answer)


def question(answer: str = "€55.50", *citations: str) -> dspy.Example:
    cited = list(citations or ("bean-prices", "cleaning-products"))
    return dspy.Example(question="How much?", answer=answer, answerable=bool(answer), citations=cited if answer else [])


def answered(answer: str, *citations: str) -> dspy.Prediction:
    return dspy.Prediction(answer=answer, citations=list(citations), answerable=True)


REFUSED = dspy.Prediction(answer="", citations=[], answerable=False)
BOTH = ("bean-prices", "cleaning-products")


@pytest.mark.parametrize(
    ("gold", "pred", "score", "feedback"),
    [
        (question(), answered("€55.50", *BOTH), 1.0, "The answer '€55.50' is right. The citations are right."),
        (
            question(),
            answered("€55.50", "bean-prices"),
            0.9,
            "The answer '€55.50' is right. Cite cleaning-products, which the answer is based on.",
        ),
        (
            question(),
            answered("€55.50", "team-plan", *BOTH),
            0.94,
            "The answer '€55.50' is right. Don't cite team-plan: the answer isn't based on it.",
        ),
        (
            question(),
            answered("€43.50", *BOTH),
            0.3,
            "The answer '€43.50' is wrong; it should be '€55.50', and state that alone. The citations are right.",
        ),
        (
            question(),
            answered("", "team-plan"),
            0.0,
            (
                "The answer is empty; it should be '€55.50'. "
                "Cite bean-prices, cleaning-products, which the answer is based on. "
                "Don't cite team-plan: the answer isn't based on it."
            ),
        ),
        (
            question(),
            REFUSED,
            0.0,
            (
                "You refused, but the question can be answered. "
                "The right answer is '€55.50', citing bean-prices, cleaning-products."
            ),
        ),
        (
            question(""),
            REFUSED,
            1.0,
            "Right: the handbook and the orders don't contain the answer, and you said so.",
        ),
        (
            question(""),
            answered("red", "machine-prices"),
            0.0,
            (
                "You answered 'red', but the handbook and the orders don't contain the answer. "
                "The right response is a refusal: answerable=False."
            ),
        ),
        (
            question(),
            dspy.Prediction(answer="€55.50", citations=list(BOTH), answerable=None),
            0.0,
            "The run gave no usable result. The right answer is '€55.50', citing bean-prices, cleaning-products.",
        ),
        (question(""), None, 0.0, "The run gave no usable result. The right response is a refusal: answerable=False."),
    ],
)
def test_a_grade_says_what_was_wrong_and_what_is_right(
    gold: dspy.Example, pred: Any, score: float, feedback: str
) -> None:
    result = grade(gold, pred)
    assert result.score == pytest.approx(score)
    assert result.feedback == feedback


@pytest.mark.parametrize("citations", [["returns-window"], ["Returns-Window.md", "[returns-window]"], "returns-window"])
def test_citations_are_normalized_to_ids(citations: Any) -> None:
    pred = dspy.Prediction(answer="30 days", citations=citations, answerable=True)
    assert grade(question("30 days", "returns-window"), pred).citation == 1


@pytest.mark.parametrize("citations", [None, []])
def test_an_answer_without_citations_is_merely_right(citations: Any) -> None:
    pred = dspy.Prediction(answer="30 days", citations=citations, answerable=True)
    assert support_metric(question("30 days", "returns-window"), pred) == pytest.approx(0.7)
    assert correct(question("30 days", "returns-window"), pred)


def test_a_demonstration_must_be_fully_right() -> None:
    assert support_metric(question(), answered("€55.50", *BOTH), trace=[]) is True
    assert support_metric(question(), answered("€55.50", "bean-prices"), trace=[]) is False


def test_pred_name_returns_the_same_score_with_feedback() -> None:
    gold, pred = question(), answered("€43.50", *BOTH)
    result = support_metric(gold, pred, [], "step", [])
    assert isinstance(result, dspy.Prediction)
    assert result.score == support_metric(gold, pred)
    assert "should be '€55.50'" in result.feedback


def test_dspy_evaluates_with_it() -> None:
    class Refuse(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> dspy.Prediction:
            return dspy.Prediction(answer="", citations=[], answerable=False)

    examples = [question("").with_inputs("question"), question().with_inputs("question")]
    assert dspy.Evaluate(devset=examples, metric=support_metric, num_threads=1)(Refuse()).score == 50.0


@given(cents=st.integers(0, 10_000_000))
def test_money_is_compared_by_value(cents: int) -> None:
    gold = f"€{cents / 100:.2f}"
    assert same_answer(gold, f"{cents / 100:,.2f} EUR")
    assert same_answer(gold, f"That is {cents / 100} euros in total.")
    assert not same_answer(gold, f"€{(cents + 1) / 100:.2f}")


@given(
    answer=st.text(max_size=60),
    citations=st.lists(st.text(max_size=20), max_size=4) | st.none() | st.text(max_size=20),
    answerable=st.booleans() | st.none() | st.text(max_size=5),
    gold=st.sampled_from(["", "€55.50", "17 June 2025", "delivered", "8:00 to 16:00"]),
)
def test_any_prediction_has_a_score_and_feedback(answer: str, citations: Any, answerable: Any, gold: str) -> None:
    result = grade(question(gold), dspy.Prediction(answer=answer, citations=citations, answerable=answerable))
    assert 0 <= result.score <= 1
    assert result.feedback
    assert (result.score >= 0.999) <= result.correct


@given(st.text())
def test_any_text_can_be_compared(text: str) -> None:
    assert same_answer("5 days", text) in {True, False}
    assert same_answer(text, text) in {True, False}
