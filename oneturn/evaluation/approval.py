"""Policies decide on tool calls that need a person's approval while an agent is evaluated or compiled.

Without a policy such a call is never run: its row ends in ``approval_required``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from oneturn.core.steps import WaitingCall
from oneturn.errors import ProgramError
from oneturn.programs.react import approving_calls
from oneturn.responses.reply import ApprovalRequest

ApprovalPolicy = Callable[[ApprovalRequest], bool]
"""Called with each call that needs approval; returns whether it is run. ``False`` refuses it, and the LM reads that."""


def approve_all(request: ApprovalRequest) -> bool:
    """Approve every call: the tools run for real."""
    return True


def approve_none(request: ApprovalRequest) -> bool:
    """Refuse every call."""
    return False


def decide(policy: ApprovalPolicy, request: ApprovalRequest) -> bool:
    """Return the policy's decision.

    Raises:
        ProgramError: it isn't a boolean.
    """
    verdict = policy(request)
    if not isinstance(verdict, bool):
        raise ProgramError(f"The approval policy returned {verdict!r:.80} for {request.name}; return True or False.")
    return verdict


def approval_required(names: Iterable[str]) -> str:
    """Return the error of a row whose run ended at calls of these tools."""
    return f"approval_required: {', '.join(names)} needs a person's approval"


@contextmanager
def use_approval_policy(
    policy: ApprovalPolicy | None, on_approved: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """In the block, programs that are called ask ``policy`` about each call that needs approval.

    Args:
        policy: decides; ``None`` leaves what an outer block has set.
        on_approved: called before each approved call is run.
    """
    if policy is None:
        yield
        return

    def approve(call: WaitingCall) -> bool:
        arguments = json.dumps(call.args, ensure_ascii=False)
        approved = decide(policy, ApprovalRequest("", call.name, arguments, "oneturn"))
        if approved:
            on_approved()
        return approved

    with approving_calls(approve):
        yield
