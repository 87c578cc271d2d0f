"""It lives in `penstock.scoring.answers`; this name stays until all who use it have moved."""

from penstock.scoring.answers import NOBODY, Answer, Scored, Serving, score

__all__ = ["NOBODY", "Answer", "Scored", "Serving", "score"]
