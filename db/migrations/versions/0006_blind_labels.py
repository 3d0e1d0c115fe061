"""Blind labels, and the guidance that they come to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WORD = sa.String(16)
MOMENT = sa.DateTime(timezone=True)
COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "blind_labels",
        sa.Column("number", COUNTER, nullable=False),
        sa.Column("label_id", TEXT, nullable=False),
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("expert", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("verdict", WORD, nullable=False),
        sa.Column("confidence", WORD, nullable=False),
        sa.Column("categories", sa.JSON(), nullable=False),
        sa.Column("withdrawn_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.image_id"], name="blind_labels_image_id_fkey"
        ),
        sa.PrimaryKeyConstraint("number", name="blind_labels_pkey"),
        sa.UniqueConstraint("label_id", name="blind_labels_one_label_id"),
    )
    op.create_index("blind_labels_by_image_id", "blind_labels", ["image_id"], unique=False)
    op.create_index("blind_labels_by_expert", "blind_labels", ["expert"], unique=False)
    op.create_table(
        "guidance",
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("categories", sa.JSON(), nullable=False),
        sa.Column("experts", sa.JSON(), nullable=False),
        sa.Column("hard", TEXT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.image_id"], name="guidance_image_id_fkey"),
        sa.PrimaryKeyConstraint("image_id", name="guidance_pkey"),
    )


def downgrade() -> None:
    op.drop_table("guidance")
    op.drop_table("blind_labels")
