"""The objective that the studies in this folder name; RATE is there to be mistaken for one."""

RATE = 0.001


def objective(params):
    return (params["x"] - 1.0) ** 2
