"""Frames: features, joins, training sets and datasets over DataFrames and offline tables, by the kernel of the stream."""
