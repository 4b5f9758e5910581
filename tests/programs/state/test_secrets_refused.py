"""A compiled program with a secret in it is refused, and the error doesn't repeat the secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneturn.errors import ProgramError
from oneturn.programs.state import refuse_secrets_in

SECRET = "ghp_a1b2c3d4e5f6g7h8i9j0"


@pytest.mark.parametrize("text", [SECRET, f"Use the key {SECRET} to log in.", rf"at\n{SECRET},", f"(token: {SECRET})"])
def test_a_secret_is_refused_with_its_place_and_kind(text: str):
    document = {"state": {"step": {"demos": [{"trajectory": [{"observation": text}]}]}}}
    with pytest.raises(ProgramError) as caught:
        refuse_secrets_in(document, "p.json")
    place = "p.json: state.step.demos.0.trajectory.0.observation"
    assert str(caught.value).startswith(f"{place} looks like a secret (github), ")
    assert SECRET not in str(caught.value)


def test_a_secret_in_a_key_is_refused():
    with pytest.raises(ProgramError, match=r"p\.json: demos\.0 has a key that looks like a secret") as caught:
        refuse_secrets_in({"demos": [{SECRET: {"uses": 3}}]}, "p.json")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["api_key", "X-Api-Key", "accessToken", "aws_secret_access_key", "accountKey", "client_secret", "passwd"]
)
def test_a_value_like_a_key_is_refused_under_a_secret_name(name: str):
    with pytest.raises(ProgramError, match=rf"args\.{name} looks like a secret"):
        refuse_secrets_in({"args": {name: "a1b2c3d4e5f6g7"}}, "p.json")
    refuse_secrets_in({"args": {"order": "a1b2c3d4e5f6g7", "sort_key": "a1b2c3d4e5f6g7"}}, "p.json")


@pytest.mark.parametrize("variable", ["ACME_API_KEY", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_KEY"])
def test_a_secret_of_the_environment_is_refused_with_its_variable(variable: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(variable, "plum/4711/orchard")
    with pytest.raises(ProgramError) as caught:
        refuse_secrets_in(["It said plum/4711/orchard."], "p.json")
    assert f"contains the value of the environment variable {variable}" in str(caught.value)
    assert "4711" not in str(caught.value)


WORDS = st.text(st.characters(categories=["L", "P", "Zs"]), max_size=200)


@given(st.dictionaries(st.sampled_from(["question", "answer", "token", "password", "api_key"]), WORDS))
def test_words_are_not_refused(demo: dict[str, str]):
    refuse_secrets_in({"demos": [demo]}, "p.json")


@pytest.mark.parametrize("key", ["answer", "token", "secret"])
@pytest.mark.parametrize(
    "text",
    [
        "The password must have 12 characters; the token is sent by mail.",
        "The password: must-have-12-characters. A token: task_0001_of_the_list, see page 12.",
        "The password: swordfish. Bearer bonds, api_key=YOUR_KEY",
        "error-e22 M-1045 5ad9fda84e2792726c9d0740c0882797392f4dbe20726aae8f6bbe707d4e59b6",
    ],
)
def test_prose_ids_and_hashes_are_not_refused(text: str, key: str):
    refuse_secrets_in({key: text}, "p.json")
