"""``find_secrets`` and ``redact``: the documented formats of credentials are found whole; ordinary texts stay."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneturn.core.secrets import KINDS, UNCERTAIN, environment_secrets, find_secrets, is_secret_name, redact

HEX = "0123456789abcdef"
ALNUM = string.ascii_letters + string.digits
URL_SAFE = ALNUM + "-_"
BASE64 = ALNUM + "+/"


@pytest.fixture(autouse=True)
def no_secrets_in_the_environment(monkeypatch: pytest.MonkeyPatch):
    for name in environment_secrets():
        monkeypatch.delenv(name)


def drawn(kind: str, form: str, alphabet: str, *sizes: int) -> st.SearchStrategy[tuple[str, str]]:
    """A kind, and a secret in an issuer's format: random text with a digit and a letter in place of each {}."""
    parts = [st.text(alphabet, min_size=size - 2, max_size=size - 2).map(lambda rest: f"7a{rest}") for size in sizes]
    return st.tuples(*parts).map(lambda texts: (kind, form.format(*texts)))


ISSUED = st.one_of(
    drawn("databricks", "dapi{}", HEX, 32),
    drawn("databricks", "dapi{}-2", HEX, 32),
    drawn("databricks", "dkea{}", HEX, 32),
    drawn("databricks", "dose{}", HEX, 32),
    drawn("openai", "sk-{}", ALNUM, 48),
    drawn("openai", "sk-{}", HEX, 32),
    drawn("openai", "sk-proj-{}T3BlbkFJ{}", URL_SAFE, 74, 74),
    drawn("openai", "sk-svcacct-{}T3BlbkFJ{}", URL_SAFE, 58, 58),
    drawn("openai", "sk-or-v1-{}", HEX, 64),
    drawn("anthropic", "sk-ant-api03-{}AA", URL_SAFE, 93),
    drawn("aws", "AKIA{}", string.ascii_uppercase + "234567", 16).map(lambda each: (each[0], each[1].upper())),
    drawn("aws", "ASIA{}", string.ascii_uppercase + "234567", 16).map(lambda each: (each[0], each[1].upper())),
    drawn("google", "AIza{}", URL_SAFE, 35),
    drawn("google", "ya29.a0{}", URL_SAFE, 120),
    drawn("google", "GOCSPX-{}", URL_SAFE, 28),
    drawn("google", "1//0{}", URL_SAFE, 60),
    drawn("azure", "abc8Q~{}", URL_SAFE, 34),
    drawn("azure", "{}JQQJ99BAACYeBjFXJ3w3AAABACOGab12", ALNUM, 52),
    st.binary(min_size=64, max_size=64).map(lambda key: ("azure", base64.b64encode(key).decode())),
    drawn("github", "ghp_{}", ALNUM, 36),
    drawn("github", "ghs_{}", ALNUM, 36),
    drawn("github", "github_pat_{}_{}", ALNUM, 22, 59),
    drawn("gitlab", "glpat-{}", URL_SAFE, 20),
    drawn("gitlab", "glpat-{}.01.1a2b3c4d5", URL_SAFE, 44),
    drawn("slack", "xoxb-123456789012-123456789012-{}", ALNUM, 24),
    drawn("slack", "xapp-1-A123-1234567890123-{}", HEX, 64),
    drawn("npm", "npm_{}", ALNUM, 36),
    drawn("pypi", "pypi-AgEIcHlwaS5vcmc{}", URL_SAFE, 120),
    drawn("huggingface", "hf_{}", ALNUM, 34),
    drawn("groq", "gsk_{}", ALNUM, 52),
    drawn("stripe", "sk_live_{}", ALNUM, 24),
    drawn("stripe", "rk_test_{}", ALNUM, 24),
    drawn("other_issuer", "hvs.{}", URL_SAFE, 95),
    drawn("other_issuer", "SG.{}.{}", ALNUM, 22, 43),
    drawn("other_issuer", "nvapi-{}", URL_SAFE, 64),
    drawn("jwt", "eyJhbGciOiJIUzI1NiJ9.eyJ{}.{}", ALNUM, 40, 43),
    drawn("private_key", "-----BEGIN RSA PRIVATE KEY-----\n{}\n{}\n-----END RSA PRIVATE KEY-----", BASE64, 64, 64),
    drawn("private_key", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n{}\n-----END PGP PRIVATE KEY BLOCK-----", BASE64, 64),
    st.sampled_from([("private_key", f"-----BEGIN {kind}PRIVATE KEY-----") for kind in ("", "RSA ", "OPENSSH ")]),
)
# A secret between what stays.
EMBEDDED = st.one_of(
    drawn("azure", "AccountName=shop;AccountKey=|{}==|;EndpointSuffix=core.windows.net", ALNUM, 86),
    drawn("assignment", "Endpoint=sb://x.test/;SharedAccessKeyName=Root;SharedAccessKey=|{}=|", ALNUM, 43),
    drawn("assignment", "Server=tcp:x,1433;Uid=sa;Pwd=|{}|;Encrypt=yes", ALNUM, 12),
    drawn("assignment", "jdbc:sqlserver://h;user=sa;password=|{}|;x=y", ALNUM, 10),
    drawn("assignment", "host=h user=u password=|{}| sslmode=require", ALNUM, 10),
    drawn("assignment", "aws_secret_access_key = |{}|", BASE64.replace("/", "").replace("+", ""), 40),
    drawn("assignment", '{{"SecretAccessKey": "|{}|", "Region": "eu"}}', ALNUM, 40),
    drawn("assignment", "{{'password': '|{}|', 'user': 'me'}}", ALNUM, 9),
    drawn("assignment", r"{{\"api_key\": \"|{}|\"}}", ALNUM, 24),
    drawn("assignment", "<password>|{}|</password>", ALNUM, 9),
    drawn("assignment", "**Password:** |{}|", ALNUM, 10),
    drawn("assignment", "API key: |{}|", ALNUM, 24),
    drawn("assignment", "Incorrect API key provided: |{}|. You can find", HEX, 32),
    drawn("assignment", "Ocp-Apim-Subscription-Key: |{}|", HEX, 32),
    drawn("assignment", "x-api-key: |{}|", HEX, 32),
    drawn("assignment", "grant_type=client_credentials&client_secret=|{}|&client_id=x", ALNUM, 30),
    drawn("assignment", "//npm.example/:_authToken=|{}|", HEX, 36),
    drawn("assignment", "mysql --user root --password |{}|", ALNUM, 9),
    drawn("assignment", "machine h login me password |{}|", ALNUM, 9),
    drawn("cookie", "Cookie: |session={}; csrf={}|", ALNUM, 32, 32),
    drawn("cookie", "Set-Cookie: |sid={}; Path=/; HttpOnly|", ALNUM, 32),
    drawn("authorization", "Authorization: |Bearer {}|", ALNUM, 40),
    drawn("authorization", "authorization:|bearer {}|", ALNUM, 40),
    drawn("authorization", "{{'Authorization': '|Bearer {}|'}}", ALNUM, 40),
    drawn("authorization", '{{"authorization":"|token {}|"}}', HEX, 40),
    drawn("authorization", "HTTP_AUTHORIZATION=|Bearer {}|", ALNUM, 30),
    drawn("authorization", "Proxy-Authorization: |Basic {}=|", ALNUM, 31),
    drawn("authorization", 'Authorization: |Digest username="me", nonce="x", response="{}|"', HEX, 32),
    drawn("authorization", "sent (b'authorization', b'|Bearer {}|')", ALNUM, 30),
    drawn("assignment", "[('x-api-key', '|{}|'), ('accept', '*/*')]", ALNUM, 24),
    drawn("authorization", "refused: bearer |{}|", ALNUM, 24),
    drawn("url_password", "postgresql://|app:{}|@db.internal:5432/shop", ALNUM, 12),
    drawn("url_password", "redis://|:{}|@cache.example/0", ALNUM, 10),
    drawn("url_password", "https://|{}|@github.test/a/b", ALNUM, 40),
    drawn("url_password", "|root:{}|@tcp(127.0.0.1:3306)/db", ALNUM, 10),
    drawn("url_password", "curl -u me:|{}| https://x.test", ALNUM, 9),
    drawn("signed_url", "https://a.blob.core.windows.net/c?sv=2022&sr=b&sig=|{}%3D|", ALNUM, 43),
    drawn("signed_url", "https://b.s3.amazonaws.com/k?X-Amz-Signature=|{}|&x=y", HEX, 64),
    drawn("webhook", "https://hooks.slack.com/services/|T0A1/B0A1/{}|", ALNUM, 24),
)
BEFORE = st.sampled_from(["", "Use the key ", "The header is:\n", "(", "“", '{"text": "at\\n', "x=", "see%20"])
AFTER = st.sampled_from(["", " to log in.", ",\nthen continue", ")", "”", '"}', ". Then"])


@given(BEFORE, ISSUED, AFTER)
def test_issued_keys_are_found_whole_and_by_kind(before: str, issued: tuple[str, str], after: str):
    kind, secret = issued
    if kind == "private_key" and "END" not in secret:  # truncated: the rest of the text belongs to it
        after = ""
    (found,) = find_secrets(before + secret + after, without=UNCERTAIN)
    assert found.kind == kind
    assert redact(before + secret + after) == before + "…" + after


@given(BEFORE, EMBEDDED, AFTER)
def test_values_are_found_between_what_stays(before: str, embedded: tuple[str, str], after: str):
    kind, form = embedded
    start, secret, end = form.split("|")
    after = "" if "Digest" in form else after  # its parameters go to the end of the line
    text = before + start + secret + end
    found = [each for each in find_secrets(f"{text}{after}", without=UNCERTAIN) if each.kind == kind]
    assert [f"{text}{after}"[slice(*each.span)] for each in found] == [secret]
    assert redact(f"{text}{after}") == f"{before}{start}…{end}{after}"


@given(st.lists(st.one_of(BEFORE, AFTER, st.text(max_size=20), ISSUED.map(lambda each: each[1])), max_size=8))
def test_matches_are_in_order_and_nothing_is_left_to_redact(parts: list[str]):
    text = " ".join(parts)
    found = find_secrets(text)
    ends = [0, *(secret.span[1] for secret in found)]
    assert all(end <= secret.span[0] < secret.span[1] for end, secret in zip(ends, found, strict=False))
    assert {secret.kind for secret in found} <= set(KINDS)
    assert redact(redact(text)) == redact(text)


@given(st.text(st.characters(categories=["L", "P", "Zs"]), max_size=200))
def test_words_are_not_secrets(text: str):
    assert find_secrets(text, without=UNCERTAIN) == []


CREDENTIALS = [
    "password: CANARY1",
    "password: $CANARY1",
    "password: (CANARY1",
    "password: *CANARY1",
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
    "Authorization: CANARY1",
    "{'Authorization': 'Bearer CANARY1'}",
    "got Basic CANARY1Q==",
    "got Basic dXNlcjpDQU5BUlkx",
    "bearer CANARY1",
    "AWS_SECRET_ACCESS_KEY=CANARY1",
    "secret=CANARY1",
    "token: CANARY1",
    "access_token=CANARY1",
    "cmd --token CANARY1",
    "JSESSIONID=CANARY1",
    "https://x.blob.test/c?sv=1&sig=CANARY1",
    '"api_key": "CANARY1"',
    "eyJhbGciOi.eyJCANARY1.x1",
    "Server=x;User Id=sa;Password=CANARY1;",
    'connection_string="Server=x;User Id=sa;Password=CANARY1"',
    "postgres://u:CANARY1@h/d",
    "postgres://u:p@CANARY1@h/d",
    "git clone me:CANARY1@host",
    "https://CANARY1@git.test/x",
    "https://hooks.slack.com/services/T0/B0/CANARY1",
    "-----BEGIN PRIVATE KEY----- CANARY1",
    "-----BEGIN RSA PRIVATE KEY-----\nCANARY1\n-----END RSA PRIVATE KEY----- was read",
    r'"private_key": "-----BEGIN PRIVATE KEY-----\nCANARY1\n-----END PRIVATE KEY-----\n"',
    "AKIAIOSFODNN7EXAMPLE/wJalrXUtnFEMIaK7MDENGabPxRfiCYCANARY1AAA",
    "could not use hunter2CANARY1env99",
    "mysqldump -u root -pCANARY1 -h db",
    "sshpass -p CANARY1 ssh host",
    "GET https://fn.test/api/f?code=CANARY1abcDEF0123456789==",
    "GET https://fn.test/api/f?a=b&key=CANARY1abcDEF0123456789",
    "Incorrect API key provided: CANARY1. Find yours",
    "the password is CANARY1",
    "login failed with password 'CANARY1'",
    "Passwort: CANARY1",
    "otp=CANARY1",
]


@pytest.mark.parametrize("text", CREDENTIALS)
def test_credentials_are_redacted(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_PASSWORD", "hunter2CANARY1env99")
    redacted = redact(f"refused {text}")
    assert redacted.startswith("refused ")
    assert "…" in redacted
    assert "CANARY1" not in redacted
    assert "dXNl" not in redacted


ORDINARY = [
    "the token count is 5, max_tokens=5, prompt_tokens: 120, token budget: 4096, next_token: 17",
    "password must have 8 characters, password: must have 8 characters, Password: required",
    "a bearer token is missing, Bearer authentication is required, Bearer of good news, 2024 was a year",
    "Basic äöüäöüäöü, basic knowledge of secrets, Basic plan, Authorization: Basic plan, Authorization: required",
    "design=blue, signal: red, compass: north, pass: 12, tests pass: 3/4, pass^3 = 0.8",
    "at 10:30 the ratio is 3:4, at 12:30@home; see https://docs.test/a?b=c",
    "write to mailto:me@desk.test or me@desk.test, Contact:ada1815@example.com",
    "resp_68a1b2c3d4e5f60718293a4b5c6d7e8f, msg_68a1b2c3, call_abc123DEF456ghi789, mcpr_1234567890abcdef",
    "trace tr-0123456789abcdef0123456789abcdef, request 0f8fad5b-d9cd-469f-a165-70867728950e at 2026-11-23T10:30:00.1Z",
    "error-e22 M-1045 5ad9fda84e2792726c9d0740c0882797392f4dbe20726aae8f6bbe707d4e59b6",
    "SHA-1 da39a3ee5e6b4b0d3255bfef95601890afd80709, sha256:5ad9fda84e2792726c9d0740c0882797392f4dbe20726aae",
    "sha512-oqVuAfXRKap7fdgcCY5uykM6+R9GqQ8K/uxy9rx7HNQlGYl1kPzQho1wx4JwY8wCp3V0jvNRmM2gEKtOmZqXsQ==",
    "python:3.11@sha256:0123456789abcdef, actions/checkout@v4, https://medium.com/@user, models:/desk@champion",
    "git@github.com:org/repo.git, ssh://git@github.com/org/repo, abfss://data2@acct.dfs.core.windows.net/x",
    "http://example.com:8080/a@b, https://org@dev.azure.com/org, mailto:me@example.com",
    "30 €/month, 5 km/h, 12/27, /srv/x and/or y, version 1.2.3-beta.4+build.5, 0x7f3a2b1c, €1,234.50",
    "sk-learn and sk-learn-contrib, task-0001-of-0016-in-the-long-list",
    "sk-learn-contrib-2024-edition-of-september, sk_an_identifier_with_4_parts_and_more",
    "dose: 3 tablets; dapibus; ghp; hf_hub; npm_config_cache; eyJ; eyJust so, glpat, xoxo, key-results-2024-final",
    "Unexpected token < in JSON at position 0, unexpected token: identifier, unexpected token 'foo'",
    "unknown fields: ['password', 'token', 'user_name', 'api_key', 'id']",
    "KeyError: 'password', missing 1 required argument: 'token', an unexpected keyword argument 'api_key'",
    "password\n  Field required [type=missing], api_key: Field required, token: Input should be a valid string",
    '{"token": null, "password": "", "properties": {"token": {"type": "string"}}}',
    "password=$DB_PASSWORD, token=${TOKEN}, api_key=YOUR_KEY, api_key=<your key>, secret={{secrets/scope/key}}",
    "password: ********, sk-...abcd, sk-proj-****wxyz, token=%s, api_key=get_key()",
    '{"next_page_token": "a1b2c3d4e5f6g7h8", "NextToken": "a1b2c3d4e5f6g7h8"}',
    "signature: question -> answer; primary key: id; key=value; the secret is patience",
    "access key: the one of door 4711, AccountKey=… and sig= on page 3, credentials: agent",
    "cookie: the user must accept; see https://x.test/cookies. session_id=42",
    "the hotpot: no, mkdir -p some/folder2, mysql -p, see https://x.test/?code=1234&key=name-of-a-thing",
    "the token is too long, the password is required, token 'user_name' was given, the secret is in file2",
    "the token used gpt4o-mini, access key used v2beta1x, a token given step2-of-3",
    "DATABRICKS_TOKEN isn't set. Run: export OPENAI_API_KEY=…",
    "usage: cmd --token TOKEN --password PASSWORD --max-tokens 512; docker run -u 1000:1000 --user app:app",
    "Access denied for user 'root'@'localhost' (using password: YES)",
    "AKIAMONDE, AIzawl, Bearer: the person in question is 42",
    "risk_assessment_of_2024_final_version_3, desk-with-drawers-and-lamp-2",
    "gpt-4o-mini-2024-07-18, meta-llama/Llama-3.3-70B-Instruct, databricks-claude-sonnet-4",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_texts_are_unchanged(text: str):
    assert redact(text) == text
    assert find_secrets(text) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The password: swordfish", "possible_assignment"),
        ("The password: must-have-12-characters. A token: task_0001_of_the_list.", "possible_assignment"),
        ("refused: Bearer abc", "possible_authorization"),
    ],
)
def test_words_after_secret_names_are_uncertain(text: str, kind: str):
    assert {secret.kind for secret in find_secrets(text)} == {kind}
    assert find_secrets(text, without=UNCERTAIN) == []


def test_of_overlapping_kinds_the_issuers_is_reported():
    (found,) = find_secrets("Authorization: Bearer ghp_a1b2c3d4e5f6g7h8i9j0 and more")
    assert (found.kind, found.span) == ("github", (15, 46))


@pytest.mark.parametrize("variable", ["ACME_API_KEY", "AWS_SECRET_ACCESS_KEY", "AZURE_OPENAI_KEY", "MY_CLIENT_SECRET"])
def test_secrets_of_the_environment_have_any_format(variable: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(variable, "plum/4711/orchard")
    assert redact("It said plum/4711/orchard.") == "It said …."
    for harmless in ("word", "a sentence with 12 words"):
        monkeypatch.setenv(variable, harmless)
        assert redact(f"A {harmless}.") == f"A {harmless}."


def test_the_working_directory_is_no_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PWD", "/home/ada/agents2")
    assert redact("in /home/ada/agents2") == "in /home/ada/agents2"


@pytest.mark.parametrize(
    "name", ["api_key", "X-Api-Key", "accessToken", "aws_secret_access_key", "client_secret", "passwd", "DB_PASS"]
)
def test_names_of_secrets(name: str):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["sort_key", "api_key_env", "max_tokens", "compass", "key", "next_page_token"])
def test_names_of_other_values(name: str):
    assert not is_secret_name(name)


REPEATED = ["a", "\\", " ", "sk-", "eyJ", "eyJaaaaaaaa.", "ghp_", "AKIA", "://", "://a:", "a:b@", "A1", "1//0", "--"]
REPEATED += ["token=", "token:", "token: ", "token=f(", "token: 'a", 'token: "a ', '\\"token\\": \\"a ', "token\\"]
REPEATED += ["password ", "authorization:", "authorization: digest ", "bearer=", "cookie=", "secret is ", "-----BEGIN "]


@pytest.mark.parametrize("part", REPEATED)
def test_long_texts_are_read_in_linear_time(part: str):
    find_secrets(part * (300_000 // len(part)))  # takes hours in quadratic time
