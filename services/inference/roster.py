"""It lives in `penstock.scoring.roster`; this name stays until all who use it have moved."""

from penstock.scoring.roster import ALIASES, BUCKETS, Roster, Rosters, bucket

__all__ = ["ALIASES", "BUCKETS", "Roster", "Rosters", "bucket"]
