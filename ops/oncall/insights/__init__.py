"""The query language of CloudWatch Logs Insights, as far as people on call use it.

The language: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html

What is not supported is refused, never ignored: commands that are not in grammar.lark, functions that are not in
`functions`, a second `stats`, and `SOURCE` with more than one log group. Where AWS does not document what a thing
means, this does what its databases would do: a comparison with a missing value is false.
"""

from ops.oncall.insights.parser import InvalidQuery, parse
from ops.oncall.insights.query import Query, fields_of
from ops.oncall.insights.run import Table, run

__all__ = ["InvalidQuery", "Query", "Table", "fields_of", "parse", "run"]
