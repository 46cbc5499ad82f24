-- Requests a new certificate now.
local os = require("os")
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["mtls-operator.io/renew"] = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
