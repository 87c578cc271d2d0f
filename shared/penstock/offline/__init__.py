"""The offline tables, to read: what went through the topics as Delta tables, each record once, at any version.

    tables = penstock.offline.Tables("s3://bucket/prefix")      # or a folder; `penstock config show` says which is used
    tables.names()                                              # ['cabs.rows.rides', 'rides', ...]
    rides = tables.table("rides")                               # as it is now: its version never changes under you
    rides.at(version=12)   rides.at(as_of=yesterday)            # as it was
    rides.arrow(columns=["fare", "at"])                         # a pyarrow table
    rides.positions()                                           # {0: 1200, 1: 1184}: what it has of each partition

They are plain Delta tables (Parquet inside), so that any engine reads them: DuckDB, Polars, Spark, Trino, pandas.

    location   where they are: a folder or an S3 bucket
    columns    what a record of a topic becomes in its table
    table      Tables, Table: reading, at any version
    scan       a partition's rows in order, in bounded memory
    kept       what is counted, decided and said, read as a log where no broker is
    commits    the history of a table
    pins       which versions training sets need
    upkeep     compact, vacuum, restore
    verify     is each record there, and there once
"""

from .commits import Version
from .location import Location
from .pins import Pin, pins
from .table import Table, Tables

__all__ = ["Location", "Pin", "Table", "Tables", "Version", "pins"]
