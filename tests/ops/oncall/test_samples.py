"""Queries like those that AWS publishes, for its own kinds of logs: each is read and run, or refused with the reason.

They have the commands, the functions and the order of commands of the samples, in words of our own.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-examples.html and the pages of the commands.
"""

from typing import Any, Final

import pytest

from ops.oncall import insights
from ops.oncall.insights import InvalidQuery
from ops.oncall.logs import Record

# By the kind of log; an empty line between two queries.
GENERAL: Final = """
fields @timestamp, @message | sort @timestamp desc | limit 25

filter @message like /Error/
    | stats count(*) as errors by bin(1h)
    | sort errors desc

fields @message | filter @message not like /Error/

fields @timestamp, host, level | sort @timestamp asc | dedup host

fields @timestamp, host, level | sort @timestamp desc | dedup host, level
"""

LAMBDA: Final = """
filter @type = "REPORT"
    | stats max(@memorySize / 1000 / 1000) as given, min(@maxMemoryUsed / 1000 / 1000) as least,
        avg(@maxMemoryUsed / 1000 / 1000) as mean, max(@maxMemoryUsed / 1000 / 1000) as most, given - most as unused

filter @type = "REPORT" |
    stats avg(@duration), max(@duration), min(@duration) by bin(5m)

fields @requestId, @logStream | filter @type = "REPORT" and @duration > 1000
| sort @timestamp desc | dedup @requestId | limit 20
"""

NETWORK: Final = """
stats sum(packets) as sent by srcAddr, dstAddr | sort sent  desc | limit 15

filter isIpv4InSubnet(srcAddr, "192.0.2.0/24") | stats sum(bytes) as sent by dstAddr | sort sent desc | limit 15

filter protocol=17 | stats count(*) by srcAddr

filter logStatus="SKIPDATA" | stats count(*) by bin(1h) as t | sort t

fields srcAddr, dstAddr, srcPort | filter interfaceId = 'eni-0' | sort @timestamp desc
| dedup srcAddr, dstAddr, srcPort | limit 20

filter (dstAddr like 'x.x.' and srcAddr like 'y.y.') | stats sum(bytes) as sent by srcAddr | sort sent desc | limit 10

filter (dstAddr like 'x.x.' and srcAddr like 'y.y.') or (srcAddr like 'x.x.' and dstAddr like 'y.y.')
| stats sum(bytes) as sent by srcAddr, dstAddr | sort sent desc | limit 10

filter (srcAddr like 'x.x.' and dstAddr not like 'y.y.') | stats sum(bytes) as sent by srcAddr | sort sent desc

filter isValidIpV4(srcAddr) and not isIpInSubnet(srcAddr, "10.0.0.0/8") | fields srcAddr

filter isValidIp(srcAddr) | fields isValidIpV6(srcAddr) as new, isIpv6InSubnet(srcAddr, "2001:db8::/32") as ours
"""

NAMES: Final = """
stats count(*) by queryType, bin(1h)

stats count(*) as asked by resolverIp | sort asked desc | limit 10

filter responseCode="SERVFAIL" | stats count(*) by queryName
"""

AUDIT: Final = """
stats count(*) by eventSource, eventName, awsRegion

filter (eventName="StartInstances" or eventName="StopInstances") and awsRegion="us-east-2"

filter eventName="CreateUser" | fields awsRegion, requestParameters.userName, responseElements.user.arn

filter eventName="UpdateTrail" and ispresent(errorCode) | stats count(*) by errorCode, errorMessage

filter tlsDetails.tlsVersion in [ "TLSv1", "TLSv1.1" ]
| stats count(*) as old by userIdentity.accountId, tlsDetails.tlsVersion, userAgent
| sort tlsDetails.tlsVersion, userAgent

filter tlsDetails.tlsVersion in [ "TLSv1", "TLSv1.1" ] | stats count(*) as old by eventSource | sort old desc
"""

WEB: Final = """
fields status, ip, path | filter status>=400 and status<=499 | sort @timestamp desc | limit 10

fields status, ip, path, responseLatency | sort responseLatency desc | limit 10

stats count(*) as requests by path | sort requests desc | limit 10

filter status=200 | stats avg(integrationLatency), max(integrationLatency),
min(integrationLatency) by bin(1m)

fields remoteIP, request, filename| sort @timestamp desc | filter filename="/var/www/html/admin" | limit 20

fields remoteIP, method | filter status="200" and referrer= "http://192.0.2.1/" and method= "GET"
| stats count_distinct(remoteIP) as visitors | limit 10

fields function, process, message | filter message like "resuming" | sort @timestamp desc | limit 20

fields @timestamp, @message | stats count(*) as events by `detail-type` | sort events desc
"""

