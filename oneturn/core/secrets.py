"""What a secret looks like: find credentials in a text, and redact them. Error messages never repeat them."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple


class Secret(NamedTuple):
    """A secret in a text.

    Attributes:
        kind: its kind, one of :data:`KINDS`.
        span: its start and end in the text.
    """

    kind: str
    span: tuple[int, int]


def find_secrets(text: str, *, without: Collection[str] = ()) -> list[Secret]:
    """Return the secrets in a text, in order and without overlaps, in time linear in its length.

    Args:
        text: the text.
        without: kinds to ignore, such as :data:`UNCERTAIN`.
    """
    secrets: list[Secret] = []
    for start, end, kind in sorted(match for match in _matches(text) if match[2] not in without):
        if secrets and start < secrets[-1].span[1]:
            earlier = secrets.pop()
            kind = min(earlier.kind, kind, key=KINDS.index)
            start, end = earlier.span[0], max(earlier.span[1], end)
        secrets.append(Secret(kind, (start, end)))
    return secrets


def redact(text: str, replacement: str = "…", *, without: Collection[str] = ()) -> str:
    """Return the text with ``replacement`` in place of each secret that :func:`find_secrets` finds."""
    parts, position = [], 0
    for _, (start, end) in find_secrets(text, without=without):
        parts += [text[position:start], replacement]
        position = end
    return "".join([*parts, text[position:]])


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Whether the name of a key or variable, such as ``api_key``, says that its value is a secret."""
    return bool(_SECRET_NAME.search(name))


def is_like_a_key(value: str) -> bool:
    """Whether a value under a secret name may be one: 12 or more characters without spaces, and not only letters."""
    return len(value) >= 12 and not _SPACE.search(value) and bool(_MIXED.match(value) or _is_random(value))


def environment_secrets() -> dict[str, str]:
    """Return the secrets of the environment, by name: values like keys of variables such as ``OPENAI_API_KEY``."""
    return {
        name: value
        for name, value in os.environ.items()
        if (is_secret_name(name) or name.endswith("_KEY")) and not name.endswith("PWD") and is_like_a_key(value)
    }


