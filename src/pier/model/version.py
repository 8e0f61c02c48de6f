"""Which Docker Pier says it is: clients choose their API by it, and some refuse an unknown one."""

ENGINE_VERSION = "29.7.2"
API_VERSION = "1.55"
MIN_API_VERSION = "1.24"
