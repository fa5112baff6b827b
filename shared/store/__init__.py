"""Everything that PostgreSQL holds: our tables and Optuna's, with every statement on them. Decides nothing."""
