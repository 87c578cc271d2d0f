"""What crosses the wire: one typed record per topic. The JSON Schemas in schemas/ are generated from these.

Times are ISO-8601 UTC; probabilities are of the label being true; a missing number is null.
"""

from __future__ import annotations

from .alarms import Alarm, Notice, Silence
from .answers import Inference, Outcome, Prediction, Tensor
from .features import Charge, Clock, LateEvent, Passed, Row
from .inputs import Contributed, Latency, LevelCounts, LevelStatistic, Moments, Oddity, Population, Shift, Summed, Unseen
from .models import Artefact, Candidate, Code, Command, Compressed, Decision, Profile, Run, Tails, Weighed
from .quality import Classed, Confusion, Errors, Estimate, Group, Measure, Paired, Quality
from .quarantines import Quarantine
from .reviews import Flag, Queued, Review, Reviewed
from .statistics import Cohort, Mix, Partial, Scored, Statistic, Tally
from .tables import Commit, DataQuality, Described, Frequent, Met

__all__ = [
    "Alarm",
    "Artefact",
    "Candidate",
    "Charge",
    "Classed",
    "Clock",
    "Code",
    "Cohort",
    "Command",
    "Commit",
    "Compressed",
    "Confusion",
    "Contributed",
    "DataQuality",
    "Decision",
    "Described",
    "Errors",
    "Estimate",
    "Flag",
    "Frequent",
    "Group",
    "Inference",
    "LateEvent",
    "Latency",
    "LevelCounts",
    "LevelStatistic",
    "Measure",
    "Met",
    "Mix",
    "Moments",
    "Notice",
    "Oddity",
    "Outcome",
    "Paired",
    "Partial",
    "Passed",
    "Population",
    "Prediction",
    "Profile",
    "Quality",
    "Quarantine",
    "Queued",
    "Review",
    "Reviewed",
    "Row",
    "Run",
    "Scored",
    "Shift",
    "Silence",
    "Statistic",
    "Summed",
    "Tails",
    "Tally",
    "Tensor",
    "Unseen",
    "Weighed",
]
