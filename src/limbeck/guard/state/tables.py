"""The tables of the accounts' database, as the newest migration leaves them.

Times are seconds since 1970 UTC. Columns of JSON hold small lists that are only ever read whole.
"""

import sqlalchemy as sa

metadata = sa.MetaData()

_Id = sa.String(128)


def _table(name: str, *columns: sa.Column[object] | sa.UniqueConstraint | sa.Index) -> sa.Table:
    return sa.Table(name, metadata, *columns)


epoch = _table(
    "epoch", sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.BigInteger)
)
"""One row. Every writer raises `n` first, so that writers wait for one another and changes are numbered in order."""

change = _table(
    "change",
    sa.Column("epoch", sa.BigInteger, primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("id", _Id, primary_key=True),
)
"""What each epoch changed: what a mirror must read again."""

setting = _table(
    "setting",
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.JSON, nullable=False),
)

organisation = _table(
    "organisation",
    sa.Column("id", _Id, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("payment", sa.JSON, nullable=False),
    sa.Column("domains", sa.JSON, nullable=False),
)

plan = _table(
    "plan",
    sa.Column("id", _Id, primary_key=True),
    sa.Column("models", sa.JSON, nullable=False),
    sa.Column("capabilities", sa.JSON, nullable=False),
    sa.Column("budgets", sa.JSON, nullable=False),
)

account = _table(
    "account",
    sa.Column("id", _Id, primary_key=True),
    sa.Column("org", _Id, sa.ForeignKey("organisation.id"), nullable=False, index=True),
    sa.Column("plan", _Id, sa.ForeignKey("plan.id"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("closed", sa.Double),
    sa.Column("sub_accounts", sa.JSON(none_as_null=True)),
)

api_key = _table(
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

admin_key = _table(
    "admin_key",
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("expires", sa.Double),
    sa.Column("revoked", sa.Double),
)

declared_use = _table(
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

block_entry = _table(
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

standing = _table(
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

appeal = _table(
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

event = _table(
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
"""What was done to whom, when and by whom. Written in the transaction that did it, never changed."""

meter = _table(
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
"""How much of a budget is charged or leased out, in one window."""

lease = _table(
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
"""What a worker may spend of a meter, and how much of it it said it has charged."""

worker = _table(
    "worker",
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
)
"""Who holds leases; `beat` grows for as long as it lives."""
