"""The control plane: submits, decides, dispatches, repairs. One leads at a time; any may die at any moment.

cli, start      what a person types
submission      a StudySpec becomes a study with its tickets
service         lead, look (observer), plan (planner, pure), perform (actions), wait for the bell
stack, fleet    the embedded services, workers and Flower of one machine
"""
