"""What can go wrong, as people should hear it.

PenstockError            what happened, and `fix`: what to type or change
+-- DefinitionError      the project file is wrong (exit code 2)
+-- SettingError         an environment variable or file is wrong (exit code 2)
+-- Unreachable          a broker, Redis or file is not there (exit code 3)
+-- Refused              this one record cannot be taken; it goes to the dead-letter topic with `reason`
"""

from __future__ import annotations

__all__ = ["DefinitionError", "PenstockError", "Refused", "SettingError", "Unreachable"]


class PenstockError(Exception):
    """One sentence that says what happened, one (`fix`) that says what to do."""

    exit_code = 1

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.fix = fix


class DefinitionError(PenstockError):
    exit_code = 2


class SettingError(PenstockError):
    exit_code = 2


class Unreachable(PenstockError):
    exit_code = 3


class Refused(PenstockError):
    """`reason` is one of a small closed set (decode, schema, range, too_large, future, expectation,
    duplicate, misplaced, unknown, undelivered, failed)."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason
