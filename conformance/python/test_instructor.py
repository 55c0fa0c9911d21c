"""instructor's modes."""

import anthropic
import instructor
import openai
import pydantic
import pytest

from dsml import thought, tool_calls


class Person(pydantic.BaseModel):
    name: str
    age: int


BY_TOOL = thought("x", tool_calls(("Person", {"name": "Ann", "age": 7})))
BY_TEXT = thought("x", '{"name": "Ann", "age": 7}')
QUESTION = [{"role": "user", "content": "Who?"}]


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (instructor.Mode.TOOLS, BY_TOOL),
        (instructor.Mode.JSON, BY_TEXT),
        (instructor.Mode.JSON_SCHEMA, BY_TEXT),
        (instructor.Mode.MD_JSON, BY_TEXT),
    ],
)
def test_chat(serve, mode, text):
    plain = openai.OpenAI(base_url=serve(text).v1, api_key="x", max_retries=0, timeout=60)
    client = instructor.from_openai(plain, mode=mode)
    found = client.chat.completions.create(
        model="default", response_model=Person, messages=QUESTION, max_retries=0
    )
    assert (found.name, found.age) == ("Ann", 7)


@pytest.mark.parametrize(
    ("mode", "text"),
    [(instructor.Mode.TOOLS, BY_TOOL), (instructor.Mode.JSON, BY_TEXT)],
)
def test_messages(serve, mode, text):
    plain = anthropic.Anthropic(
        base_url=serve(text).origin, api_key="x", max_retries=0, timeout=60
    )
    client = instructor.from_anthropic(plain, mode=mode)
    found = client.messages.create(
        model="default", max_tokens=500, response_model=Person, messages=QUESTION, max_retries=0
    )
    assert (found.name, found.age) == ("Ann", 7)


def test_a_wrong_answer_is_asked_for_again(serve):
    wrong = thought("x", tool_calls(("Person", {"name": "Ann", "age": "young"})))
    server = serve(wrong, BY_TOOL)
    plain = openai.OpenAI(base_url=server.v1, api_key="x", max_retries=0, timeout=60)
    client = instructor.from_openai(plain, mode=instructor.Mode.TOOLS)
    found = client.chat.completions.create(
        model="default", response_model=Person, messages=QUESTION, max_retries=2
    )
    assert found.age == 7
