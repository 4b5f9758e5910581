"""Secrets in compiled programs are refused and redacted in errors; ordinary prose isn't."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneturn.core.secrets import IN_PROSE, redact, refuse_secrets_in
from oneturn.errors import ProgramError

HEX = "0123456789abcdef"
ALNUM = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def drawn(prefix: str, alphabet: str, size: int) -> st.SearchStrategy[str]:
    """Random text in an issuer's format, always with a digit."""
    return st.text(alphabet, min_size=size, max_size=size).map(lambda rest: f"{prefix}7{rest}")


SECRETS = st.one_of(
    drawn("sk-proj-", ALNUM, 30),
    drawn("sk-", ALNUM, 20),
    drawn("dapi", HEX, 31),
    drawn("ghp_", ALNUM, 35),
    drawn("github_pat_", ALNUM, 30),
    drawn("hf_", ALNUM, 30),
    drawn("glpat-", ALNUM, 20),
    drawn("xoxb-", ALNUM, 20),
    drawn("AKIA", "ABCDEFGHIJ0123456789", 15),
    drawn("AIza", ALNUM, 34),
    drawn("eyJhbGciOiJ", ALNUM, 10).map(lambda head: f"{head}.eyJzdWIiOiIx.sig"),
    drawn("Bearer a", ALNUM, 24),
    drawn("postgres://me:", ALNUM, 8).map(lambda url: f"{url}@db.example/x"),
    drawn("redis://:", ALNUM, 8).map(lambda url: f"{url}@cache.example/0"),
    drawn("gsk_", ALNUM, 40),
    drawn("xapp-1-", ALNUM, 20),
    drawn("https://hooks.slack.com/services/T0/B0/", ALNUM, 23),
    drawn("AccountName=shop;AccountKey=a", ALNUM, 80).map(lambda text: f"{text}==;EndpointSuffix=core"),
    drawn("https://shop.blob.example/c?sv=2022&sig=a", ALNUM, 40),
    drawn("aws_secret_access_key = a", ALNUM, 38),
    drawn('{"api_key": "a', ALNUM, 24).map(lambda text: f'{text}"}}'),
    drawn("Authorization: Basic ", ALNUM, 20),
    drawn('{"text": "at\\nghp_', ALNUM, 35),
    st.sampled_from([f"-----BEGIN {kind}PRIVATE KEY-----" for kind in ("", "RSA ", "OPENSSH ")]),
    st.just("-----BEGIN PGP PRIVATE KEY BLOCK-----"),
)
PROSE = st.sampled_from(["", "Use the key ", "The header is:\n", "(", "“", "token: "])
AFTER = st.sampled_from(["", " to log in.", ".", ",\nthen go on", ")", "”"])


@given(PROSE, SECRETS, AFTER)
def test_a_secret_is_refused_in_any_context_and_not_repeated(before: str, secret: str, after: str):
    document = {"state": {"step": {"demos": [{"trajectory": [{"observation": before + secret + after}]}]}}}
    with pytest.raises(ProgramError) as caught:
        refuse_secrets_in(document, "p.json")
    assert str(caught.value).startswith("p.json: state.step.demos.0.trajectory.0.observation looks like a secret")
    assert secret not in str(caught.value)


@given(SECRETS)
def test_a_secret_in_a_key_is_refused_and_not_repeated(secret: str):
    with pytest.raises(ProgramError, match=r"p\.json: demos\.0 has a key that looks like a secret") as caught:
        refuse_secrets_in({"demos": [{secret: {"uses": 3}}]}, "p.json")
    assert secret not in str(caught.value)


WORDS = st.text(st.characters(categories=["L", "P", "Zs"]), max_size=200)


@given(st.dictionaries(st.sampled_from(["question", "answer", "token", "password", "api_key"]), WORDS))
def test_words_are_not_refused(demo: dict[str, str]):
    refuse_secrets_in({"demos": [demo]}, "p.json")


ORDINARY = [
    "The password must have 12 characters; the token is sent by mail.",
    "sk-learn and sk-learn-contrib, task-0001-of-0016-in-the-long-list",
    "sk-learn-contrib-2024-edition-of-september, sk_an_identifier_with_4_parts_and_more",
    "dose: 3 tablets; dapibus; ghp; hf_hub; eyJ",
    "http://example.com:8080/a@b, mailto:me@example.com",
    "Bearer of good news, 2024 was a year",
    "error-e22 M-1045 5ad9fda84e2792726c9d0740c0882797392f4dbe20726aae8f6bbe707d4e59b6",
    "risk_assessment_of_2024_final_version_3, desk-with-drawers-and-lamp-2",
    "AKIAMONDE, AIzawl, Bearer: the person in question is 42",
    "eyJust so, glpat",
    "The password: must-have-12-characters. A token: task_0001_of_the_list, see page 12.",
    "api_key=YOUR_KEY, access key: the one of door 4711, AccountKey=… and sig= on page 3",
    "Authorization: Basic plan; xapp, gsk, ya29. At 10:30://",
]


