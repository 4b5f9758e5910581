"""What the LM and the client read of a tool that failed."""

from __future__ import annotations

import pytest

from oneturn.errors import ToolError
from oneturn.tools.errors import to_lm_error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ToolError("there is no order 'M-1';\n  ask for its number"), "there is no order 'M-1'; ask for its number"),
        (ValueError("1/0 isn't a number and/or a sum"), "1/0 isn't a number and/or a sum"),
        (KeyError("gold"), "'gold'"),
        (ValueError(), "ValueError"),
        (ToolError("x" * 300), "x" * 199 + "…"),
        (FileNotFoundError(2, "No such file", "/srv/agent/keys.json"), "the tool failed (FileNotFoundError)"),
        (RuntimeError("password is hunter2"), "the tool failed (RuntimeError)"),
        (ValueError("can't read /srv/agent/keys.json: empty"), "can't read …: empty"),
        (ValueError(r"can't read C:\\agent\\keys.json"), "can't read …"),
        (ValueError("see https://docs.test/a/b"), "see https://docs.test/a/b"),
        (ValueError("no answer from https://me:pa55@db.test/x"), "no answer from https://…@db.test/x"),
        (ValueError("refused: Bearer abc.def"), "refused: Bearer …"),
        (ValueError("refused: dapi0123456789abcdef"), "refused: …"),
        (ValueError("token=abc is old"), "token=… is old"),
        (ValueError("can't use /srv/x and/or y"), "can't use … and/or y"),
    ],
)
def test_one_line_without_path_or_secret(error: Exception, text: str):
    assert to_lm_error(error) == text


SECRETS = {
    "GitLab": "glpat-a1b2c3d4e5f6g7h8i9j0",
    "Groq": "gsk_a1b2c3d4e5f6g7h8i9j0k1l2",
    "npm": "npm_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8",
    "AWS, temporary": "ASIA1234567890ABCDEF",
    "Google OAuth": "ya29.a1b2c3d4e5f6g7h8i9j0k1",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAcanary",
    "Slack hook": "https://hooks.slack.com/services/T0001/B0001/canary",
    "Azure SAS": "https://x.test/c?sv=1&sig=canary",
    "JSON": "{'password': 'canary'}",
    "quoted": '"api_key": "canary"',
    "header": "x-api-key: canary",
    "Basic": "Authorization: Basic canary==",
    "Bearer": "bearer canary1",
    "AWS": "AWS_SECRET_ACCESS_KEY=canary",
    "client secret": "client_secret=canary",
    "token": "access_token: canary",
    "connection string": "Server=x;User Id=sa;Pwd=canary;",
    "URL": "postgres://u:canary@db.test/x",
    "JWT": "eyJhbGciOi.eyJcanary.x1",
    "file URL": "file:///srv/canary/x",
    "one folder": "/canary",
    "home": "~/canary/x",
    "Windows": "C:/Users/canary/x.txt",
    "Windows, spaces": r"'C:\\Program Files\\canary.txt'",
    "share": r"\\\\host\\canary\\x",
    "spaces": "/srv/my canary/x.txt",
    "relative": "data/canary/x.txt",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_credentials_and_paths_are_redacted(secret: str):
    text = to_lm_error(ValueError(f"refused: {secret}"))
    assert text.startswith("refused: ")
    assert not any(part in text for part in (secret, "canary", "MIIE"))


def test_a_value_of_the_environment_is_redacted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2-canary-99")
    assert to_lm_error(ValueError("could not use hunter2-canary-99")) == "could not use …"


@pytest.mark.parametrize(
    "text",
    [
        "the token count is 5",
        "the password must have 8 characters",
        "yes and/or no, 5/3, 30 euros/unit, 30 €/month",
        "the token budget is 4096, order resp_68a1b2c3d4e5f607 of 2026-11-23",
        "use the basic authentication of the shop",
        "see https://docs.test/a/b",
        "expected <b>x</b>",
    ],
)
def test_ordinary_text_stays(text: str):
    assert to_lm_error(ValueError(text)) == text
