"""An MCP server with tools of every awkward kind, over stdio, or over HTTP when a port is given."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated, Any

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

server = MCPServer("Odd server!", instructions="Does odd things.")


class Point(BaseModel):
    x: int
    y: int | None = None


@server.tool()
def move(to: Point, speed: Annotated[float, Field(gt=0, description="How fast.")] = 1.0) -> str:
    """Moves."""
    return f"at {to.x},{to.y} with {speed}"


@server.tool(name="say.it now")
def say(text: str) -> str:
    return text


@server.tool()
def fails() -> str:
    raise ToolError("it cannot be done")


@server.tool()
async def waits(ctx: Context[Any, Any]) -> str:
    await ctx.report_progress(1, 2, "half way")
    await asyncio.sleep(60)
    return "never"


@server.tool()
def dies() -> str:
    os._exit(1)


@server.tool()
def draws() -> Image:
    return Image(data=b"\x89PNG\r\n\x1a\n", format="png")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        server.run()
