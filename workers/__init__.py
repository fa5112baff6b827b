"""The data plane: a node runs one attempt at a time in each of its slots, and reports to PostgreSQL.

agent            one per node: presence, drain, health file, memory of the node, leases of dead supervisors; two threads
 └─ pool         the Celery parent: imports TensorFlow, never runs it, holds no database connection
     ├─ supervisor (slot 0)      look, sample, start, fork, monitor, renew, finish; two threads: monitor and I/O
     │   └─ fork server          an idle copy of the supervisor from before its connections
     │       └─ trial process    user code; a pipe to its supervisor and nothing else
     └─ supervisor (slot 1) ...
"""
