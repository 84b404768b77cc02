"""Hidden reasoning stays hidden: what of an upstream's reply may leave when the plan does not grant reasoning."""
