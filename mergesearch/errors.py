"""Every error that mergesearch raises on purpose. Each message says what is wrong, where, and how to mend it."""


class MergesearchError(Exception):
    """Root of the tree: its text is meant for the user, so the command line prints it without a traceback."""

    exit_code = 1


class SpecError(MergesearchError):
    """A study file, a workers profile or an argument says something that cannot be done."""

    exit_code = 2


class CheckpointError(MergesearchError):
    """A checkpoint is missing, unreadable, or does not fit the others."""

    exit_code = 3


class DataError(MergesearchError):
    """A data file is missing, lacks a column, or has a label that the model does not know."""

    exit_code = 3


class StoreError(MergesearchError):
    """The study store cannot be read or written. What was recorded before stays recorded."""

    exit_code = 4


class StoreVersionError(StoreError):
    """The store was written by another version of mergesearch."""


class StudyNotFound(StoreError):
    """No study of that name stands in the store."""


class NotOffered(StoreError):
    """No such evaluation is offered, or the token is none of its."""


class LeaseError(StoreError):
    """Another controller holds the study, or took it over."""


class PoolError(MergesearchError):
    """The workers cannot start: no evaluation can be made."""

    exit_code = 5


class EvaluationError(MergesearchError):
    """One candidate cannot be built or scored. The study records it as failed and goes on."""


class StudyFailed(MergesearchError):
    """Too many evaluations failed in a row: the study stopped, everything recorded is kept."""

    exit_code = 6
