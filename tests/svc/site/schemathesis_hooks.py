"""What the description cannot express to Schemathesis: an add has its fields in the body or in the query."""

from typing import Any

import schemathesis
from schemathesis.core import NOT_SET

FIELDS = {"name": "Sofía", "money": "12.50"}


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: schemathesis.Case[Any], _kwargs: dict[str, Any]) -> None:
    """Leaves the fields of the body, or completes those of the query. Afterwards, the case is validated again."""
    if case.operation.label != "POST /add":
        return
    if case.body is NOT_SET:
        case.query = {**FIELDS, **case.query}
    else:
        case.query = {name: value for name, value in case.query.items() if name not in FIELDS}
