"""The control plane: submits, decides, dispatches, repairs. One leads at a time; any may die at any moment.

cli        what a person types, a file for each group of commands
local      the embedded services, workers and Flower of one machine
service    lead, read (snapshot_reader), plan (planner, pure), execute (executor), wait for a notification
"""
