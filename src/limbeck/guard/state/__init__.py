"""The accounts' state: one database, a mirror of it in every worker, budgets leased out in blocks."""
