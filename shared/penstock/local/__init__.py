"""What `penstock up`, `demo` and `down` need on one machine.

process     a child that cannot outlive its parent; ending a whole process group for sure
server      a child with a folder, a port and data: start until it answers, stop, kill
kafka, redis    the two of them
supervisor  the services: in order, waited for, restarted, ended
state       what runs, in a file, for `penstock status` and `penstock down`
"""

from .process import LocalError
from .state import Status, down, status

__all__ = ["LocalError", "Status", "down", "status"]
