"""What restored rows must satisfy: suites in the words of Great Expectations, evaluated in bounded memory.

suite          what is written in a file
column_types   which type the values of a column are compared in
table          restored rows as a table
expectations   what Great Expectations knows, and what is wrong with an expectation before there are rows
evaluation     a suite on a table: frames (rows one by one), metrics (numbers about all rows), sql (queries)
findings       what it came to, in records and sentences

Importing `expectations`, `evaluation` or `frames` imports Great Expectations, which takes seconds.
"""

from blocks.plan.quality.suite import Expectation, QualitySuite, load_suites

__all__ = ["Expectation", "QualitySuite", "load_suites"]
