"""Which server a call was made to: two that know a model of one name share no replies.

Calls from before have none. Their replies are found as before, whichever server is asked.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("attempts", sa.Column("server", TEXT, nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "server")
