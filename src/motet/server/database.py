"""A database for the store: opened, alone with its file or one of many, brought up to date. Knows connections, no responses.

A SQLite file belongs to one server at a time, by a lock beside it. Many servers may share one PostgreSQL: each holds an
advisory lock there as long as it lives, so that the others know at once when it is gone, however it went.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool, StaticPool

from motet.errors import UsageError, UserError

_MIGRATING = 4207115  # the advisory lock of whoever changes tables; any number that is always the same


class Database:
    """Transactions on a SQLite file, on SQLite in memory (`sqlite://`), or on PostgreSQL.

    serving: this process makes responses, so it claims the file, or its place among the others. Without it a file that a
    server holds can be read and written too, but tables are left as they are. UserError when it cannot be used.
    """

    def __init__(self, url: str, serving: bool = True) -> None:
        self.process = str(secrets.randbits(62))  # the name of this process while it lives
        self._lock: Any = None
        self._alive: sa.Connection | None = None
        try:
            self._open(_url(url), serving)
        except (SQLAlchemyError, OSError) as e:
            self.close()
            raise UserError(f"The store cannot be opened ({_cause(e)}); check --store.") from None
        except ModuleNotFoundError:
            raise UserError("PostgreSQL needs its driver; pip install 'motet[postgres]'.") from None
        except BaseException:
            self.close()
            raise

    def _open(self, url: sa.URL, serving: bool) -> None:
        self.sqlite = url.get_backend_name() == "sqlite"
        named = url.database not in (None, "", ":memory:")
        self.path = Path(str(url.database)) if self.sqlite and named else None
        # one connection for all threads, which take turns: each connection to SQLite in memory is a database of its own
        self._turns = threading.RLock() if self.sqlite and self.path is None else nullcontext()
        mine = not serving
        if self.path is not None:
            mine = self._claim(self.path, serving)
        self._engine = self._connect(url)
        if self.sqlite or serving:
            self._migrate(mine or serving)
        if serving and not self.sqlite:
            self._place = sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
            self.beat()

    def _claim(self, path: Path, serving: bool) -> bool:
        """Whether this process is alone with the file. The file is made, for its owner only."""
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        lock = open(f"{path}.lock", "w")  # noqa: SIM115  (held as long as the database)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            if serving:
                raise UserError(
                    "Another server uses this store; give this one its own with --store, or share PostgreSQL."
                ) from None
            return False
        self._lock = lock
        return True

    def _connect(self, url: sa.URL) -> sa.Engine:
        if not self.sqlite:
            return sa.create_engine(url, pool_pre_ping=True)
        if self.path is None:
            made = sa.create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        else:
            made = sa.create_engine(url, connect_args={"timeout": 30})
        sa.event.listen(made, "connect", _prepared)
        sa.event.listen(made, "begin", _begun)
        return made

    def _migrate(self, may: bool) -> None:
        """Brings the tables up to date. Without `may`, says so when they are not: a server uses them as they are."""
        from alembic import command
        from alembic.config import Config
        from alembic.migration import MigrationContext
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.writing() as connection:
            if not self.sqlite:  # processes that start together take turns
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_MIGRATING})"))
            scripts = ScriptDirectory.from_config(config)
            now, newest = (
                MigrationContext.configure(connection).get_current_revision(),
                scripts.get_current_head(),
            )
            if now == newest:
                return
            if now is not None and now not in {s.revision for s in scripts.walk_revisions()}:
                raise UserError(
                    "This store was made by a newer version of motet; update, or give another with --store."
                )
            if not may:
                raise UserError("A server of another version uses this store; stop it first.")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction; what it wrote is on disk when the block is left."""
        with self._turns, self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One state of everything, from the first read on."""
        with self._turns, self._engine.connect() as connection:
            yield connection.execution_options(reads=True)

    def beat(self) -> None:
        """Holds this process's place among those that share PostgreSQL; takes it again if the connection was lost."""
        if self.sqlite:
            return
        try:
            if self._alive is not None:
                self._alive.execute(sa.text("SELECT 1"))
                return
        except SQLAlchemyError:
            self._alive.invalidate()  # type: ignore[union-attr]
            self._alive = None
        self._alive = self._place.connect()
        self._alive.execute(sa.text("SELECT pg_advisory_lock(:n)"), {"n": int(self.process)})

    def gone(self, connection: sa.Connection, process: str) -> bool:
        """Whether another process has ended, however it did. Until the transaction ends it cannot come back."""
        if process == self.process:
            return False
        if self.sqlite:  # whoever holds the file is alone with it
            return True
        asked = sa.text("SELECT pg_try_advisory_xact_lock(:n)")
        return bool(connection.execute(asked, {"n": int(process)}).scalar())

    def close(self) -> None:
        """Lets go of everything."""
        for thing in (self._alive, self._lock):
            if thing is not None:
                thing.close()
        if hasattr(self, "_engine"):
            self._engine.dispose()


def _url(given: str) -> sa.URL:
    try:
        url = sa.make_url(given)
    except SQLAlchemyError:
        raise UsageError(
            "--store is neither a file nor the URL of a database; write postgresql://USER@HOST/NAME."
        ) from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise UsageError(
            "--store can be a SQLite file or PostgreSQL; for any other database there is no driver here."
        )
    return url


def _prepared(connection: Any, record: Any) -> None:
    """A commit is on disk when it returns, what is deleted is overwritten, and tables change in transactions like rows."""
    connection.isolation_level = None  # `_begun` says when a transaction begins
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begun(connection: sa.Connection) -> None:
    """One that will write says so at once: one that has read first could find that somebody else has written."""
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _cause(error: Exception) -> str:
    """What went wrong, without the address, which may hold a password."""
    return type(getattr(error, "orig", None) or error).__name__
