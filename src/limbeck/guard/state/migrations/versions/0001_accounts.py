"""Make every table of the first version.

Revision 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Id = sa.String(128)


def upgrade() -> None:
    op.create_table(
        "epoch", sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.BigInteger)
    )
    op.create_table(
        "change",
        sa.Column("epoch", sa.BigInteger, primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("id", _Id, primary_key=True),
    )
    op.create_table(
        "setting",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.JSON, nullable=False),
    )
    op.create_table(
        "organisation",
        sa.Column("id", _Id, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("payment", sa.JSON, nullable=False),
        sa.Column("domains", sa.JSON, nullable=False),
    )
    op.create_table(
        "plan",
        sa.Column("id", _Id, primary_key=True),
        sa.Column("models", sa.JSON, nullable=False),
        sa.Column("capabilities", sa.JSON, nullable=False),
        sa.Column("budgets", sa.JSON, nullable=False),
    )
    op.create_table(
        "account",
        sa.Column("id", _Id, primary_key=True),
        sa.Column("org", _Id, sa.ForeignKey("organisation.id"), nullable=False, index=True),
        sa.Column("plan", _Id, sa.ForeignKey("plan.id"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("closed", sa.Double),
        sa.Column("sub_accounts", sa.JSON(none_as_null=True)),
    )
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("account", _Id, sa.ForeignKey("account.id"), nullable=False, index=True),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires", sa.Double),
        sa.Column("revoked", sa.Double),
        sa.Column("replaces", sa.String(16)),
    )
    op.create_table(
        "admin_key",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires", sa.Double),
        sa.Column("revoked", sa.Double),
    )
    op.create_table(
        "declared_use",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("account", _Id, sa.ForeignKey("account.id"), nullable=False, index=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("starts", sa.Double, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sa.Column("models", sa.JSON, nullable=False),
        sa.Column("endpoints", sa.JSON, nullable=False),
        sa.Column("volume", sa.BigInteger),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text),
        sa.Column("withdrawn", sa.Double),
    )
    op.create_table(
        "block_entry",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("value", sa.Text, nullable=False, index=True),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("clause", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("expires", sa.Double),
        sa.Column("lifted", sa.Double),
    )
    op.create_table(
        "standing",
        sa.Column("account", _Id, sa.ForeignKey("account.id"), primary_key=True),
        sa.Column("user", _Id, primary_key=True),
        sa.Column("action", sa.Integer, nullable=False),
        sa.Column("proposed", sa.Integer, nullable=False),
        sa.Column("since", sa.Double),
        sa.Column("clause", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("e_value", sa.Double, nullable=False),
        sa.Column("because", sa.JSON, nullable=False),
        sa.Column("expires", sa.Double),
        sa.Column("signed_off_by", sa.Text),
        sa.Column("vouched_by", sa.Text),
    )
    op.create_table(
        "appeal",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("account", _Id, sa.ForeignKey("account.id"), nullable=False, index=True),
        sa.Column("user", _Id, nullable=False),
        sa.Column("filed", sa.Double, nullable=False),
        sa.Column("due", sa.Double, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("decided", sa.Double),
        sa.Column("decided_by", sa.Text),
        sa.Column("answer", sa.Text, nullable=False),
    )
    op.create_table(
        "event",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("ts", sa.Double, nullable=False),
        sa.Column("account", _Id, nullable=False, index=True),
        sa.Column("user", _Id, nullable=False),
        sa.Column("what", sa.String(32), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
    )
    op.create_table(
        "meter",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("holder", sa.String(260), nullable=False),
        sa.Column("measure", sa.String(16), nullable=False),
        sa.Column("window", sa.String(16), nullable=False),
        sa.Column("starts", sa.BigInteger, nullable=False),
        sa.Column("taken", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("holder", "measure", "window", "starts", name="meter_of"),
        sa.Index("meter_age", "window", "starts"),
    )
    op.create_table(
        "lease",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("worker", sa.String(64), nullable=False, index=True),
        sa.Column("meter", sa.BigInteger, nullable=False, index=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("charged", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "worker",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO epoch (id, n) VALUES (1, 0)")


def downgrade() -> None:
    for name in reversed(
        (
            "epoch",
            "change",
            "setting",
            "organisation",
            "plan",
            "account",
            "api_key",
            "admin_key",
            "declared_use",
            "block_entry",
            "standing",
            "appeal",
            "event",
            "meter",
            "lease",
            "worker",
        )
    ):
        op.drop_table(name)
