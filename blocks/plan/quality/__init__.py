"""What restored rows must satisfy: suites in the words of Great Expectations, evaluated in bounded memory.

Whoever uses it imports from here; the modules below are its own.
"""

from blocks.plan.quality.suite import Expectation, QualityResult, QualitySuite, load_suites

__all__ = ["Expectation", "QualityResult", "QualitySuite", "load_suites"]