def leaves(value: Any, path: str = "", key: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield each scalar in mappings and lists, with its dotted path and the nearest mapping key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else str(name), str(name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}.{index}", key)
    else:
        yield path, key, value


# Kind, how random a match must be, the prefixes that the issuer documents, what follows them. From 2 on, it needs a run
# of so many letters and digits that mixes them, as no words and dates do; with 1, it must mix them as a whole.
_ISSUED = (
    ("anthropic", 1, "sk-ant-", r"[\w-]{10,}"),
    ("stripe", 1, "rk_live_ rk_test_ sk_live_ sk_org_ sk_prod_ sk_test_ whsec_", r"[\w+/=]{10,}"),
    ("openai", 12, "sk- sk_ sess-", r"[\w-]{12,}"),  # many others have the same
    ("databricks", 0, "dapi dkea dose", r"[0-9a-f]{16,}(?:-\d+)?"),
    ("github", 1, "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"\w{16,}(?:[.-][\w-]+)*"),
    ("gitlab", 1, "glpat- gldt- glrt- glrtr- glcbt- glptt- glft- glimt- glagent- glsoat- gloas- GR1348941",
     r"[\w-]{16,}(?:\.\w+){0,3}"),
    ("slack", 1, "xoxa- xoxb- xoxc- xoxd- xoxe- xoxo- xoxp- xoxr- xoxs- xoxe.xoxb- xoxe.xoxp- xapp- xwfp-",
     r"[\w-]{10,}"),
    ("npm", 16, "npm_", r"[A-Za-z0-9]{16,}"),
    ("pypi", 12, "pypi-", r"[\w-]{16,}"),
    ("huggingface", 16, "hf_ api_org_", r"[A-Za-z0-9]{16,}"),
    ("groq", 16, "gsk_", r"[A-Za-z0-9]{16,}"),
    ("aws", 0, "AKIA ASIA ABIA ACCA", r"""(?:[0-9A-Z]{16}|(?=[A-Z]*\d)[0-9A-Z]{12,})(?!\w)
        (?:[\s:,;|/"']{1,8}[A-Za-z0-9+/]{40}(?![\w+/=]))?"""),
    ("aws", 0, "ABSK bedrock-api-key-", r"[\w+/-]{30,}=*"),
    ("google", 1, "AIza ya29. GOCSPX- 1//0 AQ.Ab", r"[\w-]{16,}(?:\.[\w-]+)*"),
    ("jwt", 0, "eyJ", r"[\w-]{6,}\.[\w-]{2,}(?:\.[\w-]+){0,3}"),
    ("other_issuer", 1, """AGE-SECRET-KEY-1 ATATT3 NRAK- PMAK- dckr_oat_ dckr_pat_ doo_v1_ dop_v1_ dor_v1_
        figd_ glc_ glsa_ hvb. hvr. hvs. lin_api_ lsv2_pt_ lsv2_sk_ ntn_ nvapi- pcsk_ pplx- pscale_tkn_ rubygems_
        sb_secret_ sbp_ shpat_ shpca_ shppa_ shpss_ sntrys_ sntryu_ tgp_v1_ tvly- xai-""",
     r"[\w=-]{16,}(?:\.[\w=-]+)*"),
    ("other_issuer", 16, "ATBB SG. csk- fw_ key- pul- r8_", r"[\w=-]{16,}(?:\.[\w=-]+)*"),
)  # fmt: skip
UNCERTAIN = frozenset({"possible_authorization", "possible_assignment"})
"""Kinds that may be ordinary words: what follows ``password:`` or ``Bearer`` and isn't random."""

KINDS = (
    *("environment", "private_key", *dict.fromkeys(kind for kind, *_ in _ISSUED), "azure", "webhook", "url_password"),
    *("signed_url", "authorization", "cookie", "assignment", *sorted(UNCERTAIN)),
)
"""The kinds of secrets. Of two that overlap, the earlier one is reported."""

_SPACE = re.compile(r"\s")
_MIXED = re.compile(r"(?=\S*\d)(?=\S*[A-Za-z])")
_BY_PREFIX = {
    prefix: (kind, run, re.compile(body, re.VERBOSE))
    for kind, run, prefixes, body in _ISSUED
    for prefix in prefixes.split()
}
_PREFIX = re.compile("|".join(map(re.escape, sorted(_BY_PREFIX, key=len, reverse=True))))
_ESCAPED = r"(?<=\\[nrt])|(?<=\\u00[0-9A-Fa-f]{2})|(?<=%[0-9A-Fa-f]{2})"  # the end of an escape is no part of a word
_START = re.compile(rf"(?<![\w-])|{_ESCAPED}")
_PRIVATE_KEY = re.compile(
    r"(?P<secret>-{4,5} ?BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)? ?-{4,5}(?:.*?-----END[A-Z0-9 ]*-----|.*)"
    r"|PuTTY-User-Key-File-\d.*)",
    re.DOTALL,
)
_AZURE = re.compile(
    rf"""(?:(?<![\w+/-])|{_ESCAPED})(?P<secret>[A-Za-z0-9+/]{{86}}==|[A-Za-z0-9]{{52}}JQQJ9[A-Za-z0-9]{{20,}}
        |[A-Za-z0-9]{{76}}AZDO[A-Za-z0-9]{{4}}|[\w~.-]{{3}}\dQ~[\w~.-]{{31,}})(?![\w+/=])""",
    re.VERBOSE,
)
_WEBHOOK = re.compile(
    r"""(?:hooks\.slack\.com/(?:services|triggers|workflows)|discord(?:app)?\.com/api/webhooks|api\.telegram\.org
        |webhook\.office\.com/webhookb2)/(?P<secret>[^\s"'<>\\]+)""",
    re.VERBOSE,
)
_SIGNED_URL = re.compile(
    r"""(?:[?&;]|\\u0026|%26)(?:sig|signature|x-amz-(?:credential|security-token|signature)|x-goog-signature)(?:=|%3d)
        (?P<secret>[^\s&;"'<>\\]+)""",
    re.VERBOSE | re.IGNORECASE,
)
_IN_QUERY = re.compile(r"""[?&;](?:code|key)(?:=|%3d)(?P<secret>[^\s&;"'<>\\]{16,})""", re.IGNORECASE)
_IN_URL = re.compile(r"""(?<=://)(?P<secret>[^/\s?#:@"'<>]*(?P<password>:(?!\d+[?#])[^/\s"'<>]+)?)@(?=[\w.\[-])""")
_BEFORE_HOST = re.compile(
    rf"""(?:(?<![\w/.+@%\\-])|{_ESCAPED})(?P<secret>[\w.+-]{{1,100}}:[^\s@/:\\"'<>]{{1,100}})@  # user:password@host
        (?!sha\d)(?P<mysql>(?:tcp|unix)\()?[\w.-]""",
    re.VERBOSE,
)
_NO_USER = re.compile(r"\d+|acct|author|b?cc|by|contact|e?-?mail|from|im|mailto|owner|sips?|tel|to|user|xmpp")
_LOGIN = re.compile(
    r"""(?:-u(?:ser)?[ =]["']?[\w.@+-]{1,100}:  # of curl
        |\bsshpass\s{1,4}-p\s{0,4}["']?|\bmysql\w{0,10}\s(?:[^\n]{0,100}?\s)?-p["']?)(?P<secret>[^\s"']+)""",
    re.VERBOSE,
)

_NAME = r"""passw(?:or)?[dt]|passphrase|passcode|pwd|otp(?<![a-z0-9]otp)|secret[ _-]?key|secret|credentials?
    |connection[ _-]?string
    |token(?<!page[ _-]token)(?<!pagetoken)(?<!next[ _-]token)(?<!nexttoken)(?<!continuation[ _-]token)
    |access[ _-]?key|account[ _-]?key|admin[ _-]?key|api[ _-]?key|consumer[ _-]?key|encryption[ _-]?key
    |functions?[ _-]?key|master[ _-]?key|private[ _-]?key|shared[ _-]?key|signing[ _-]?key|storage[ _-]?key
    |subscription[ _-]?key|jsessionid|phpsessid|pass(?<=[_-]pass)"""
_SECRET_NAME = re.compile(rf"(?:{_NAME})$", re.VERBOSE | re.IGNORECASE)
# Searched for in lower case, many times as fast as without regard to case.
_HINT = re.compile(rf"{_NAME}|pass|auth|bearer|basic|cookie", re.VERBOSE)
_LOWER = str.maketrans({letter: letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"})
_IS = r"""(?:[\\"'\]*`]{0,6}\s{0,8}(?:=>|:=|==?|:|%3d)[*`]{0,2}\s{0,8}|["'],\s{0,2}b?(?=["']))"""
_ASSIGNMENT = re.compile(
    rf"""(?P<name>{_NAME}|auth(?<=_auth)(?==)|pass(?<![\w-]pass)(?==))(?:_?\d)?(?P<is>{_IS}|>(?=[^<>\s]{{1,200}}</))
        (?:"(?P<double>(?:[^"\\\n]|\\.)*)"|'(?P<single>(?:[^'\\\n]|\\.)*)'
        |\\{{1,8}}(?P<quote>["'])(?P<escaped>[^\n]*?)\\{{1,8}}(?P=quote)  # of JSON in a text
        |\\{{0,8}}["'](?P<truncated>[^\n]+)
        |\(?(?P<bare>(?![\[{{(<])(?:(?![;&,]\s?[\w .-]{{1,40}}[=:]|</)[^\s"])+))""",
    re.VERBOSE | re.IGNORECASE,
)
_AFTER_NAME = re.compile(
    rf"""(?:{_NAME})["'`]?\s{{1,4}}(?P<link>(?:(?:code|given|is|provided|supplied|used|value|was)\s{{0,2}}:?\s{{1,4}}){{0,2}}
        ["'`(]?)(?P<secret>[^\s"'<>\[-][^\s"']*)""",
    re.VERBOSE | re.IGNORECASE,
)
_SAID = re.compile(r"""\b(?:is|value|was)\s|:\s|["'`(]$""", re.IGNORECASE)
_OPTION = re.compile(r"(?:--[\w-]*|\blogin\s{1,4}\S{1,100}\s{1,4})$")  # also of .netrc
_HEADER = re.compile(
    rf"""authori[sz]ation{_IS}[\\"'`]{{0,4}}
        (?P<secret>(?:aws4-hmac-sha\d+|digest|hawk|oauth|vapid)\s[^\n=]{{1,100}}=[^\n]+
        |(?:(?P<scheme>apikey|basic|bearer|bot|jwt|key|negotiate|ntlm|sharedkey|splunk|token)(?:\s{{1,4}}|%20))?
         (?P<credential>[^\s"'\\,;]+))""",
    re.VERBOSE | re.IGNORECASE,
)
_SCHEME = re.compile(
    r"""(?P<scheme>bearer|basic)(?:\s{1,4}|%20|\s{0,2}[:=]\s{0,2})[\\"'`]{0,4}(?P<secret>[^\s"'\\,;<>]+)""",
    re.IGNORECASE,
)
_COOKIE = re.compile(
    rf"""cookies?{_IS}[\\"'`]{{0,4}}
        (?P<secret>[\w.$%+-]+=[^\s;,"'\\]{{4,}}(?:;\s?[\w.$%+-]+(?:=[^\s;,"'\\]*)?)*)""",
    re.VERBOSE | re.IGNORECASE,
)
_ORDINARY = re.compile(
    r"""agent|an?|and|are|as|at|auth\w*|basic|bearer|bool(?:ean)?|by|bytes|can(?:'t|not)?|credentials?|empty|expected
    |expired|false|field|float|for|from|given|got|has|have|header|hidden|in|incorrect|input|int(?:eger)?|invalid
    |is(?:n't)?|it|key|masked|may|missing|must|nil|no|none|not|null|off?|ok|on|optional|or|password|redacted|removed
    |required|scheme|secret|see|set|should|str(?:ing)?|that|the|this|to|tokens?|too|true|undefined|unknown|unset|use
    |user|value|was|with|wrong|yes""",
    re.VERBOSE | re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"""[\w-]{0,12}(?:…|\.{3}|\*{2}|[xX]{3})[….*xX]*[\w-]{0,8}|<.*|[\[(].*|(?i:your)[\W_].*|[A-Z]{2,}(?:_[A-Z0-9]+)+
    |\$\{\w+\}?|\$[A-Z_]+|%s|%\(\w+\)s|%[A-Z_]+%|os\..*|[A-Za-z_][\w.]*\((?:["'].*|\w+=.*)?""",
    re.VERBOSE,
)
_WORDS = re.compile(r"_*(?:[A-Za-z]+|\d+)(?:[-_./]+(?:[A-Za-z]+|\d+))*")
_SYMBOL = re.compile(r"[!@#$%^&*+=~?]")
_PUNCTUATION = ".,;:!?)]}>*`'\"”’»“…"


def _matches(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and kind of each match; matches may overlap."""
    for value in environment_secrets().values():
        yield from ((*match.span(), "environment") for match in re.finditer(re.escape(value), text))
    for prefix in _PREFIX.finditer(text) if any(prefix in text for prefix in _BY_PREFIX) else ():
        kind, run, body = _BY_PREFIX[prefix[0]]
        match = body.match(text, prefix.end()) if _START.match(text, prefix.start()) else None
        if match and (not run or _is_random(match[0], run)):
            yield prefix.start(), match.end(), kind
    for parts, pattern, classify in _ANYWHERE:
        for match in pattern.finditer(text) if any(part in text for part in parts) else ():
            if found := _classified(match, classify):
                yield found
    position = 0
    lowered = text.lower()
    for hint in _HINT.finditer(lowered if len(lowered) == len(text) else text.translate(_LOWER)):  # İ becomes two
        for pattern, classify in _AT_HINT.get(hint[0], _AT_NAME) if hint.start() >= position else ():
            if (match := pattern.match(text, hint.start())) and (found := _classified(match, classify)):
                yield found
                position = hint.end() if _SPACE.search(text, *found[:2]) else found[1]  # a text may have more
                break


_Classify = Callable[[re.Match[str], str], str | None]


def _classified(match: re.Match[str], classify: _Classify) -> tuple[int, int, str] | None:
    """Return start, end and kind of a match's value; ``None`` if it isn't a secret."""
    groups = match.groupdict()
    group = next(name for name in _VALUES if groups.get(name) is not None)
    value = groups[group] if group in ("double", "single", "escaped") else groups[group].rstrip(_PUNCTUATION)
    kind = classify(match, value)
    return (match.start(group), match.start(group) + len(value), kind) if kind else None


_VALUES = ("secret", "double", "single", "escaped", "truncated", "bare")


def _is_random(text: str, run: int = 8) -> bool:
    """Whether a text has a run of at least so many letters and digits that mixes them; with 1, all are one."""
    if run == 1:
        return _is_mixed("".join(re.findall(r"[A-Za-z0-9]+", text)))
    return any(map(_is_mixed, re.findall(rf"[A-Za-z0-9]{{{run},}}", text)))


def _is_mixed(run: str) -> bool:
    if any(map(str.isdigit, run)):
        return not run.isdigit()
    return len(run) >= 16 and 1 / 4 <= sum(map(str.isupper, run)) / len(run) <= 3 / 4  # camel case has fewer capitals


def _is_ordinary(value: str) -> bool:
    """Whether a value is a word that no secret is, or stands for a secret."""
    if len(value) > 100:
        return False
    is_word = _ORDINARY.fullmatch(value) or value.startswith("{") or not any(map(str.isalnum, value))
    return bool(is_word or (_PLACEHOLDER.fullmatch(value) and not _is_random(value)))


def _always(kind: str) -> _Classify:
    return lambda match, value: None if _is_ordinary(value) else kind


def _in_url(match: re.Match[str], value: str) -> str | None:
    if password := match["password"]:
        return None if _PLACEHOLDER.fullmatch(password, 1) else "url_password"
    if not match.string.endswith(("http://", "https://"), 0, match.start()):  # a user's name
        return None
    is_mixed = any(map(str.isdigit, value)) and any(map(str.isupper, value))
    return "url_password" if is_mixed or len(value) >= 20 or _is_random(value, 16) else None


def _before_host(match: re.Match[str], value: str) -> str | None:
    user, _, password = value.partition(":")
    is_secret = match["mysql"] or (len(password) > 4 and any(map(str.isdigit, password)))
    return "url_password" if is_secret and not _NO_USER.fullmatch(user.lower()) else None


def _login(match: re.Match[str], value: str) -> str | None:
    return "url_password" if any(map(str.isdigit, value)) and not value.isdigit() else None  # not user:group


def _assigned(match: re.Match[str], value: str) -> str | None:
    if _is_ordinary(value):
        return None
    if match["name"].lower() == "token":
        is_count = len(value) < 8 and value.replace(".", "").isdigit()
        is_syntax = match.string.endswith("xpected ", 0, match.start())  # unexpected token: name
        if is_count or is_syntax:
            return None
    if _SPACE.search(value):
        return "possible_assignment"
    if "," in match["is"]:  # a pair, or a list of names
        return "assignment" if _is_random(value) else None
    if _is_random(value) or (len(value) >= 8 and _SYMBOL.search(value) and _MIXED.match(value)):
        return "assignment"
    is_code = match["bare"] is None or match["is"] in ("=", "==")
    return "assignment" if is_code and len(value) >= 6 and not _WORDS.fullmatch(value) else "possible_assignment"


def _after_name(match: re.Match[str], value: str) -> str | None:
    if not _OPTION.search(match.string, max(0, match.start() - 120), match.start()):
        if _is_random(value, 16):
            return "assignment"
        is_said = _SAID.search(match["link"]) and len(value) >= 6 and _MIXED.match(value) and not _is_ordinary(value)
        return "possible_assignment" if is_said else None
    if _is_ordinary(value) or (value.isupper() and value.isalpha()):  # --token TOKEN
        return None
    return "assignment" if _is_random(value) else "possible_assignment"


def _in_header(match: re.Match[str], value: str) -> str | None:
    if match["credential"] is None:
        return "authorization"
    credential, scheme = match["credential"].rstrip(_PUNCTUATION), (match["scheme"] or "").lower()
    is_word = credential.isalpha() if scheme == "basic" else not scheme and _WORDS.fullmatch(credential)
    if is_word or _is_ordinary(credential):
        return None
    return "authorization" if _is_random(credential) else "possible_authorization"


def _after_scheme(match: re.Match[str], value: str) -> str | None:
    if _is_ordinary(value):
        return None
    if match["scheme"].lower() == "basic":
        return "authorization" if _is_basic(value) else None
    if _is_random(value):
        return "authorization"
    is_word = value.replace("-", "").isalpha() or value.isdigit()
    at_end = match.string[match.end() : match.end() + 1] in ("", '"', "'")
    return "possible_authorization" if not is_word or (at_end and match["scheme"] == "Bearer") else None


def _is_basic(value: str) -> bool:
    """Whether a value is ``user:password`` in Base64, or has the padding of Base64."""
    try:
        return len(value) >= 8 and (value.endswith("=") or b":" in base64.b64decode(value, validate=True))
    except ValueError:
        return False


# A text without these parts has no match; to look for them first is ten times as fast.
_ANYWHERE: list[tuple[tuple[str, ...], re.Pattern[str], _Classify]] = [
    (("PRIVATE KEY", "PuTTY"), _PRIVATE_KEY, _always("private_key")),
    (("==", "JQQJ9", "AZDO", "Q~"), _AZURE, _always("azure")),
    (("hooks", "webhook", "telegram"), _WEBHOOK, _always("webhook")),
    (("=", "%3"), _SIGNED_URL, _always("signed_url")),
    (("://",), _IN_URL, _in_url),
    (("@",), _BEFORE_HOST, _before_host),
    (("-u", "-p"), _LOGIN, _login),
    (("code=", "key=", "%3"), _IN_QUERY, lambda match, value: "signed_url" if _is_random(value, 16) else None),
]
_AT_NAME: list[tuple[re.Pattern[str], _Classify]] = [(_ASSIGNMENT, _assigned), (_AFTER_NAME, _after_name)]
_AT_HINT: dict[str, list[tuple[re.Pattern[str], _Classify]]] = {
    "auth": [(_HEADER, _in_header), (_ASSIGNMENT, _assigned)],
    "bearer": [(_SCHEME, _after_scheme)],
    "basic": [(_SCHEME, _after_scheme)],
    "cookie": [(_COOKIE, _always("cookie"))],
}
