"""The hands: hold a lease, supervise one attempt at a time per slot, report.

agent            one per node: presence, drain, health file, letting go of a dead supervisor's lease
 └─ pool         the Celery parent: imports TensorFlow, never runs it, holds no database connection
     ├─ supervisor (slot 0)      claim, ask, launch, watch, settle, tell; one Python thread
     │   └─ trial process        user code; a pipe to its supervisor and nothing else
     └─ supervisor (slot 1) ...
"""
