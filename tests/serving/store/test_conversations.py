"""Conversations by id: on any replica, for the key that made them, until they are deleted or expire."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.store.agents import ask, desk, scripted_lm, text
from tests.serving.store.conftest import Server

QUESTION = "My word is code-seed"


def refusal(answer: Any) -> tuple[int, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_continues_on_another_replica(server: Server, stream: bool):
    first = ask(server(desk()), QUESTION, stream)
    assert (first["store"], first["previous_response_id"]) == (True, None)
    second = ask(server(desk()), "And code-two?", stream, previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    assert text(second) == "I heard code-seed code-two."
    third = ask(server(desk()), "Which?", stream, previous_response_id=second["id"])
    assert text(third) == "I heard code-seed code-two."


@pytest.mark.parametrize("stream", [False, True])
def test_a_stored_response_is_read_and_deleted(server: Server, stream: bool):
    made = ask(server(desk()), QUESTION, stream)
    client = server(desk())
    path = f"/v1/responses/{made['id']}"
    assert client.get(path).json() == made
    assert client.delete(path).json() == {"id": made["id"], "object": "response", "deleted": True}
    for answer in (client.get(path), client.delete(path)):
        assert refusal(answer) == (404, "not_found")
    sent = client.post("/v1/responses", json={"input": "?", "previous_response_id": made["id"]})
    assert refusal(sent) == (404, "previous_response_not_found")


def test_an_approval_is_asked_for_and_given_by_ids(server: Server):
    asked = ask(server(desk()), "A refund, please.")
    request = asked["output"][-1]
    assert request["type"] == "mcp_approval_request"
    answer = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}
    done = ask(server(desk()), [answer], previous_response_id=asked["id"])
    assert "150 euros are on their way" in text(done)


@pytest.mark.parametrize("stream", [False, True])
def test_items_are_referred_to(server: Server, stream: bool):
    """As ``@ai-sdk/openai`` does from the second turn on."""
    question = {"role": "user", "content": "A refund, please."}
    asked = ask(server(desk()), [question], stream)
    references = [{"type": "item_reference", "id": item["id"]} for item in asked["output"]]
    assert [item["type"] for item in asked["output"]] == ["reasoning", "mcp_call", "reasoning", "mcp_approval_request"]
    answer = {"type": "mcp_approval_response", "approval_request_id": references[-1]["id"], "approve": True}
    done = ask(server(desk()), [question, *references, answer], stream)
    assert "150 euros are on their way" in text(done)
    [*_, last_item] = done["output"]
    last = {"role": "user", "content": "And code-two?"}
    third = ask(server(desk()), [{"role": "user", "content": "Hello"}, {"id": last_item["id"]}, last], stream)
    assert text(third) == "I heard code-two."


def test_instructions_are_not_carried_over(server: Server):
    agent = desk()
    client, lm = server(agent), scripted_lm(agent)
    first = ask(client, QUESTION, instructions="Be terse.")
    ask(client, "?", previous_response_id=first["id"])
    assert ["Be terse." in request.text for request in lm.requests] == [True, False]
    assert QUESTION in lm.requests[-1].text


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_to_be_stored_is_not(server: Server, stream: bool):
    client = server(desk())
    seed = ask(client, QUESTION)
    made = ask(client, "code-two", stream, store=False, previous_response_id=seed["id"])
    assert (made["store"], text(made)) == (False, "I heard code-seed code-two.")
    assert refusal(client.get(f"/v1/responses/{made['id']}")) == (404, "not_found")
    reference = [{"type": "item_reference", "id": made["output"][-1]["id"]}, {"role": "user", "content": "?"}]
    assert refusal(client.post("/v1/responses", json={"input": reference})) == (404, "item_not_found")


def test_an_id_is_only_good_for_its_key(server: Server):
    mine = server(desk(), key="a-key-of-mine")
    made = ask(mine, QUESTION)
    path, reference = f"/v1/responses/{made['id']}", {"type": "item_reference", "id": made["output"][-1]["id"]}
    continued = {"input": "?", "previous_response_id": made["id"]}
    other, user = server(desk(), key="another-key"), server(desk(), key="a-key-of-mine")
    user.headers["X-Forwarded-User"] = "eve"
    for client in (other, user, server(desk())):
        unknown = client.get("/v1/responses/resp_" + "0" * 32)
        assert refusal(client.get(path)) == refusal(client.delete(path)) == refusal(unknown) == (404, "not_found")
        assert refusal(client.post("/v1/responses", json=continued)) == (404, "previous_response_not_found")
        sent = client.post("/v1/responses", json={"input": [reference, {"role": "user", "content": "?"}]})
        assert refusal(sent) == (404, "item_not_found")
    assert mine.get(path).json() == made


def test_a_deleted_turn_breaks_the_conversation(server: Server):
    client = server(desk())
    first = ask(client, QUESTION)
    second = ask(client, "code-two", previous_response_id=first["id"])
    client.delete(f"/v1/responses/{first['id']}")
    sent = client.post("/v1/responses", json={"input": "?", "previous_response_id": second["id"]})
    assert refusal(sent) == (404, "previous_response_not_found")
    assert first["id"] in sent.json()["error"]["message"]
    assert client.get(f"/v1/responses/{second['id']}").status_code == 200


WRONG = {
    "store": ({"store": "yes"}, 400, "store"),
    "id": ({"previous_response_id": 7}, 400, "previous_response_id"),
    "form of id": ({"previous_response_id": "resp_'; DROP TABLE\x00"}, 404, "previous_response_id"),
    "no id": ({"input": [{"type": "item_reference"}]}, 400, "input"),
    "conversation": ({"conversation": "conv_1"}, 400, "conversation"),
    "background": ({"background": True}, 400, "background"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_fields_are_refused_by_name(server: Server, case: str):
    fields, status, param = WRONG[case]
    sent = server(desk()).post("/v1/responses", json={"input": "?", **fields})
    assert (sent.status_code, sent.json()["error"]["param"]) == (status, param)


@pytest.mark.parametrize("query", ["stream=true", "include=message.output_text.logprobs", "starting_after=3"])
def test_a_stored_response_isn_t_streamed(server: Server, query: str):
    client = server(desk())
    made = ask(client, QUESTION)
    sent = client.get(f"/v1/responses/{made['id']}?{query}")
    assert (sent.status_code, sent.json()["error"]["param"]) == (400, query.partition("=")[0])
    assert client.get(f"/v1/responses/{made['id']}?stream=false").json() == made


@pytest.mark.parametrize("id", ["%00", "resp_%27%3B%20DROP%20TABLE", "resp_%F0%9F%8D%B0", "x" * 5000, "..%2F..%2Fetc"])
def test_ids_of_other_forms_are_not_found(server: Server, id: str):
    client = server(desk())
    assert client.get(f"/v1/responses/{id}").status_code == 404
    assert client.delete(f"/v1/responses/{id}").status_code == 404


def test_mlflow_s_paths_keep_nothing(server: Server):
    client = server(desk())
    for path in ("/responses", "/invocations"):
        sent = client.post(path, json={"input": [{"role": "user", "content": QUESTION}]})
        assert refusal(client.get(f"/v1/responses/{sent.json()['id']}")) == (404, "not_found")
        refused = client.post(path, json={"input": "?", "store": True})
        assert refused.json()["error"]["param"] == "store"
