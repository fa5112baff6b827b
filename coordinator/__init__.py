"""The control plane: submits, decides, dispatches, repairs. One leads at a time; any may die at any moment.

cli, commands   what a person types, a file for each group of commands
start           everything on this machine, or the coordinator of a cluster
submission      a StudySpec becomes a study with its tickets
service         lead, look (observer), plan (planner, pure), perform (actions), wait for the bell
stack, fleet    the embedded services, workers and Flower of one machine
"""
