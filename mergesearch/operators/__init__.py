"""Merge operators, one per file."""

OPERATORS = {
    "linear": "mergesearch.operators.linear:Linear",
    "slerp": "mergesearch.operators.slerp:Slerp",
    "task_arithmetic": "mergesearch.operators.task_arithmetic:TaskArithmetic",
    "ties": "mergesearch.operators.ties:Ties",
}
