"""What adjudicators settle between, and images with known right answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WORD = sa.String(16)
COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TABLES = ("disputed_corrections", "gold_items", "gold_answers")  # parents first


def upgrade() -> None:
    _create_disputes()
    _create_gold()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def _create_disputes() -> None:
    op.create_table(
        "disputed_corrections",
        sa.Column("dispute_id", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("correction_id", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["correction_id"],
            ["corrections.correction_id"],
            name="disputed_corrections_correction_id_fkey",
        ),
        sa.PrimaryKeyConstraint("dispute_id", "position", name="disputed_corrections_pkey"),
    )


def _create_gold() -> None:
    op.create_table(
        "gold_items",
        sa.Column("gold_id", TEXT, nullable=False),
        sa.Column("campaign_id", TEXT, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("subject_id", TEXT, nullable=False),
        sa.Column("image_id", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name="gold_items_campaign_id_fkey"
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.image_id"], name="gold_items_image_id_fkey"),
        sa.PrimaryKeyConstraint("gold_id", name="gold_items_pkey"),
    )
    op.create_index("gold_items_by_campaign_id_kind", "gold_items", ["campaign_id", "kind"])
    op.create_table(
        "gold_answers",
        sa.Column("number", COUNTER, nullable=False),
        sa.Column("answer_id", TEXT, nullable=False),
        sa.Column("gold_id", TEXT, nullable=False),
        sa.Column("expert", TEXT, nullable=False),
        sa.Column("verdict", WORD, nullable=True),
        sa.Column("categories", sa.JSON(), nullable=False),
        sa.Column("is_withdrawn", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["expert"], ["experts.expert"], name="gold_answers_expert_fkey"),
        sa.ForeignKeyConstraint(
            ["gold_id"], ["gold_items.gold_id"], name="gold_answers_gold_id_fkey"
        ),
        sa.PrimaryKeyConstraint("number", name="gold_answers_pkey"),
        sa.UniqueConstraint("answer_id", name="gold_answers_one_answer_id"),
    )
    op.create_index("gold_answers_by_gold_id", "gold_answers", ["gold_id"])
