"""Sources, labels, generators and formats of images counted from one index."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

CHOICES = "images_by_source_label_generator_format_image_id"
CHOICES_BEFORE = "images_by_source_label"


def upgrade() -> None:
    op.create_index(CHOICES, "images", ["source", "label", "generator", "format", "image_id"])
    op.drop_index(CHOICES_BEFORE, table_name="images")


def downgrade() -> None:
    op.create_index(CHOICES_BEFORE, "images", ["source", "label"])
    op.drop_index(CHOICES, table_name="images")
