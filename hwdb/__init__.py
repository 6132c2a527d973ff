"""The hardware database: cited facts about accelerators, CPUs, machines, wires and prices.

Facts only: one TOML file per thing, every value with its unit and where it was read. What is not
here: how fast software runs on them (``hwdb/calibrations`` holds fits, apart from the facts) and
any formula (that is ``perfmodel``, which imports this package and is never imported by it).

>>> import hwdb
>>> hwdb.gpu("h100-sxm").memory.bandwidth.value
3350000000000.0
"""

from hwdb.citation import Cited as Cited
from hwdb.citation import UnknownValue as UnknownValue
from hwdb.load import NotFound as NotFound
from hwdb.load import calibration as calibration
from hwdb.load import cited as cited
from hwdb.load import cpu as cpu
from hwdb.load import fabric as fabric
from hwdb.load import get as get
from hwdb.load import gpu as gpu
from hwdb.load import ls as ls
from hwdb.load import modify as modify
from hwdb.load import node as node
from hwdb.load import prices as prices
from hwdb.load import storage as storage
from hwdb.records import Cpu as Cpu
from hwdb.records import Fabric as Fabric
from hwdb.records import Gpu as Gpu
from hwdb.records import Node as Node
from hwdb.records import Prices as Prices
from hwdb.records import Storage as Storage
from hwdb.schema import HwdbError as HwdbError