PARSE: Final = """
parse @message "user=*, method:*, took := *" as @user,
    @method, @took | stats avg(@took) by @method,
    @user

parse @message /user=(?<user>.*?), method:(?<method>.*?),
    took := (?<took>.*?)/ | stats avg(took) by method, user

FIELDS @message
    | PARSE @message "* [*] *" as at, kind, text
    | FILTER kind IN ["ERROR", "INFO"]
    | DISPLAY text, kind = "ERROR" as isError

fields @message | parse @message "[*] *" as level, text | filter level = "ERROR" | stats count(*) by text
"""

COMMANDS: Final = """
fields `foo-bar`, action, abs(f3-f4)

fields f1, f2 | filter (duration>2000)

fields f1 | filter (f1=10 or f3>25)

fields f1 | filter statusCode like /2\\d\\d/

fields f1 | filter f1 =~ /Exception/

fields f1 | filter f1 like /(?i)exception/

fields abs(f1) as size, f2

stats avg(f1) as mean | sort mean desc

filter loggingType in ["ERROR"] | filter @message like /(?i)(error|failure)/

fields status | filter status not in [404, 200]

fields @timestamp, @logStream, unmask(@message) | limit 10

filter toMillis(@timestamp) >= (now() * 1000 - 7200000)

fields ltrim("xyZxyfooxyZ", "xyZ") as left, rtrim("xyZfooxyxyZ", "xyZ") as right

fields datefloor(@timestamp, 1h) as hour, dateceil(@timestamp, 1h) as next | display hour, next

stats stddev(duration), pct(duration, 95), sortsFirst(name), sortsLast(name), latest(name) by bin(1h)
"""

STATS: Final = """
stats avg(f1), min(f2), max(f3) by bin(5m)

stats avg(bytes), max(bytes) by dstAddr

FIELDS strlen(@message) AS length
| STATS sum(length)/1024/1024 as megabytes BY bin(5m)
| STATS max(megabytes) AS most, min(megabytes) AS least, avg(megabytes) AS mean

STATS count_distinct(ip) AS ips, count(*) AS requests BY session, platform
| FILTER ips > 1
| STATS count(*) AS sessions, sum(requests) / count(*) AS mean BY platform

FIELDS strlen(@message) AS length
| STATS sum(length) / 1024 / 1024 AS megabytes BY BIN(5m) as @t
| STATS max(megabytes) AS most, avg(megabytes) AS mean BY dateceil(@t, 10m)

FIELDS strlen(@message) AS length
 | STATS sum(length) AS bytes, max(@timestamp) as @t BY @logStream
 | STATS avg(bytes) BY dateceil(@t, 5m)

STATS sum(x) as sum_x by y, z
| STATS max(sum_x) as max_x by z
# only max_x and z are left
"""

PATTERNS: Final = """
pattern @message

filter @message like /ERROR/ | pattern @message

filter @message like /(?i)error/ | pattern @message | sort @sampleCount desc | limit 5

fields @message | parse @message "[*] *" as level, text | filter level = "ERROR" | pattern text

pattern substr(@message, 24) | filter @ratio > 0.1
"""

REFUSED: Final = """
fields @timestamp, @message | pattern @message | diff

fields @message | pattern @message | diff previousDay

fields @message | filterIndex requestId = "1"

fields jsonParse(@message) as parsed | unnest parsed.items into item

SOURCE logGroups(namePrefix: ["a", "b"]) | fields @message

fields @message | anomaly

FIELDS @message
| STATS SUM(Fault) by Operation
| STATS MAX(strlen(@message)) AS longest

FIELDS strlen(@message) AS length
| STATS sum(length) AS bytes BY @logStream
| STATS avg(bytes) BY bin(5m)

stats count(*) as n by a | sort n | stats max(n)
"""


def queries(*texts: str) -> list[str]:
    return [query for text in texts for query in text.strip().split("\n\n")]


READ: Final = queries(GENERAL, LAMBDA, NETWORK, NAMES, AUDIT, WEB, PARSE, COMMANDS, STATS, PATTERNS)
LOG: Final[list[dict[str, Any]]] = [
    {"text": "user=ann, method:GET, took := 7", "status": 404, "srcAddr": "192.0.2.7", "bytes": 5, "duration": 2},
    {"text": "[ERROR] 17 lines", "status": "200", "srcAddr": "2001:db8::7", "dstAddr": "x.x.0.1", "f1": "Exception"},
]


@pytest.mark.parametrize("query", READ)
def test_a_sample_is_read_and_run(query: str) -> None:
    """Also over records that lack its fields."""
    parsed = insights.parse(query)
    table = insights.run(parsed, [Record(60_000 * at, "stream", fields, "") for at, fields in enumerate(LOG)])

    assert table.columns
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert insights.run(parsed, ()).rows == []


@pytest.mark.parametrize("query", queries(REFUSED))
def test_a_sample_that_has_no_sense_here_is_refused_with_the_reason(query: str) -> None:
    """Those that AWS publishes as invalid, and those of commands that need what a recording does not have."""
    with pytest.raises(InvalidQuery, match=r"not supported|in quotes|not a column any more|at most two stats"):
        insights.parse(query)
