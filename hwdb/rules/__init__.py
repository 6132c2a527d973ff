"""The rules of the lint: small functions, each looking for one kind of slip in one record.

To add a rule, write a function under ``@rule`` in the module it belongs to; `hwdb.check` runs all.
"""

from hwdb.rules import citations as citations
from hwdb.rules import magnitudes as magnitudes
from hwdb.rules import relations as relations
from hwdb.rules.base import RULES as RULES
from hwdb.rules.base import Database as Database
from hwdb.rules.base import Finding as Finding
from hwdb.rules.base import Rule as Rule
