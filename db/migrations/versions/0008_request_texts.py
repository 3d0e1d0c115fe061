"""What teachers were told, each text once, and by draft which."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "request_texts",
        sa.Column("text_id", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("instructions", TEXT, nullable=False),
        sa.Column("question", TEXT, nullable=False),
        sa.Column("reply_schema", TEXT, nullable=False),
        sa.Column("temperature", sa.Double(), nullable=False),
        sa.Column("max_output_tokens", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("text_id", name="request_texts_pkey"),
    )
    op.add_column("drafts", sa.Column("request_text_id", TEXT, nullable=True))


def downgrade() -> None:
    op.drop_column("drafts", "request_text_id")
    op.drop_table("request_texts")
