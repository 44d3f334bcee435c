"""The OpenAI Agents SDK with two tools, on a server at a URL; one JSON object on stdout. Run by tests/test_clients.py.

python agents_python.py URL MODEL chat|responses whole|stream QUESTION
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from two_tools import add, called, temperature


async def main(url: str, name: str, api: str, how: str, question: str) -> dict[str, Any]:
    """Runs the agent; what it said, what it called, and what the stream held."""
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    kind = OpenAIResponsesModel if api == "responses" else OpenAIChatCompletionsModel
    agent = Agent(
        name="thermometer",
        instructions="Answer from the tools.",
        tools=[function_tool(temperature), function_tool(add)],
        model=kind(model=name, openai_client=client),
        model_settings=ModelSettings(include_usage=True),
    )
    pieces: dict[str, int] = {}
    if how == "stream":
        run = Runner.run_streamed(agent, question)
        async for event in run.stream_events():
            if event.type == "raw_response_event":
                pieces[event.data.type] = pieces.get(event.data.type, 0) + 1
    else:
        run = await Runner.run(agent, question)
    usage = run.context_wrapper.usage
    return {
        "final": run.final_output, "called": called, "items": [i.type for i in run.new_items], "pieces": pieces,
        "requests": usage.requests, "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.output_tokens_details.reasoning_tokens,
    }  # fmt: skip


print(json.dumps(asyncio.run(main(*sys.argv[1:6]))))
