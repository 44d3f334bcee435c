"""The tables of the store, version by version; alembic brings a database up to the newest."""
