"""What crosses the wire: one typed record per topic. The JSON Schemas in schemas/ are generated from these.

Times are ISO-8601 UTC; probabilities are of the label being true; a missing number is null.
"""

from __future__ import annotations

from .alarms import Alarm, Notice, Silence
from .answers import Inference, Outcome, Prediction, Tensor
from .features import Charge, Clock, LateEvent, Passed, Row
from .models import Artefact, Candidate, Command, Compressed, Decision, Profile, Run, Tails, Weighed
from .quarantines import Quarantine
from .statistics import (
    Cohort,
    Contributed,
    Measure,
    Mix,
    Oddity,
    Paired,
    Partial,
    Quality,
    Scored,
    Shift,
    Statistic,
    Tally,
    Unseen,
)
from .tables import Commit, DataQuality, Described, Frequent, Met

__all__ = [
    "Alarm",
    "Artefact",
    "Candidate",
    "Charge",
    "Clock",
    "Cohort",
    "Command",
    "Commit",
    "Compressed",
    "Contributed",
    "DataQuality",
    "Decision",
    "Described",
    "Frequent",
    "Inference",
    "LateEvent",
    "Measure",
    "Met",
    "Mix",
    "Notice",
    "Oddity",
    "Outcome",
    "Paired",
    "Partial",
    "Passed",
    "Prediction",
    "Profile",
    "Quality",
    "Quarantine",
    "Row",
    "Run",
    "Scored",
    "Shift",
    "Silence",
    "Statistic",
    "Tails",
    "Tally",
    "Tensor",
    "Unseen",
    "Weighed",
]
