"""motet as a server: Responses and Chat Completions over HTTP, from one model. See docs/server.md.

app.py      routes, and what every request passes through      serve.py     sockets, TLS, start and end of the process
host.py     what the routes share: engine, names, keys, store  settings.py  what an operator may set
wire.py     requests as they come in; errors.py errors as they go out; sse.py streams as they go out
turns.py    a turn runs on a thread, its events arrive here    shown.py     which of them are shown, and what they cost
chat.py     events to chunks; a completion is their fold       stops.py     stop strings, on the answer only
responses.py  the life of a response                           output.py    events to items and stream events
store.py    responses and their sampled ids, durable           auth.py, limits.py, metrics.py
files.py    files that code has made; containers.py gives them out
sealed.py   thinking that callers carry and cannot read
"""

from motet.server.serve import create, serve
from motet.server.settings import Limits, Settings

__all__ = ["Limits", "Settings", "create", "serve"]
