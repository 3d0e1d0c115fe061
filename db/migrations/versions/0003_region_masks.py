"""Masks of brushed regions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "region_masks",
        sa.Column("reasoning_id", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["reasoning_id", "position"],
            ["findings.reasoning_id", "findings.position"],
            name="region_masks_reasoning_id_position_fkey",
        ),
        sa.PrimaryKeyConstraint("reasoning_id", "position", name="region_masks_pkey"),
    )


def downgrade() -> None:
    op.drop_table("region_masks")
