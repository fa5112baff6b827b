"""The data plane: a node runs one attempt at a time in each of its slots, and reports to PostgreSQL.

agent            one per node: presence, drain, health file, memory of the node, leases of dead supervisors; two threads
 └─ pool         the Celery parent: imports TensorFlow, never runs it, holds no database connection
     ├─ supervisor (slot 0)      look, sample, start, fork, monitor, renew, finish; two threads: monitor and I/O
     ├─ supervisor (slot 1) ...
     └─ template                 an idle copy of the pool from before Celery; forks the fork servers
         └─ fork server (slot 0) an idle copy of the template; forks trials, and ends with its supervisor
             └─ trial process    user code; a pipe to its supervisor and nothing else
"""
