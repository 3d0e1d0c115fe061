"""Merged descriptions for the exemplar set, and preferences between two drafts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)
COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_descriptions()
    _create_preferences()


def downgrade() -> None:
    op.drop_table("preferences")
    op.drop_table("merged_descriptions")


def _create_descriptions() -> None:
    op.create_table(
        "merged_descriptions",
        sa.Column("number", COUNTER, nullable=False),
        sa.Column("description_id", TEXT, nullable=False),
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("draft_id", TEXT, nullable=False),
        sa.Column("expert", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("own", TEXT, nullable=False),
        sa.Column("merged", TEXT, nullable=False),
        sa.Column("categories", sa.JSON(), nullable=False),
        sa.Column("withdrawn_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.image_id"], name="merged_descriptions_image_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["draft_id"], ["drafts.draft_id"], name="merged_descriptions_draft_id_fkey"
        ),
        sa.PrimaryKeyConstraint("number", name="merged_descriptions_pkey"),
        sa.UniqueConstraint("description_id", name="merged_descriptions_one_description_id"),
    )
    op.create_index(
        "merged_descriptions_by_image_id", "merged_descriptions", ["image_id"], unique=False
    )


def _create_preferences() -> None:
    op.create_table(
        "preferences",
        sa.Column("number", COUNTER, nullable=False),
        sa.Column("preference_id", TEXT, nullable=False),
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("expert", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("preferred", TEXT, nullable=False),
        sa.Column("other", TEXT, nullable=False),
        sa.Column("preferred_first", sa.Boolean(), nullable=False),
        sa.Column("withdrawn_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.image_id"], name="preferences_image_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["preferred"], ["drafts.draft_id"], name="preferences_preferred_fkey"
        ),
        sa.ForeignKeyConstraint(["other"], ["drafts.draft_id"], name="preferences_other_fkey"),
        sa.PrimaryKeyConstraint("number", name="preferences_pkey"),
        sa.UniqueConstraint("preference_id", name="preferences_one_preference_id"),
    )
    op.create_index("preferences_by_image_id", "preferences", ["image_id"], unique=False)
