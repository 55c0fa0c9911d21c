"""Agents of pydantic-ai, over three dialects."""

import pydantic
import pytest
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from dsml import thought, tool_calls


def chat(server):
    return OpenAIChatModel("default", provider=OpenAIProvider(base_url=server.v1, api_key="x"))


def responses(server):
    provider = OpenAIProvider(base_url=server.v1, api_key="x")
    return OpenAIResponsesModel("default", provider=provider)


def messages(server):
    provider = AnthropicProvider(base_url=server.origin, api_key="x")
    return AnthropicModel("default", provider=provider)


EVERY = pytest.mark.parametrize("model_of", [chat, responses, messages])


@EVERY
def test_an_agent_with_a_tool(serve, model_of):
    server = serve(
        thought("Ask.", tool_calls(("stock", {"item": "bolts"}), ("stock", {"item": "nuts"}))),
        thought("Known.", "12 bolts, 4 nuts"),
    )
    asked = []
    agent = Agent(model_of(server), system_prompt="Use the tool.")

    @agent.tool_plain
    def stock(item: str) -> int:
        """How many there are."""
        asked.append(item)
        return {"bolts": 12, "nuts": 4}[item]

    result = agent.run_sync("What is there?")
    assert result.output == "12 bolts, 4 nuts"
    assert sorted(asked) == ["bolts", "nuts"]
    assert result.usage.cache_read_tokens > 0


class City(pydantic.BaseModel):
    """A city."""

    name: str
    people: int


@EVERY
def test_a_typed_output(serve, model_of):
    text = thought("x", tool_calls(("final_result", {"name": "Rome", "people": 2748109})))
    agent = Agent(model_of(serve(text)), output_type=City)
    assert agent.run_sync("Where?").output == City(name="Rome", people=2748109)
