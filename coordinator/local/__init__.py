"""Everything on this machine: embedded PostgreSQL and Redis, worker, dashboard and Flower, as children of start."""
