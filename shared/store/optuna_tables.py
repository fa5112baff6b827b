"""Optuna's own tables, as its 5.0.x models define them, for our own statements."""

from __future__ import annotations

from typing import cast

from optuna.storages._rdb import models
from sqlalchemy import Table

studies = cast(Table, models.StudyModel.__table__)
study_attrs = cast(Table, models.StudyUserAttributeModel.__table__)
study_system_attrs = cast(Table, models.StudySystemAttributeModel.__table__)
directions = cast(Table, models.StudyDirectionModel.__table__)
trials = cast(Table, models.TrialModel.__table__)
params = cast(Table, models.TrialParamModel.__table__)
values = cast(Table, models.TrialValueModel.__table__)
reports = cast(Table, models.TrialIntermediateValueModel.__table__)
user_attrs = cast(Table, models.TrialUserAttributeModel.__table__)
system_attrs = cast(Table, models.TrialSystemAttributeModel.__table__)
heartbeats = cast(Table, models.TrialHeartbeatModel.__table__)
