"""Tools that run in the server, through the published client: a real sandbox, a real folder to browse, a real MCP server."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError

from folding import fold_events, summed
from motet.errors import UsageError
from motet.server import auth
from motet.server.kit import IDLE_S, Workshop
from motet.server.settings import Settings
from motet.tools import sandbox
from serving import E, Script, Served, serving

ODD = f"{sys.executable} {Path(__file__).with_name('mcp_odd_server.py')}"
THINK = "<|channel|>analysis<|message|>canary<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>Done.<|return|>"
PYTHON: list[Any] = [{"type": "code_interpreter", "container": {"type": "auto"}}]
SEARCH: list[Any] = [{"type": "web_search"}]
MCP: list[Any] = [{"type": "mcp", "server_label": "odd", "require_approval": "never"}]
OUTPUTS: list[Any] = ["code_interpreter_call.outputs"]


def confined() -> bool:
    try:
        sandbox.choose(None)
    except Exception:
        return False
    return True


needs_sandbox = pytest.mark.skipif(
    not confined(), reason="nothing here can confine a process; install bubblewrap"
)


def cell(code: str) -> str:
    return f"{THINK}<|channel|>analysis to=python code<|message|>{code}<|call|>"


def browse(function: str, arguments: str) -> str:
    return f"<|channel|>analysis to=browser.{function} code<|message|>{arguments}<|call|>"


def odd(function: str, arguments: str) -> str:
    return f"<|channel|>commentary to=odd.{function} <|constrain|>json<|message|>{arguments}<|call|>"


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    (folder / "owls.md").write_text("# Owls\n\nOwls hunt at night.\n")
    return folder


@pytest.fixture(scope="module")
def all_tools(docs: Path) -> Iterator[Served]:
    tools = ("python", f"browser:{docs}") if confined() else (f"browser:{docs}",)
    with serving(Script([]), Settings(port=0, store="memory", tools=tools, mcp=(f"odd={ODD}",))) as served:
        yield served


@pytest.fixture
def says(all_tools: Served) -> Script:
    """The engine; a test sets what it says."""
    engine: Script = all_tools.host.engine
    engine.prompts.clear()
    return engine


def streamed(served: Served, says: Script, script: list[str], **ask: Any) -> tuple[list[Any], Any]:
    """(events, the response at their end), the fold checked."""
    says._says = list(script)
    events = list(served.client().responses.create(model="scripted", input="hi", stream=True, **ask))
    response = events[-1].response
    assert fold_events(events) == summed(response.output)
    return events, response


def kinds(events: list[Any], item: str) -> list[str]:
    """The events of one item, deltas once."""
    found = [e.type.removeprefix("response.") for e in events if getattr(e, "item_id", None) == item]
    return [k for n, k in enumerate(found) if n == 0 or found[n - 1] != k]


@needs_sandbox
def test_code_runs_and_says_so(all_tools: Served, says: Script) -> None:
    script = [cell("x = 6 * 7\nprint(x)"), cell("open('/mnt/data/a', 'w').write(str(x + 1))"), FINAL]
    events, r = streamed(all_tools, says, script, tools=PYTHON, include=OUTPUTS)
    assert [i.type for i in r.output] == ["reasoning", "code_interpreter_call"] * 2 + ["message"]
    call = r.output[1]
    assert (call.code, call.status, call.outputs[0].logs) == ("x = 6 * 7\nprint(x)", "completed", "42")
    assert call.container_id == r.output[3].container_id and call.container_id.startswith("cntr_")
    assert kinds(events, call.id) == [
        f"code_interpreter_call{k}"
        for k in (".in_progress", "_code.delta", "_code.done", ".interpreting", ".completed")
    ]
    assert r.tools[0].type == "code_interpreter" and r.output_text == "Done."
    assert r.usage.output_tokens == sum(len(E.encode_with_special(s)) for s in script)
    # the next response finds variables and files; a container can be named as well
    says._says = [cell("print(x, open('/mnt/data/a').read())"), FINAL]
    more = all_tools.client().responses.create(
        model="scripted", input="go on", tools=PYTHON, previous_response_id=r.id, include=OUTPUTS
    )
    assert more.output[1].outputs[0].logs == "42 43"  # type: ignore[union-attr, index]
    says._says = [cell("print(x)"), FINAL]
    named: Any = [{"type": "code_interpreter", "container": call.container_id}]
    third = all_tools.client().responses.create(model="scripted", input="x", tools=named, include=OUTPUTS)
    assert third.output[1].outputs[0].logs == "42"  # type: ignore[union-attr, index]
    # a second one that follows the same response begins anew: the session has gone on
    says._says = [cell("print('x' in globals())"), FINAL]
    other = all_tools.client().responses.create(
        model="scripted", input="or", tools=PYTHON, previous_response_id=r.id, include=OUTPUTS
    )
    assert other.output[1].outputs[0].logs == "False"  # type: ignore[union-attr, index]


@needs_sandbox
def test_pictures_come_with_the_outputs_and_may_be_sent_back(all_tools: Served, says: Script) -> None:
    picture = "import base64, IPython.display as d\nd.display(d.Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==')))"
    _, r = streamed(all_tools, says, [cell(picture), FINAL], tools=PYTHON, store=False)
    outputs = r.output[1].outputs
    assert [o.type for o in outputs] == ["logs", "image"] and outputs[1].url.startswith(
        "data:image/png;base64,"
    )
    says._says = [FINAL]
    history: Any = [{"role": "user", "content": "hi"}, *[i.model_dump() for i in r.output[:2]]]
    assert (
        all_tools.client().responses.create(model="scripted", input=history, tools=PYTHON).status
        == "completed"
    )
    assert "<|start|>python to=assistant" in E.decode(says.prompts[-1])


@needs_sandbox
def test_without_include_the_outputs_are_kept_for_the_model_only(all_tools: Served, says: Script) -> None:
    _, r = streamed(
        all_tools, says, [cell("print('out' + 'put')"), "<|channel|>analysis<|message|>m"], tools=PYTHON
    )
    assert r.output[1].outputs is None and r.status == "incomplete"
    says._says = [FINAL]
    all_tools.client().responses.create(model="scripted", input="x", tools=PYTHON, previous_response_id=r.id)
    assert "output" in E.decode(says.prompts[-1])


@needs_sandbox
def test_hidden_thinking_hides_its_code(docs: Path) -> None:
    engine = Script([cell("print('ca' + 'nary')"), FINAL])
    with serving(engine, Settings(port=0, store="memory", thinking="hide", tools=("python",))) as served:
        events, r = streamed(
            served, engine, [cell("print('ca' + 'nary')"), FINAL], tools=PYTHON, include=OUTPUTS
        )
        assert [i.type for i in r.output] == ["message"]
        assert "canary" not in "".join(e.model_dump_json() for e in events)


@needs_sandbox
def test_a_call_that_runs_is_ended_with_its_response(all_tools: Served, says: Script) -> None:
    says._says = [cell("import time\ntime.sleep(60)"), FINAL]
    client = all_tools.client()
    begun = client.responses.create(model="scripted", input="hi", background=True, tools=PYTHON)
    end = time.monotonic() + 60
    for event in client.responses.retrieve(begun.id, stream=True):
        if event.type == "response.code_interpreter_call.interpreting":
            break
        assert time.monotonic() < end
    over = client.responses.cancel(begun.id)
    assert over.status == "cancelled" and time.monotonic() < end
    assert over.output[-1].type == "code_interpreter_call"


def test_pages_are_found_opened_and_cited(all_tools: Served, says: Script) -> None:
    script = [
        browse("search", '{"query": "owls"}'), browse("open", '{"id": 0}'), browse("find", '{"pattern": "night"}'),
        "<|channel|>final<|message|>At night【1†L2】, they say【1†L2-L3】. Not【9†L1】.<|return|>",
    ]  # fmt: skip
    include: Any = [
        "web_search_call.action.sources",
        "web_search_call.results",
        "message.output_text.logprobs",
    ]
    events, r = streamed(all_tools, says, script, tools=SEARCH, include=include)
    assert [i.type for i in r.output] == ["web_search_call"] * 3 + ["message"]
    search, opened, find, message = r.output
    assert (search.action.type, search.action.query) == ("search", "owls")
    assert [s.url for s in search.action.sources] == ["local://docs/owls.md"] or search.action.sources[
        0
    ].url.endswith("owls.md")
    assert opened.action.type == "open_page" and opened.action.url.endswith("owls.md")
    assert (find.action.type, find.action.pattern, find.action.url) == (
        "find_in_page",
        "night",
        opened.action.url,
    )
    assert "hunt at" in opened.output
    assert kinds(events, search.id) == [
        f"web_search_call.{k}" for k in ("in_progress", "searching", "completed")
    ]
    part = message.content[0]
    assert [a.url for a in part.annotations] == [opened.action.url] * 2
    for a in part.annotations:
        assert part.text[a.start_index : a.end_index] == f" ([{a.title}]({a.url})) "
    assert "【9†L1】" in part.text and "【1" not in part.text
    assert len(part.logprobs) == len(E.encode("At night【1†L2】, they say【1†L2-L3】. Not【9†L1】."))
    # what follows reads the marks as the model wrote them
    says._says = [browse("find", '{"pattern": "hunt", "cursor": 1}'), FINAL]
    ask: Any = {"model": "scripted", "tools": SEARCH, "include": include}
    more = all_tools.client().responses.create(**ask, input="more", previous_response_id=r.id)
    assert "they say【1†L2-L3】" in E.decode(says.prompts[-1])
    assert more.output[0].action.url == opened.action.url  # type: ignore[union-attr]


def test_an_mcp_servers_tools(all_tools: Served, says: Script) -> None:
    script = [odd("move", '{"to": {"x": 1, "y": 2}}'), odd("fails", "{}"), FINAL]
    events, r = streamed(all_tools, says, script, tools=MCP)
    assert [i.type for i in r.output] == ["mcp_list_tools", "mcp_call", "mcp_call", "message"]
    listed, moved, failed, _ = r.output
    assert listed.server_label == "odd" and {"move", "fails"} <= {t.name for t in listed.tools}
    assert kinds(events, listed.id) == ["mcp_list_tools.in_progress", "mcp_list_tools.completed"]
    assert (moved.server_label, moved.name, moved.output, moved.error) == (
        "odd",
        "move",
        "at 1,2 with 1.0",
        None,
    )
    assert kinds(events, moved.id) == [
        "mcp_call.in_progress",
        "mcp_call_arguments.delta",
        "mcp_call_arguments.done",
        "mcp_call.completed",
    ]
    assert failed.status == "failed" and "cannot be done" in failed.output and failed.error
    says._says = [FINAL]
    more = all_tools.client().responses.create(
        model="scripted", input="x", tools=MCP, previous_response_id=r.id
    )
    assert [i.type for i in more.output] == ["message"]
    assert "at 1,2 with 1.0" in E.decode(says.prompts[-1])


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("approve", [True, False])
def test_a_call_may_wait_for_approval(all_tools: Served, says: Script, stored: bool, approve: bool) -> None:
    """Always, where a request does not say never; the model then reads what came of it."""
    asks: Any = [{"type": "mcp", "server_label": "odd"}]
    call = odd("move", '{"to": {"x": 1, "y": 2}}')
    _, r = streamed(all_tools, says, [THINK + call], tools=asks, store=stored)
    assert r.status == "completed" and r.output[-1].type == "mcp_approval_request"
    request = r.output[-1]
    assert (request.server_label, request.name, request.arguments) == (
        "odd",
        "move",
        '{"to": {"x": 1, "y": 2}}',
    )
    answer = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": approve}
    history: Any = [answer]
    before: Any = {"previous_response_id": r.id}
    if not stored:
        history = [{"role": "user", "content": "hi"}, *[i.model_dump() for i in r.output], answer]
        before = {}
    says._says = [FINAL]
    events = list(all_tools.client().responses.create(
        model="scripted", input=history, tools=asks, stream=True, store=stored, **before
    ))  # fmt: skip
    late = events[-1].response
    assert fold_events(events) == summed(late.output)
    made = next(i for i in late.output if i.type == "mcp_call")
    assert made.approval_request_id == request.id and made.status == ("completed" if approve else "failed")
    assert made.output == "at 1,2 with 1.0" if approve else "did not approve" in made.output
    prompt = E.decode(says.prompts[-1])
    assert prompt.index("canary") < prompt.index('{"to": {"x": 1, "y": 2}}') < prompt.index(made.output)
    if stored:
        says._says = [FINAL]
        all_tools.client().responses.create(
            model="scripted", input="more", tools=asks, previous_response_id=late.id
        )
        assert E.decode(says.prompts[-1]).count(made.output) == 1
        for again, after in (({**answer, "approval_request_id": "mcpr_1"}, r.id), (answer, late.id)):
            with pytest.raises(BadRequestError, match="no request that waits"):
                all_tools.client().responses.create(
                    model="scripted", input=[again], tools=asks, previous_response_id=after
                )


def test_some_calls_may_run_at_once(all_tools: Served, says: Script) -> None:
    some: Any = [{**MCP[0], "require_approval": {"never": {"tool_names": ["move"]}}}]
    script = [odd("move", '{"to": {"x": 1}}'), odd("fails", "{}")]
    _, r = streamed(all_tools, says, script, tools=some)
    assert [i.type for i in r.output] == ["mcp_list_tools", "mcp_call", "mcp_approval_request"]


def test_only_what_is_allowed_may_be_called(all_tools: Served, says: Script) -> None:
    some: Any = [{**MCP[0], "allowed_tools": ["move"]}]
    says._says = [FINAL]
    all_tools.client().responses.create(model="scripted", input="hi", tools=some)
    assert "type move" in E.decode(says.prompts[0]) and "type fails" not in E.decode(says.prompts[0])
    both: Any = [*MCP, {"type": "function", "name": "f", "parameters": None, "strict": False}]
    choice: Any = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    says._says = [FINAL]
    r = all_tools.client().responses.create(model="scripted", input="hi", tools=both, tool_choice=choice)
    assert "type f " in E.decode(says.prompts[1]) and "type move" not in E.decode(says.prompts[1])
    assert r.tool_choice.type == "allowed_tools" and len(r.tools) == 2  # type: ignore[union-attr]


def test_a_tool_that_must_be_called(all_tools: Served, says: Script) -> None:
    """The grammar refuses an answer before the call, and another tool."""
    choice: Any = {"type": "mcp", "server_label": "odd", "name": "move"}
    for script, fine in (
        (odd("move", '{"to": {"x": 1}}'), True),
        (odd("fails", "{}"), False),
        (FINAL, False),
    ):
        says._says = [script, FINAL]
        r = all_tools.client().responses.create(model="scripted", input="hi", tools=MCP, tool_choice=choice)
        assert (r.status == "completed") == fine
    says._says = [browse("search", '{"query": "owls"}'), FINAL]
    must: Any = {"type": "web_search_preview"}
    assert (
        all_tools.client()
        .responses.create(model="scripted", input="hi", tools=SEARCH, tool_choice=must)
        .status
        == "completed"
    )


def test_calls_are_counted(all_tools: Served, says: Script) -> None:
    _, r = streamed(
        all_tools, says, [odd("move", '{"to": {"x": 1}}')] * 3 + [FINAL], tools=MCP, max_tool_calls=2
    )
    outputs = [i.output for i in r.output if i.type == "mcp_call"]
    assert [o.startswith("at 1") for o in outputs] == [True, True, False] and "no more tool calls" in outputs[
        2
    ]
    assert r.status == "completed" and r.max_tool_calls == 2


def test_a_model_that_only_calls_is_incomplete(all_tools: Served, says: Script) -> None:
    """It is told that there are no more calls; when it goes on all the same, the response does not claim to be complete."""
    _, r = streamed(all_tools, says, [odd("move", '{"to": {"x": 1}}')] * 70, tools=MCP)
    calls = [i for i in r.output if i.type == "mcp_call"]
    assert len(calls) == 66 and "no more tool calls" in calls[64].output and calls[65].status == "incomplete"
    assert r.status == "incomplete" and r.incomplete_details.reason == "max_output_tokens"


def test_a_function_of_the_caller_beside_tools_of_the_server(all_tools: Served, says: Script) -> None:
    both: Any = [*MCP, {"type": "function", "name": "f", "parameters": None, "strict": False}]
    call = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
    _, r = streamed(all_tools, says, [odd("move", '{"to": {"x": 1}}'), call], tools=both)
    assert [i.type for i in r.output] == [
        "mcp_list_tools",
        "mcp_call",
        "function_call",
    ] and r.status == "completed"
    says._says = [FINAL]
    answer: Any = [{"type": "function_call_output", "call_id": r.output[-1].call_id, "output": "five"}]
    all_tools.client().responses.create(model="scripted", input=answer, tools=both, previous_response_id=r.id)
    late = E.decode(says.prompts[-1])
    assert late.index("at 1,None") < late.index("five")


def test_the_prompt_is_counted_with_its_tools(all_tools: Served, says: Script) -> None:
    says._says = [FINAL]
    tools: Any = [*MCP, *SEARCH]
    done = all_tools.client().responses.create(model="scripted", input="hi", tools=tools)
    counted = all_tools.client().responses.input_tokens.count(model="scripted", input="hi", tools=tools)
    assert done.usage is not None and counted.input_tokens == done.usage.input_tokens


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({**MCP[0], "server_label": "other"}, "tools[0].server_label"),
        ({**MCP[0], "server_url": "http://127.0.0.1:1/"}, "tools[0].server_url"),
        ({**MCP[0], "require_approval": "perhaps"}, "tools[0].require_approval"),
        ({**MCP[0], "require_approval": {"never": ["none"]}}, "tools[0].require_approval.never"),
        ({**MCP[0], "headers": {"a": "b"}}, "tools[0].headers"),
        ({**MCP[0], "allowed_tools": ["none"]}, "tools[0].allowed_tools"),
        ({**SEARCH[0], "user_location": {"type": "approximate", "city": "Rome"}}, "tools[0].user_location"),
        ({"type": "image_generation"}, "tools[0].type"),
    ],
)
def test_what_a_tool_cannot_do_is_named(all_tools: Served, tool: Any, param: str) -> None:
    with pytest.raises(BadRequestError) as error:
        all_tools.client().responses.create(model="scripted", input="hi", tools=[tool])
    assert error.value.param == param, error.value.body


def test_a_server_without_tools_says_so() -> None:
    with serving(Script([]), Settings(port=0, store="memory")) as served:
        for tools in (PYTHON, SEARCH):
            with pytest.raises(BadRequestError, match="--tool"):
                served.client().responses.create(model="scripted", input="hi", tools=tools)
        assert served.host.workshop.offers == []
    with pytest.raises(UsageError, match="apply_patch"):
        Workshop(("apply_patch:/tmp",))


def test_the_page_is_told_of_the_tools(all_tools: Served) -> None:
    info: Any = all_tools.client().get(f"{all_tools.url}/motet/page", cast_to=object)
    assert {"web_search", "mcp odd"} <= {t["type"] for t in info["tools"]}


def test_one_caller_never_gets_anothers_container(tmp_path: Path, docs: Path) -> None:
    path = tmp_path / "keys.json"
    keys = auth.add(path, "a"), auth.add(path, "b")
    engine = Script([])
    with serving(engine, Settings(port=0, keys=path, store="memory", tools=(f"browser:{docs}",))) as served:
        a, b = (served.client(k) for k in keys)
        engine._says = [browse("search", '{"query": "owls"}'), FINAL]
        first = a.responses.create(model="scripted", input="hi", tools=SEARCH)
        shop = served.host.workshop
        mine = shop._sessions[0]
        theirs = shop.kit(SEARCH, "b", first.id)
        assert theirs.session is not None and theirs.session is not mine
        shop.done(theirs, None)
        assert shop._sessions == [mine], "one that nobody can follow is closed"
        assert b.models.list()
        mine.used -= IDLE_S + 1
        shop.tidy()
        assert shop._sessions == []
