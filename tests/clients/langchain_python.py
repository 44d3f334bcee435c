"""LangChain's stock OpenAI classes on a server at a URL; one JSON object on stdout. Run by tests/test_clients.py.

python langchain_python.py URL MODEL chat|responses QUESTION SUM_QUESTION
"""

from __future__ import annotations

import json
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from two_tools import add, called, temperature


class Number(BaseModel):
    """A number and whether it is odd."""

    n: int
    odd: bool


def main(url: str, name: str, api: str, question: str, other: str) -> dict[str, Any]:
    """One call, a stream, an agent, an answer held to a schema."""
    llm = ChatOpenAI(model=name, base_url=url, api_key="none", max_retries=0, temperature=0, reasoning_effort="high",
                     use_responses_api=api == "responses", stream_usage=True)  # fmt: skip
    whole = llm.invoke(other)
    chunks = list(llm.stream(other))
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    agent = create_agent(llm, [tool(temperature), tool(add)], system_prompt="Answer from the tools.")
    said = agent.invoke({"messages": [{"role": "user", "content": question}]})["messages"]
    held = llm.with_structured_output(Number, method="json_schema").invoke("A number, please.")
    return {
        "whole": whole.text, "usage": whole.usage_metadata, "streamed": total.text, "chunks": len(chunks),
        "stream_usage": total.usage_metadata, "agent": said[-1].text, "called": called,
        "held": held.model_dump(),
    }  # fmt: skip


print(json.dumps(main(*sys.argv[1:6])))
