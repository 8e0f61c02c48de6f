"""Which Docker Pier says it is: clients choose their API by it, and some refuse an unknown one."""

ENGINE_VERSION = "28.5.2"
API_VERSION = "1.51"
MIN_API_VERSION = "1.24"
