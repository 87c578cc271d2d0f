"""It lives in `penstock.scoring.graph`; this name stays until all who use it have moved."""

from penstock.scoring.graph import Graph

__all__ = ["Graph"]