@pytest.mark.parametrize("text", ORDINARY)
@pytest.mark.parametrize("key", ["answer", "token", "secret"])
def test_ids_hashes_and_names_are_not_refused(text: str, key: str):
    refuse_secrets_in({key: text}, "p.json")


@pytest.mark.parametrize(
    "name", ["api_key", "X-Api-Key", "accessToken", "aws_secret_access_key", "accountKey", "client_secret", "passwd"]
)
def test_a_value_like_a_key_is_refused_under_a_secret_name(name: str):
    with pytest.raises(ProgramError, match=rf"args\.{name} looks like a secret"):
        refuse_secrets_in({"args": {name: "a1b2c3d4e5f6g7"}}, "p.json")
    refuse_secrets_in({"args": {"order": "a1b2c3d4e5f6g7", "sort_key": "a1b2c3d4e5f6g7"}}, "p.json")


@pytest.mark.parametrize("variable", ["ACME_API_KEY", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_KEY"])
def test_secrets_of_the_environment_are_refused_in_any_format(variable: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(variable, "plum/4711/orchard")
    with pytest.raises(ProgramError) as caught:
        refuse_secrets_in(["It said plum/4711/orchard."], "p.json")
    assert f"contains the value of the environment variable {variable}" in str(caught.value)
    assert "4711" not in str(caught.value)
    monkeypatch.setenv(variable, "word")
    refuse_secrets_in(["A word."], "p.json")


@given(PROSE, SECRETS, AFTER)
def test_secrets_refused_in_programs_are_redacted_in_errors(before: str, secret: str, after: str):
    assert "…" in redact(before + secret + after)
    assert not IN_PROSE.search(redact(before + secret + after))


CREDENTIALS = [
    "password: CANARY1",
    "{'password': 'CANARY1 with a blank', 'user': 'me'}",
    r"{\"password\": \"CANARY1 x\"}",
    "'password': 'CANARY1 cut off",
    "PASSWORD=CANARY1",
    "pwd=CANARY1",
    "PGPASSWORD=CANARY1",
    "client_secret=CANARY1",
    "clientSecret=CANARY1",
    "x-api-key: CANARY1",
    "Authorization: Basic CANARY1==",
    "{'Authorization': 'Bearer CANARY1'}",
    "got Basic CANARY1Q==",
    "bearer CANARY1",
    "AWS_SECRET_ACCESS_KEY=CANARY1",
    "secret=CANARY1",
    "token: CANARY1",
    "access_token=CANARY1",
    "https://x.blob.test/c?sv=1&sig=CANARY1",
    '"api_key": "CANARY1"',
    "eyJhbGciOi.eyJCANARY1.x1",
    "Server=x;User Id=sa;Password=CANARY1;",
    "postgres://u:CANARY1@h/d",
    "postgres://u:p@CANARY1@h/d",
    "git clone me:CANARY1@host",
    "https://CANARY1@git.test/x",
    "https://hooks.slack.com/services/T0/B0/CANARY1",
    "-----BEGIN PRIVATE KEY----- CANARY1",
    "-----BEGIN RSA PRIVATE KEY-----\nCANARY1\n-----END RSA PRIVATE KEY----- was read",
    "could not use hunter2CANARY1env99",
]


@pytest.mark.parametrize("text", CREDENTIALS)
def test_credentials_are_redacted(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_PASSWORD", "hunter2CANARY1env99")
    redacted = redact(f"refused {text}")
    assert redacted.startswith("refused ")
    assert "…" in redacted
    assert "CANARY1" not in redacted


@pytest.mark.parametrize(
    "text",
    [
        "the token count is 5, max_tokens=5",
        "password must have 8 characters",
        "password: must have 8 characters",
        "a bearer token is missing",
        "basic knowledge of secrets",
        "design=blue, signal: red, compass: north",
        "at 10:30 the ratio is 3:4; see https://docs.test/a?b=c",
        "write to mailto:me@desk.test or me@desk.test",
    ],
)
def test_ordinary_error_texts_are_unchanged(text: str):
    assert redact(text) == text
