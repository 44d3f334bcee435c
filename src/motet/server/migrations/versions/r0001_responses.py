"""Responses with what was sampled for them, and tokens by day."""

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "responses",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("process", sa.String(40), nullable=False),  # who makes it
        sa.Column("stopping", sa.Boolean, nullable=False),  # whether that process was asked to end it
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("previous", sa.String(80), nullable=True),
        sa.Column("root", sa.String(80), nullable=False),  # the first response of the conversation
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column(
            "updated_at", sa.Float, nullable=False
        ),  # of a root: when something was last said in its conversation
        sa.Column("response", sa.Text, nullable=False),  # the object as its caller sees it
        sa.Column("input", sa.Text, nullable=False),  # the request's items
        sa.Column(
            "output", sa.Text, nullable=False
        ),  # items with nothing hidden, and the ids they were sampled as
        sa.Column("events", sa.LargeBinary, nullable=False),  # the stream, zlib of JSON
        sa.Column("tokens", sa.LargeBinary, nullable=True),  # prompt, sampled ids and seed, zlib of JSON
    )
    op.create_index("responses_by_owner", "responses", ["owner", "updated_at"])
    op.create_index("responses_by_root", "responses", ["root"])
    op.create_index("responses_by_status", "responses", ["status"])
    op.create_table(
        "spent",
        sa.Column("owner", sa.String(64), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True),
        sa.Column("tokens", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for name in ("spent", "responses"):
        op.drop_table(name)
