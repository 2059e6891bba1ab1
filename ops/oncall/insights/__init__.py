"""The query language of CloudWatch Logs Insights, as far as people on call use it.

The language: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html

What is not supported is refused, never ignored: commands that are not in grammar.lark, functions that are not in
`functions`, and `SOURCE` with more than one log group. Where AWS does not document what a thing means, this does what
its databases would do: a comparison with a missing value is false. `pattern` finds patterns by a simple rule, where
CloudWatch has learned from many logs.
"""

from ops.oncall.insights.errors import InvalidQuery
from ops.oncall.insights.parser import parse
from ops.oncall.insights.query import Query, fields_of
from ops.oncall.insights.run import Table, run

__all__ = ["InvalidQuery", "Query", "Table", "fields_of", "parse", "run"]
