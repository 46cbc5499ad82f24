-- Requests a reconcile now.
local os = require("os")
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["mtls-operator.io/reconcile"] = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
