"""An emulator of the AWS services that the operator drives, for tests on one machine.

MiniStack (PyPI) supplies the AWS wire protocols and plain storage; this package adds the behaviour that
MiniStack leaves out and the operator must handle: certificates that are issued only after their DNS record
exists, domain names that are UPDATING for a while, the truststore as it was when it was read, quotas, faults,
and a data plane that knows client certificates.

The modules named after services replace functions of MiniStack when they are imported (`patching`; MiniStack
is pinned to one version for that reason), and ``gateway.app`` wraps MiniStack's ASGI application. Each module
names the sources of its behaviour; behaviour without a source is introduced by "Assumed:" in the module's
docstring and listed in ``ASSUMPTIONS.md``.
"""

__version__ = "0.1.0"
