"""The query language of CloudWatch Logs Insights: the part of it that people on call use.

The language: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html

What is not understood is refused, never passed over. Left out are the commands that are not in `syntax`, the functions
that are not in `functions`, a second `stats`, and `SOURCE` with more than one log group. Where AWS does not say what a
thing means, this takes what its databases would: a comparison with what is missing does not hold.
"""

from ops.oncall.insights.query import Query, fields_of
from ops.oncall.insights.run import Table, run
from ops.oncall.insights.syntax import parse
from ops.oncall.insights.tokens import Refused

__all__ = ["Query", "Refused", "Table", "fields_of", "parse", "run"]
